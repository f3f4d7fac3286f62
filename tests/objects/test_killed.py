"""A run that is killed while its objects are given their shape, at the command line, ends like any other."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.killing import is_worker, kill, recorded, started
from tests.run.test_run import make_source
from tests.test_objects import ruled
from tests.torture.bench import content
from unet_dask.objects.rule import ObjectRule
from unet_dask.run.making import LEVEL

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

#: Regions of 64 pixels in an image of 600 x 700.
REGIONS = 110


@dataclass
class Run:
    """A run that makes objects, and the files that it writes if nobody disturbs it."""

    source: Path
    model: Path
    files: dict[str, bytes]

    def start(self, sink: Path, *more: str) -> subprocess.Popen[str]:
        """Start the run in a process group of its own."""
        settings = (
            "--threads 1 --products instances --region 64,64 --tile 64,64 --chunks 64,64 --memory 1GiB -q"
        )
        return started(self.source, sink, self.model, settings, *more)

    def shaping(self, sink: Path, *more: str) -> subprocess.Popen[str]:
        """Start the run, and return it once the objects of some regions have their shape."""
        process = self.start(sink, *more)
        while process.poll() is None and shaped(sink) < 3:
            time.sleep(0.01)
        return process


def shaped(sink: Path) -> int:
    """Return the number of regions whose objects are recorded to have their shape."""
    return recorded(sink, LEVEL)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("killed")
    rule = ObjectRule(fill_holes=True, min_size=2, core=2, grow=5, split=0.5)
    model = ruled(folder, rule, classes=3, width=4)
    assert model.path is not None
    made = Run(make_source(folder), model.path, {})
    _, said = (process := made.start(folder / "s.zarr", "--workers", "2")).communicate(timeout=300)
    assert process.returncode == 0, said
    assert shaped(folder / "s.zarr") == REGIONS
    made.files = content(folder / "s.zarr")
    return made


@pytest.mark.timeout(600)
def test_killed_while_objects_are_shaped_resumes_to_the_same_bytes(run: Run, tmp_path: Path) -> None:
    sink = tmp_path / "s.zarr"
    kill(run.shaping(sink, "--workers", "2"))
    assert 3 <= shaped(sink) < REGIONS
    _, said = (resumed := run.start(sink, "--workers", "1", "--resume")).communicate(timeout=300)
    assert resumed.returncode == 0, said
    assert content(sink) == run.files


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_worker_killed_while_objects_are_shaped_costs_nothing_but_time(run: Run, tmp_path: Path) -> None:
    sink = tmp_path / "s.zarr"
    process = run.shaping(sink, "--workers", "2")
    workers = [each for each in psutil.Process(process.pid).children(recursive=True) if is_worker(each)]
    workers[0].kill()
    before = shaped(sink)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert before < REGIONS
    assert content(sink) == run.files
