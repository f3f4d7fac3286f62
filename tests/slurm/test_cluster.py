"""``segment --cluster slurm``: workers that dask-jobqueue submits to a real Slurm."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.conftest import save_source
from tests.torture.bench import content

if TYPE_CHECKING:
    from pathlib import Path

SETTINGS = "--products classes,instances --region 64,64 --tile 64,64 --chunks 64,64"
#: What a user has in ~/.config/dask, here on the loopback interface.
CONFIGURATION = """\
jobqueue:
  slurm:
    cores: 2
    processes: 1
    memory: {memory}
    walltime: "00:10:00"
    interface: lo
    python: {python}
    log-directory: {folder}/logs
    scheduler-options: {{host: 127.0.0.1, dashboard: false}}
"""


def segmented(
    folder: Path, model: Path, environment: dict[str, str], *more: str, memory: str = "1100MiB"
) -> subprocess.CompletedProcess[str]:
    """Segment an image with the configuration of a user."""
    (folder / "jobqueue.yaml").write_text(
        CONFIGURATION.format(memory=memory, python=sys.executable, folder=folder)
    )
    return subprocess.run(
        [
            "unet-dask",
            "segment",
            "source.zarr",
            "-m",
            str(model),
            "--memory",
            "1GiB",
            *SETTINGS.split(),
            *more,
        ],
        cwd=folder,
        env=environment | {"DASK_CONFIG": str(folder)},
        capture_output=True,
        text=True,
        check=False,
        timeout=1500,
    )


def test_workers_that_are_jobs_write_the_same(
    environment: dict[str, str], tiny_model: Path, tmp_path: Path
) -> None:
    pytest.importorskip("dask_jobqueue", reason="pip install dask-jobqueue")
    save_source(tmp_path / "source.zarr", (320, 320))
    local = segmented(tmp_path, tiny_model, environment, "-o", "local.zarr", "--workers", "1")
    assert local.returncode == 0, local.stderr
    jobs = segmented(
        tmp_path, tiny_model, environment, "-o", "jobs.zarr", "--cluster", "slurm", "--workers", "2"
    )
    assert jobs.returncode == 0, jobs.stderr
    assert content(tmp_path / "jobs.zarr") == content(tmp_path / "local.zarr")
    asked = subprocess.run(
        ["squeue", "--noheader"], env=environment, capture_output=True, text=True, check=True
    )
    assert "CG" in asked.stdout or not asked.stdout.strip(), "jobs are left behind"


def test_jobs_with_too_little_memory_are_refused(
    environment: dict[str, str], tiny_model: Path, tmp_path: Path
) -> None:
    pytest.importorskip("dask_jobqueue", reason="pip install dask-jobqueue")
    save_source(tmp_path / "source.zarr", (320, 320))
    done = segmented(tmp_path, tiny_model, environment, "--cluster", "slurm", memory="512MiB")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
    assert "--memory 512MiB" in done.stderr
