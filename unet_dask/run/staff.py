"""Who computes: workers of this machine, or of a cluster that runs already; for one run, or for several."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

from unet_dask.engine.device import available_cores, cannot_multiply, multiplies
from unet_dask.planning.grant import require
from unet_dask.run.events import Remark
from unet_dask.run.through import begun_in
from unet_dask.workers import cluster as clusters
from unet_dask.workers import jobqueue, running

if TYPE_CHECKING:
    from collections.abc import Callable

    from distributed import Client

    from unet_dask.config import SegmentConfig
    from unet_dask.io.sink.manifest import Manifest
    from unet_dask.planning.plan import Plan
    from unet_dask.run.prepare import Machine
    from unet_dask.workers.cluster import Cluster


@dataclass(frozen=True, slots=True)
class Staff:
    """Who does several runs: workers that were checked, and know the model.

    Attributes
    ----------
    workers : of all runs
    machine : for which each is planned; its precision agrees with float32, where nobody said another
    """

    workers: Cluster
    machine: Machine


def open_workers(
    config: SegmentConfig, machine: Machine, client: Client | None, on_event: Callable[[Remark], None]
) -> AbstractContextManager[Cluster]:
    """Return the cluster that the configuration or the caller names, else workers of this machine.

    Parameters
    ----------
    config : of the run, or of the one that goes on
    machine : what this one has
    client : of a running cluster; None for what the configuration says
    on_event : is told what is waited for
    """

    def say(text: str) -> None:
        on_event(Remark(text))

    if client is not None:
        return nullcontext(running.connected(client, threads=config.threads, say=say))
    if config.scheduler or config.scheduler_file:
        return running.running_cluster(
            address=config.scheduler, scheduler_file=config.scheduler_file, threads=config.threads, say=say
        )
    limit = config.memory or machine.limit
    if config.cluster:
        return jobqueue.slurm_cluster(
            workers=config.workers or 1, threads=config.threads, limit=limit, say=say
        )
    workers = config.workers or clusters.default_workers(machine.device)
    require(workers=workers, limit=limit, memory=clusters.machine_memory())
    threads = config.threads or max(available_cores() // workers, 1)
    return clusters.local_cluster(workers=workers, threads=threads, limit=limit, device=machine.device)


def require_here(plan: Plan, manifest: Manifest | None) -> None:
    """Refuse a precision that this machine's own workers would emulate, before any of them is started.

    Raises
    ------
    OptionError
        Saying what to use instead.
    """
    precision, device = plan.precision, plan.device
    if not multiplies(precision, device):
        raise cannot_multiply(precision, device, begun=begun_in(precision, manifest))
