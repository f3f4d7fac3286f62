"""The verbs `plan_store` and `segment_store`, step by step: source, plan, workers, sink, waves, pyramid.

Glue and nothing else. What can be wrong with the input is found before a worker starts, and nothing stands at
the sink's place before the plan is made.
"""

from __future__ import annotations

import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from unet_dask.config import SegmentConfig, configured
from unet_dask.engine.augment import symmetries
from unet_dask.engine.device import available_cores, multiplies
from unet_dask.io import remote
from unet_dask.io.sink import claim as claims
from unet_dask.io.sink import lock as locks
from unet_dask.io.sink import place as places
from unet_dask.model.file import model_file, verify_model
from unet_dask.part import Part, parse_part
from unet_dask.run.entry import check_place
from unet_dask.run.prepare import machine_of, open_inputs, prepare, this_machine
from unet_dask.run.prepared import Prepared
from unet_dask.run.staff import open_workers, require_here
from unet_dask.run.through import Begun, worked_through
from unet_dask.workers import cluster as clusters
from unet_dask.workers import running
from unet_dask.workers.preflight import check_workers

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

    from distributed import Client

    from unet_dask.io.sink.manifest import Manifest
    from unet_dask.model.file import Model
    from unet_dask.planning.plan import Plan
    from unet_dask.run.events import Listener
    from unet_dask.run.outcome import Run


def plan_store(
    source: str | os.PathLike[str],
    model: Model | str | os.PathLike[str],
    *,
    config: SegmentConfig | None = None,
    **settings: Any,  # fields of SegmentConfig
) -> Plan:
    """Plan a run without running anything.

    Parameters
    ----------
    source : path or URL of a Zarr array or group
    model : loaded model, path of a model file, or name of a model
    config : settings
    **settings : fields of :class:`unet_dask.config.SegmentConfig` that go before it, such as
        ``workers=4, memory="8GiB"``

    Returns
    -------
    the plan; ``dict(plan.describe())`` is for people, ``plan.to_json()`` for programs
    """
    chosen = configured(config, settings)
    with model_file(model) as file:
        prepared = prepare(open_inputs(source, file, chosen), this_machine(chosen), None)
    if not chosen.elsewhere:
        require_here(prepared.plan, manifest=None)
    return prepared.plan


def estimated_seconds(
    plan: Plan, model: Model | str | os.PathLike[str], config: SegmentConfig | None = None
) -> float:
    """Return the time a plan would take on this machine's own workers, from one tile run here and now."""
    config = config or SegmentConfig()
    workers = config.workers or clusters.default_workers(plan.device)
    rate = worker_rate(plan, model, config, threads=available_cores())
    # Workers share the cores that this tile had for itself; more of them than there are regions cannot help.
    return plan.flop / rate / (min(workers, max(len(plan.grid), 1)) if plan.device == "cuda" else 1)


def worker_rate(
    plan: Plan, model: Model | str | os.PathLike[str], config: SegmentConfig, *, threads: int
) -> float:
    """Return the operations of a plan that a worker does in a second, from one tile run here and now.

    Parameters
    ----------
    plan, model, config : of the run
    threads : of the worker; of those only the cores count that this machine has
    """
    from unet_dask.engine.speed import flop_per_second

    with model_file(model) as file:
        key = Prepared(plan.source, file, config, plan).key()
        if not multiplies(
            plan.precision, plan.device
        ):  # the cluster that is named may, and is not slower than this
            key = key.in_float32()
        rate = flop_per_second(key, plan.header.network, threads=min(threads, available_cores()))
    return rate / len(symmetries(config.tta, plan.header.network.dims))


def segment_store(
    source: str | os.PathLike[str],
    sink: str | os.PathLike[str],
    model: Model | str | os.PathLike[str],
    *,
    client: Client | None = None,
    resume: bool = False,
    overwrite: bool = False,
    config: SegmentConfig | None = None,
    on_event: Listener | None = None,
    **settings: Any,  # fields of SegmentConfig
) -> Run:
    """Segment a Zarr volume into a Zarr group, within its memory, resumably.

    Parameters
    ----------
    source : path or URL of a Zarr array or group
    sink : path or URL of the group to write
    model : loaded model, path of a model file, or name of a model
    client : of a running cluster; None starts local workers
    resume : go on with a run that was interrupted; one that was not begun is begun
    overwrite : replace an earlier result, and never anything else
    config : settings
    on_event : called with every event of the run; None shows progress in a notebook
    **settings : fields of :class:`unet_dask.config.SegmentConfig` that go before `config`, such as
        ``workers=4, memory="8GiB"``

    Returns
    -------
    what was done; that it returns means that every region is written, checksummed and in the ledger

    Raises
    ------
    UnetDaskError
        One of the errors of :mod:`unet_dask.errors`, with one line that says what, why and what to do.
    """
    began = time.perf_counter()
    on_event = on_event or _notebook_listener()
    url = remote.location(sink, "sink")
    chosen = configured(config, settings)
    if client is not None:
        running.require_usable(client)
    part = None if chosen.part is None else parse_part(chosen.part)
    with places.refusals_told(url):
        manifest = check_place(
            remote.location(source, "source"), url, part, resume=resume, overwrite=overwrite
        )
    with places.refusals_told(url), model_file(model) as file:
        elsewhere = client is not None or chosen.elsewhere
        # What a running cluster has is asked once it answers; until then the plan is for what was wished, so that
        # what no machine could do is refused first.
        wish = chosen.device if elsewhere and chosen.device != "auto" else None
        inputs, machine = open_inputs(source, file, chosen), this_machine(chosen, wish)
        prepared = prepare(inputs, machine, manifest)
        if not elsewhere:
            require_here(prepared.plan, manifest)
        verify_model(file)
        with ExitStack() as opened:
            if part:  # what the first driver chose is known only now
                shared = opened.enter_context(_among_parts(url, part))
                if shared != manifest:
                    manifest, prepared = shared, prepare(inputs, machine, shared)
            workers = opened.enter_context(open_workers(prepared.config, machine, client, on_event))
            check_workers(workers, file, url)
            if not workers.local:
                prepared = prepare(inputs, machine_of(workers, prepared.config), manifest)
            begun = Begun(url, manifest, overwrite, began)
            return worked_through(prepared, workers, begun, on_event)


@contextmanager
def _among_parts(url: str, part: Part) -> Iterator[Manifest | None]:
    """Hold a part, and yield the manifest of the sink that all parts share, None to the one that creates it."""
    with locks.locked(url, part), claims.joined(url) as manifest:
        yield manifest


def _notebook_listener() -> Listener:
    """Return a listener that shows progress in a notebook, and one that is silent anywhere else."""
    from unet_dask.run.progress import in_notebook, listener

    return listener() if in_notebook() else lambda event: None
