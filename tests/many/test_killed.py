"""Many images whose workers or driver are killed: nothing is lost, and nothing is wrong."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.conftest import SCRIPT
from tests.killing import is_worker, kill
from tests.many.plates import save_plate
from tests.torture.bench import content

if TYPE_CHECKING:
    from pathlib import Path

FIELDS = [f"A/{column}/{field}" for column in range(1, 5) for field in range(3)]


def start(plate: Path, results: Path, model: Path, *more: str) -> subprocess.Popen[str]:
    """Start a run in a process group of its own."""
    words = [
        "segment",
        str(plate),
        "-o",
        str(results),
        "-m",
        str(model),
        "-j",
        "1",
        "--threads",
        "1",
        "-v",
        *more,
    ]
    return subprocess.Popen(
        [SCRIPT, *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def done(results: Path) -> int:
    return sum((results / f"{name}.zarr/_unet_dask/ledger.jsonl").exists() for name in FIELDS)


def contents(results: Path) -> dict[str, dict[str, bytes]]:
    return {name: content(results / f"{name}.zarr") for name in FIELDS}


@pytest.fixture(scope="module")
def plate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a plate of twelve fields, each of which takes a moment."""
    wells = {f"A/{column}": ["0", "1", "2"] for column in range(1, 5)}
    return save_plate(tmp_path_factory.mktemp("plate") / "plate.zarr", wells, (500, 500))


@pytest.fixture(scope="module")
def undisturbed(plate: Path, tiny_model: Path) -> dict[str, dict[str, bytes]]:
    """Return what a run writes that nobody kills."""
    process = start(plate, plate.parent / "undisturbed", tiny_model)
    _, stderr = process.communicate(timeout=280)
    assert process.returncode == 0, stderr
    return contents(plate.parent / "undisturbed")


@pytest.mark.timeout(600)
def test_a_killed_worker_costs_nothing_but_time(
    plate: Path, tmp_path: Path, tiny_model: Path, undisturbed: dict[str, dict[str, bytes]]
) -> None:
    process = start(plate, tmp_path / "results", tiny_model)
    while process.poll() is None and done(tmp_path / "results") < 3:
        time.sleep(0.02)
    workers = [each for each in psutil.Process(process.pid).children(recursive=True) if is_worker(each)]
    assert process.poll() is None
    workers[0].kill()
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr
    assert contents(tmp_path / "results") == undisturbed


@pytest.mark.timeout(600)
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_run_that_was_ended_goes_on_where_it_stood(
    plate: Path,
    tmp_path: Path,
    tiny_model: Path,
    undisturbed: dict[str, dict[str, bytes]],
    number: signal.Signals,
) -> None:
    process = start(plate, tmp_path / "results", tiny_model)
    while process.poll() is None and done(tmp_path / "results") < 3:
        time.sleep(0.02)
    if number == signal.SIGKILL:
        kill(process)
    else:
        os.killpg(process.pid, number)
        _, stderr = process.communicate(timeout=60)
        assert process.returncode == 130
        assert stderr.splitlines()[-1].startswith(
            "unet-dask: interrupted; what is done is kept. Go on with: "
        )
    before = done(tmp_path / "results")
    assert 3 <= before < len(FIELDS)
    process = start(plate, tmp_path / "results", tiny_model, "--resume")
    _, stderr = process.communicate(timeout=280)
    assert process.returncode == 0, stderr
    assert stderr.count(" was done before") >= before
    assert contents(tmp_path / "results") == undisturbed
