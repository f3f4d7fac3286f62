"""What is learnt of a cluster that is already running, and how one of this machine ends."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from distributed import Client
from distributed.objects import SchedulerInfo

from unet_dask.errors import ClusterError
from unet_dask.workers import cluster as clusters
from unet_dask.workers.running import connected

if TYPE_CHECKING:
    from pathlib import Path

    from unet_dask.workers.cluster import Cluster


def test_workers_are_counted_while_the_client_looks_for_itself(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def overtaken(self: Any, n_workers: int = 0) -> None:
        self._scheduler_identity = SchedulerInfo(await self.scheduler.identity(n_workers=0))

    monkeypatch.setattr(Client, "_update_scheduler_info", overtaken)
    assert connected(cluster.client).workers == 2


#: Takes as long to import as torch on a busy machine, and like it registers what is to be done when threads end.
SLOW = """
import threading, time

threading._register_atexit(time.sleep, 0.2)  # the main thread yields here, as it may anywhere
end = time.monotonic() + 60
while time.monotonic() < end and not threading._SHUTTING_DOWN:
    time.sleep(0.001)
threading._register_atexit(lambda: None)
"""
SHORT_RUN = """
from unet_dask.workers import cluster

if __name__ == "__main__":
    assert "unet_dask.engine.backend" in cluster._PRELOAD
    cluster._PRELOAD = cluster._PRELOAD.replace("unet_dask.engine.backend", "slow")
    with cluster.local_cluster(workers=1, threads=1, limit=2 << 30, device="cpu"):
        pass
"""


def test_run_that_is_over_before_torch_is_loaded_ends_without_a_word(tmp_path: Path) -> None:
    """One that only had pyramids left, on a busy machine: torch was imported while the interpreter shut down."""
    (tmp_path / "slow.py").write_text(SLOW)
    (tmp_path / "run.py").write_text(SHORT_RUN)
    done = subprocess.run(
        [sys.executable, tmp_path / "run.py"],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_what_keeps_workers_from_starting_is_a_line_and_other_errors_are_left_alone() -> None:
    cause = OSError(27, "File too large")
    with pytest.raises(ClusterError, match="File too large") as caught, clusters._start_told():
        raise RuntimeError(f"Cluster failed to start: {cause}\n") from cause
    assert len(str(caught.value).splitlines()) == 1
    with pytest.raises(RuntimeError, match="mine") as other, clusters._start_told():
        raise RuntimeError("mine: of a run")
    assert type(other.value) is RuntimeError
