"""Workers that are jobs: what is refused before one is submitted. A real Slurm: `tests/slurm/test_cluster.py`."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

import dask
import pytest

from unet_dask.config import SegmentConfig
from unet_dask.errors import ClusterError, OptionError
from unet_dask.workers.jobqueue import slurm_cluster

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class Unsaid:
    """A class of clusters whose configuration is not whole."""

    def __init__(self) -> None:
        raise ValueError("You must specify how much cores to use per job like ``cores=8``")


class Untaken:
    """A cluster whose jobs Slurm does not take."""

    def __enter__(self) -> Untaken:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def job_script(self) -> str:
        return "#!/bin/sh\n"


class NoClient:
    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __enter__(self) -> NoClient:
        return self

    def __exit__(self, *_: object) -> None:
        pass


@pytest.fixture
def jobqueue(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[Any], None]:
    """Return a function that puts a class in the place of dask-jobqueue's; sbatch refuses everything."""
    sbatch = tmp_path / "sbatch"
    sbatch.write_text("#!/bin/sh\necho 'sbatch: error: invalid account' >&2\nexit 1\n")
    sbatch.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr("distributed.Client", NoClient)

    def put(kind: Any) -> None:
        module = ModuleType("dask_jobqueue")
        module.SLURMCluster = kind  # type: ignore[attr-defined] # of a module that is made here
        monkeypatch.setitem(sys.modules, "dask_jobqueue", module)

    return put


def opened(limit: int = 1 << 30) -> None:
    with slurm_cluster(workers=2, threads=None, limit=limit, say=lambda _: None):
        pass


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dask_jobqueue", None)
    with pytest.raises(OptionError, match=r"unet-dask\[slurm\]"):
        opened()


def test_a_machine_that_submits_nothing_is_named(
    jobqueue: Callable[[Any], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    jobqueue(Untaken)
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    with pytest.raises(OptionError, match="sbatch"):
        opened()


def test_what_the_file_does_not_say_is_told(jobqueue: Callable[[Any], None]) -> None:
    jobqueue(Unsaid)
    with pytest.raises(OptionError, match="how much cores"):
        opened()


@pytest.mark.parametrize(
    ("memory", "processes", "fits"), [("3GiB", 4, False), ("4GiB", 4, True), ("900MB", None, False)]
)
def test_workers_with_less_memory_than_the_plan_are_refused(
    memory: str, processes: int | None, fits: bool, jobqueue: Callable[[Any], None]
) -> None:
    jobqueue(Unsaid)
    said = {"jobqueue.slurm": {"memory": memory, "processes": processes}}
    with dask.config.set(said), pytest.raises(OptionError, match="cores" if fits else "--memory"):
        opened()


def test_jobs_that_slurm_does_not_take_are_not_waited_for(jobqueue: Callable[[Any], None]) -> None:
    jobqueue(Untaken)
    with pytest.raises(ClusterError, match="invalid account"):
        opened()


def test_a_cluster_is_named_once() -> None:
    with pytest.raises(OptionError, match="--cluster"):
        SegmentConfig(cluster="slurm", scheduler="tcp://head:8786")
    with pytest.raises(OptionError, match="slurm"):
        SegmentConfig(cluster="pbs")
    assert SegmentConfig(cluster="slurm").elsewhere
    assert not SegmentConfig().elsewhere
