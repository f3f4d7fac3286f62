"""What befalls the driver and the scheduler: killed, interrupted or told to end, the run resumes to the same bytes."""

from __future__ import annotations

import json
import random
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.conftest import SCRIPT, run_script, save_source
from tests.torture.bench import Bench
from tests.torture.tier import SEED, Tier, counted, full
from unet_dask.ledger import Ledger

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: Seven by seven regions of one chunk each; the time between the first and the last is long enough to aim at.
FLAGS = "--region 32,32 --tile 32,32 --chunks 32,32 --precision float32 --threads 1 -q"
SETTINGS = {"region": (32, 32), "tile": (32, 32), "chunks": (32, 32), "precision": "float32"}
REGIONS = 49
#: What ends a driver. Small tiers of the first two are in tests/run/test_resume.py.
SIGNALS = ("SIGKILL", "SIGINT", "SIGTERM")
#: Seconds within which an interrupted run must have ended.
PROMPT = 5.0


@pytest.fixture(scope="module")
def undisturbed(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    source = save_source(tmp_path_factory.mktemp("processes") / "source.zarr", (224, 224))
    return Bench(source, bench.model, bench.client, SETTINGS).undisturbed()


@dataclass
class Driver:
    """A command line at work."""

    process: subprocess.Popen[str]
    sink: Path

    def reach(self, regions: int) -> None:
        """Wait until some regions are recorded as done, or the run has ended."""
        while self.process.poll() is None and len(Ledger(str(self.sink / "_unet_dask")).finished()) < regions:
            time.sleep(0.005)

    def end(self, seconds: float) -> tuple[int, str]:
        """Return the exit code and what was said, once it has ended."""
        _, said = self.process.communicate(timeout=seconds)
        return self.process.returncode, said


@contextmanager
def driver(bench: Bench, sink: Path, *more: str) -> Iterator[Driver]:
    """Start a run in a process group of its own; nothing of it is left behind."""
    places = [str(bench.source), "-o", str(sink), "-m", str(bench.model)]
    process = subprocess.Popen(
        [SCRIPT, "segment", *places, *FLAGS.split(), *more],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    family = psutil.Process(process.pid)
    children: list[psutil.Process] = []
    try:
        yield Driver(process, sink)
    finally:
        with suppress(psutil.Error):
            children = family.children(recursive=True)
        for each in (*children, family):
            with suppress(psutil.Error):
                each.kill()
        process.communicate()


def finish(bench: Bench, sink: Path) -> list[str]:
    """Resume on workers of our own, and return what is wrong then."""
    bench.run(sink, resume=True)
    return bench.wrong(sink)


@contextmanager
def scheduler(folder: Path) -> Iterator[tuple[psutil.Process, Path]]:
    """Yield a scheduler with a worker, each a process of its own, and the scheduler's file."""
    file = folder / "scheduler.json"
    base = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0"]
    worker = [sys.executable, "-m", "distributed.cli.dask_worker", "--host", "127.0.0.1", "--no-dashboard"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": folder}
    started = [
        subprocess.Popen([*base, "--no-dashboard", "--scheduler-file", str(file)], **quiet),  # type: ignore[call-overload]
        subprocess.Popen(
            [*worker, "--scheduler-file", str(file), "--nthreads", "1", "--no-nanny", "--death-timeout", "5"],
            **quiet,  # type: ignore[call-overload]
        ),
    ]
    try:
        deadline = time.monotonic() + 60
        while not (file.exists() and _complete(file)):
            assert time.monotonic() < deadline, "no scheduler"
            time.sleep(0.1)
        yield psutil.Process(started[0].pid), file
    finally:
        for each in started:
            each.kill()
            each.wait()


def _complete(file: Path) -> bool:
    try:
        return "address" in json.loads(file.read_text())
    except ValueError:
        return False


@pytest.mark.parametrize(
    ("name", "tier"),
    [
        pytest.param("SIGTERM", Tier("small"), id="SIGTERM-small"),
        *(pytest.param(name, Tier("full"), id=f"{name}-full", marks=full) for name in SIGNALS),
    ],
)
def test_driver_that_is_ended_resumes_to_the_same_bytes(
    name: str, tier: Tier, undisturbed: Bench, tmp_path: Path
) -> None:
    draw = random.Random(f"{SEED} {name}")
    with counted(f"A2 driver ended by {name}", tier) as counts:
        for number in range(tier.count(1, 8)):
            sink = tmp_path / f"{number}.zarr"
            with driver(undisturbed, sink, "--workers", "1") as at_work:
                at_work.reach(draw.randint(1, REGIONS - 10))
                workers = psutil.Process(at_work.process.pid).children(recursive=True)
                began = time.monotonic()
                at_work.process.send_signal(getattr(signal, name))
                code, said = at_work.end(60)
                seconds = time.monotonic() - began
                psutil.wait_procs(workers, timeout=30)
                assert [each for each in workers if each.is_running()] == []
            counts["faults"] += 1
            counts["slowest_end_ms"] = max(counts["slowest_end_ms"], round(1000 * seconds))
            if name == "SIGINT":
                assert code == 130, said
                assert len(said.strip().splitlines()) == 1, said  # a new line ends that of the terminal's ^C
                assert seconds < PROMPT
            else:
                assert code != 0
                assert "Traceback" not in said
            assert finish(undisturbed, sink) == []


@pytest.mark.parametrize("tier", [pytest.param(Tier("full"), id="full", marks=full)])
def test_driver_whose_scheduler_is_killed_says_so_in_one_line(
    tier: Tier, undisturbed: Bench, tmp_path: Path
) -> None:
    draw = random.Random(f"{SEED} scheduler")
    with counted("A2 scheduler killed", tier) as counts:
        for number in range(tier.count(1, 6)):
            sink = tmp_path / f"{number}.zarr"
            (tmp_path / str(number)).mkdir()
            with (
                scheduler(tmp_path / str(number)) as (killed, file),
                driver(undisturbed, sink, "--scheduler-file", str(file)) as at_work,
            ):
                at_work.reach(draw.randint(1, REGIONS - 10))
                killed.kill()
                code, said = at_work.end(120)
            counts["faults"] += 1
            assert (code, len(said.splitlines())) == (3, 1), said
            assert re.search(r"--resume", said)
            assert finish(undisturbed, sink) == []


@pytest.mark.torture
def test_control_run_that_was_not_resumed_is_found(undisturbed: Bench, tmp_path: Path) -> None:
    sink = tmp_path / "out.zarr"
    with driver(undisturbed, sink, "--workers", "1") as at_work:
        at_work.reach(3)
        at_work.process.kill()
    assert undisturbed.wrong(sink) != []
    assert run_script("verify", sink, "--crops", "0").code == 4
