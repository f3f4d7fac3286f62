"""Who computes: workers of this machine, or of a cluster that runs already; for one run, or for several."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

from unet_dask.engine.device import available_cores, cannot_multiply, multiplies
from unet_dask.planning.grant import require
from unet_dask.run.events import Listener, Remark
from unet_dask.run.through import begun_in
from unet_dask.workers import cluster as clusters
from unet_dask.workers import running

if TYPE_CHECKING:
    from distributed import Client

    from unet_dask.io.sink.manifest import Manifest
    from unet_dask.run.prepare import Machine
    from unet_dask.run.prepared import Prepared
    from unet_dask.workers.cluster import Cluster


@dataclass(frozen=True, slots=True)
class Staff:
    """Who does several runs: workers that were checked, and know the model.

    Attributes
    ----------
    workers : of all runs
    machine : for which each is planned
    """

    workers: Cluster
    machine: Machine


def open_workers(
    prepared: Prepared, client: Client | None, on_event: Listener
) -> AbstractContextManager[Cluster]:
    """Return the cluster that the configuration or the caller names, else local workers."""
    config, plan = prepared.config, prepared.plan

    def say(text: str) -> None:
        on_event(Remark(text))

    if client is not None:
        return nullcontext(running.connected(client, threads=config.threads, say=say))
    if config.scheduler or config.scheduler_file:
        return running.running_cluster(
            address=config.scheduler, scheduler_file=config.scheduler_file, threads=config.threads, say=say
        )
    workers = config.workers or clusters.default_workers(plan.device)
    require(workers=workers, limit=plan.limit, memory=clusters.machine_memory())
    threads = config.threads or max(available_cores() // workers, 1)
    return clusters.local_cluster(workers=workers, threads=threads, limit=plan.limit, device=plan.device)


def require_here(prepared: Prepared, manifest: Manifest | None) -> None:
    """Refuse a precision that this machine's own workers would emulate, before any of them is started.

    Raises
    ------
    OptionError
        Saying what to use instead.
    """
    precision, device = prepared.plan.precision, prepared.plan.device
    if not multiplies(precision, device):
        raise cannot_multiply(precision, device, begun=begun_in(precision, manifest))
