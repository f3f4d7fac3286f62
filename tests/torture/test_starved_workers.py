"""Workers that run out of memory, that are killed as soon as they start, or that have all gone."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

import unet_dask
from tests.conftest import save_source
from tests.torture.sabotage import processes, sabotaged
from tests.torture.test_worker_faults import SETTINGS
from tests.torture.tier import Tier, counted
from tests.torture.watchdog import in_time
from unet_dask.errors import ClusterError, MemoryPlanError
from unet_dask.run.events import Progress
from unet_dask.workers.load import present

if TYPE_CHECKING:
    from collections import Counter
    from pathlib import Path

    from tests.torture.bench import Bench
    from unet_dask.run.events import Event

MIB = 1 << 20


@pytest.fixture(scope="module")
def hundred(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Return a bench of a hundred regions."""
    source = save_source(tmp_path_factory.mktemp("starved") / "source.zarr", (320, 320))
    return replace(bench, source=source, settings=SETTINGS).undisturbed()


def test_less_memory_than_planned_is_refused_before_anything_is_done(bench: Bench, tmp_path: Path) -> None:
    settings: dict[str, Any] = SETTINGS
    planned = unet_dask.plan_store(bench.source, bench.model, **settings)
    settings = {**settings, "memory": int(0.8 * planned.memory.total)}
    with pytest.raises(MemoryPlanError, match="MiB") as refused:
        unet_dask.segment_store(bench.source, tmp_path / "out.zarr", bench.model, **settings)
    assert len(str(refused.value).splitlines()) == 1
    assert not (tmp_path / "out.zarr").exists()


def test_workers_that_leak_are_replaced_and_cost_no_voxel(hundred: Bench, tmp_path: Path) -> None:
    others = processes()
    with sabotaged(hundred, tmp_path / "tickets", 1, limit=560 * MIB, leak=5 * MIB) as bench:
        first = processes(but=others)
        assert in_time(240, lambda: bench.run(tmp_path / "out.zarr")).complete
        assert not {*first} & {*processes(but=others)}, "no worker was replaced: it lost too little"
    assert hundred.wrong(tmp_path / "out.zarr") == []


@pytest.mark.torture
def test_worker_that_is_almost_full_does_not_stand_still(hundred: Bench, tmp_path: Path) -> None:
    others = processes()
    with sabotaged(hundred, tmp_path / "tickets", 1, filled=0.86) as bench:
        first = processes(but=others)
        in_time(60, lambda: bench.run(tmp_path / "out.zarr"))
        assert processes(but=others) == first
    assert hundred.wrong(tmp_path / "out.zarr") == []


@pytest.mark.torture
@pytest.mark.timeout(600)
def test_workers_killed_whenever_they_start_come_back_once_they_are_left(
    hundred: Bench, tmp_path: Path
) -> None:
    sink, others = tmp_path / "out.zarr", processes()
    with (
        counted("C5 workers killed whenever they start", Tier("full")) as counts,
        sabotaged(hundred, tmp_path / "tickets", 2) as bench,
    ):
        hunter = threading.Thread(target=_hunt, args=(60.0, others, counts), daemon=True)

        def begin(event: Event) -> None:
            if isinstance(event, Progress) and event.done == 10:
                hunter.start()

        run = threading.Thread(target=lambda: _until_complete(bench, sink, begin), daemon=True)
        run.start()
        while not hunter.ident:
            time.sleep(0.1)
        hunter.join()
        left = time.monotonic()
        while len(present(bench.client)) < 2:
            assert time.monotonic() < left + 30
            time.sleep(0.1)
        counts["back_after_ms"] = int(1e3 * (time.monotonic() - left))
        run.join(240)
        assert not run.is_alive()
        assert counts["killed"] > 10
    assert hundred.wrong(sink) == []


def _hunt(seconds: float, others: list[int], counts: Counter[str]) -> None:
    """Kill every worker as soon as it is seen, but those of others."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for each in processes(but=others):
            with suppress(ProcessLookupError):
                os.kill(each, signal.SIGKILL)
                counts["killed"] += 1
        time.sleep(0.05)


def _until_complete(bench: Bench, sink: Path, begin: object) -> None:
    """Run, and resume as long as the workers are too few."""
    resume = False
    while True:
        with suppress(unet_dask.UnetDaskError):
            bench.run(sink, resume=resume, on_event=begin)
            return
        resume = True


@pytest.mark.torture
@pytest.mark.timeout(600)
def test_run_whose_workers_have_all_gone_says_so_in_two_minutes(hundred: Bench, tmp_path: Path) -> None:
    sink = tmp_path / "out.zarr"
    gone: list[float] = []
    with sabotaged(hundred, tmp_path / "tickets", 2) as bench:

        def leave(event: Event) -> None:
            if isinstance(event, Progress) and not gone:
                # Not retired: the last worker of several stays while it holds a result.
                bench.client.cluster.scale(0)
                gone.append(time.monotonic())

        with pytest.raises(ClusterError, match="--resume"):
            in_time(300, lambda: bench.run(sink, on_event=leave))
        assert time.monotonic() - gone[0] <= 120
    hundred.run(sink, resume=True)
    assert hundred.wrong(sink) == []
