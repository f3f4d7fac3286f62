"""Neurites whose run is killed while basins are put together, at the command line, are those of one left alone."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.killing import kill, recorded, started
from tests.run.test_run import make_source
from tests.test_objects import ruled
from tests.torture.bench import content
from unet_dask.objects.rule import ObjectRule
from unet_dask.run.making import LEVEL

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

RULE = ObjectRule(threshold=0.45, min_size=6, grow=3)
#: What is segmented, and how it is cut: a picture, a stack whose planes are connected, a volume.
KINDS: dict[str, tuple[tuple[int, ...], int, str, int]] = {
    "picture": ((400, 450), 2, "--region 64,64 --tile 64,64 --chunks 64,64", 49),
    "stack": (
        (6, 200, 260),
        2,
        "--region 48,64 --tile 48,64 --chunks 2,48,64 --connect z --numbers dense",
        60,
    ),
    "volume": ((48, 96, 112), 3, "--region 16,16,32 --tile 16,16,32 --chunks 16,16,16", 72),
}


@dataclass
class Run:
    """A run of neurites, the files that it writes if nobody disturbs it, and how long it puts basins together."""

    source: Path
    model: Path
    settings: str
    regions: int
    files: dict[str, bytes]
    seconds: float = 0.0

    def start(self, sink: Path, *more: str) -> subprocess.Popen[str]:
        """Start the run in a process group of its own."""
        settings = f"--threads 1 --products probabilities,instances --memory 1GiB -q {self.settings}"
        return started(self.source, sink, self.model, settings, *more)

    def until(self, process: subprocess.Popen[str], sink: Path, level: int, count: int) -> float:
        """Wait until the ledger has so many entries of a level, or the run has ended; return the time then."""
        while process.poll() is None and recorded(sink, level) < count:
            time.sleep(0.01)
        return time.monotonic()

    def kill_at(self, moment: float | str, sink: Path) -> None:
        """Kill the run at a moment of `MOMENTS`; one that was over by then is made again, and killed earlier."""
        process = self.start(sink, "--workers", "2")
        if isinstance(moment, str):
            self.until(process, sink, LEVEL, 3)
        else:
            self.until(process, sink, 0, self.regions)
            time.sleep(moment * self.seconds)
        kill(process)
        if recorded(sink, LEVEL) >= self.regions and not isinstance(moment, str):
            shutil.rmtree(sink)
            self.kill_at(0.7 * moment, sink)


@pytest.fixture(
    scope="module",
    params=["picture", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("stack", "volume"))],
)
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    shape, dims, settings, regions = KINDS[request.param]
    folder = tmp_path_factory.mktemp("neurites")
    model = ruled(folder, RULE, dims=dims, width=4, depth=1)
    assert model.path is not None
    made = Run(make_source(folder, shape), model.path, settings, regions, {})
    process = made.start(folder / "s.zarr", "--workers", "2")
    began = made.until(process, folder / "s.zarr", 0, regions)
    made.seconds = made.until(process, folder / "s.zarr", LEVEL, 1) - began
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert recorded(folder / "s.zarr", LEVEL) == regions
    made.files = content(folder / "s.zarr")
    return made


#: When to kill: at a share of the time between the last region and the first numbers that are written; or after those.
MOMENTS = (0.3, *(pytest.param(moment, marks=pytest.mark.slow) for moment in (0.0, 0.6, 0.9, "written")))


@pytest.mark.timeout(900)
@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_neurites_are_resumed_to_the_same_bytes(run: Run, tmp_path: Path, moment: float | str) -> None:
    sink = tmp_path / "s.zarr"
    run.kill_at(moment, sink)
    assert recorded(sink, 0) == run.regions
    assert recorded(sink, LEVEL) < run.regions
    _, said = (resumed := run.start(sink, "--workers", "1", "--resume")).communicate(timeout=300)
    assert resumed.returncode == 0, said
    assert content(sink) == run.files


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_twice(run: Run, tmp_path: Path) -> None:
    sink = tmp_path / "s.zarr"
    for share, workers, more in ((0.4, "1", ()), (0.7, "2", ("--resume",))):
        process = run.start(sink, "--workers", workers, *more)
        run.until(process, sink, 0, run.regions)
        time.sleep(share * run.seconds)
        assert process.poll() is None, process.communicate()
        kill(process)
        assert recorded(sink, LEVEL) < run.regions
    _, said = (resumed := run.start(sink, "--workers", "2", "--resume")).communicate(timeout=300)
    assert resumed.returncode == 0, said
    assert content(sink) == run.files
