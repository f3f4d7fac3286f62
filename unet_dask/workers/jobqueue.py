"""A cluster whose workers are jobs of a batch system, as the user's own jobqueue.yaml describes them.

dask-jobqueue starts them, and the scheduler in this process; which queue, how many cores, which network: all of that is
the user's to say, in the file that she has for it already. Looked at here is whether the plan's memory fits, and
whether Slurm takes such jobs at all: dask-jobqueue itself would only log that it does not, and wait for ever.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from unet_dask.config import format_bytes
from unet_dask.errors import ClusterError, OptionError
from unet_dask.workers.cluster import SETTINGS, Cluster, quiet
from unet_dask.workers.dask_settings import require_dask
from unet_dask.workers.load import present
from unet_dask.workers.running import connected

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: Seconds between two looks for the first worker.
_LOOK = 1.0


@contextmanager
def slurm_cluster(
    *, workers: int, threads: int | None, limit: int, say: Callable[[str], None]
) -> Iterator[Cluster]:
    """Start workers as jobs of Slurm, and cancel them in the end.

    Parameters
    ----------
    workers : processes that are asked for
    threads : of each worker's network
    limit : bytes that the plan grants to one
    say : is told what is waited for

    Raises
    ------
    OptionError
        If dask-jobqueue is not there, its configuration is not whole, or gives workers less memory than the plan.
    ClusterError
        If Slurm refuses such jobs.
    """
    require_dask()
    import dask
    from distributed import Client

    made = _class()
    _require_room(limit)
    with dask.config.set(SETTINGS), quiet():
        try:
            cluster = made()
        except (TypeError, ValueError) as error:  # such as "You must specify how many cores ..."
            reason = " ".join(str(error).split()).rstrip(".")
            raise OptionError(
                f"Your configuration of dask-jobqueue makes no cluster: {reason}. Say it under jobqueue: slurm: in "
                "~/.config/dask/jobqueue.yaml."
            ) from error
        with cluster, Client(cluster, set_as_default=False) as client:
            _require_taken(cluster.job_script())
            cluster.scale(workers)
            say(f"waiting for the first of {workers} workers; squeue shows their jobs")
            while not present(client):
                time.sleep(_LOOK)
            yield connected(client, threads=threads, say=say)


def _class() -> Any:  # a class without types
    """Return that of clusters whose workers are jobs."""
    try:
        from dask_jobqueue import SLURMCluster
    except ImportError as error:
        raise OptionError(
            "--cluster slurm needs dask-jobqueue. Install it: pip install 'unet-dask[slurm]'."
        ) from error
    if not shutil.which("sbatch"):
        raise OptionError(
            "--cluster slurm needs sbatch, which is not here. Go to a machine that submits jobs."
        )
    return SLURMCluster


def _require_room(limit: int) -> None:
    """Refuse a plan for which workers have too little memory."""
    import dask

    said: dict[str, Any] = dask.config.get("jobqueue.slurm", {})
    if not said.get("memory"):
        return  # the class will say that it has to be said
    each = int(dask.utils.parse_bytes(said["memory"])) // int(said.get("processes") or 1)
    if each < limit:
        raise OptionError(
            f"Workers of your jobqueue.yaml have {format_bytes(each)} each, and the plan grants {format_bytes(limit)}. "
            f"Use --memory {each >> 20}MiB, or give jobs more memory or fewer processes there."
        )


def _require_taken(script: str) -> None:
    """Refuse jobs that Slurm does."""
    asked = subprocess.run(
        [str(shutil.which("sbatch")), "--test-only"],
        input=script,
        capture_output=True,
        text=True,
        check=False,
    )
    if asked.returncode:
        reason = " ".join(asked.stderr.split()).rstrip(".") or f"sbatch ends with {asked.returncode}"
        raise ClusterError(
            f"Slurm refuses jobs as your jobqueue.yaml describes them: {reason}. Change it, then --resume."
        )
