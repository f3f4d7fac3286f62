"""The verbs `plan_store` and `segment_store`, step by step: source, plan, workers, sink, waves, pyramid.

Glue and nothing else. What can be wrong with the input is found before a worker starts, and nothing stands at
the sink's place before the plan is made.
"""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

from unet_dask.config import SegmentConfig, configured
from unet_dask.dispatch import run_calls
from unet_dask.engine.augment import symmetries
from unet_dask.engine.device import available_cores, cannot_multiply, multiplies
from unet_dask.errors import DataError, OptionError, SinkError
from unet_dask.io import remote
from unet_dask.io.sink import claim as claims
from unet_dask.io.sink import lock as locks
from unet_dask.io.sink import place as places
from unet_dask.io.sink.session import session
from unet_dask.io.source import statistics
from unet_dask.ledger import Ledger
from unet_dask.model.file import model_file, verify_model
from unet_dask.model.header import Normalisation
from unet_dask.part import WHOLE, Part, parse_part
from unet_dask.planning.grant import require
from unet_dask.run.events import Listener, Remark, Stage
from unet_dask.run.execute import work
from unet_dask.run.manifest import open_sink
from unet_dask.run.outcome import Run
from unet_dask.run.planned import is_planned
from unet_dask.run.prepare import checked_arithmetic, machine_of, open_inputs, prepare, this_machine
from unet_dask.run.prepared import Prepared
from unet_dask.workers import cluster as clusters
from unet_dask.workers import running
from unet_dask.workers.preflight import check_workers, require_precision

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

    from distributed import Client

    from unet_dask.io.sink.manifest import Manifest
    from unet_dask.model.file import Model
    from unet_dask.planning.plan import Plan
    from unet_dask.workers.cluster import Cluster


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
    if not (chosen.scheduler or chosen.scheduler_file):
        require_here(prepared, manifest=None)
    return prepared.plan


def estimated_seconds(
    plan: Plan, model: Model | str | os.PathLike[str], config: SegmentConfig | None = None
) -> float:
    """Return the time a plan would take on this machine's own workers, from one tile run here and now."""
    from unet_dask.engine.speed import flop_per_second

    config = config or SegmentConfig()
    workers = config.workers or clusters.default_workers(plan.device)
    with model_file(model) as file:
        key = Prepared(plan.source, file, config, plan).key()
        if not multiplies(
            plan.precision, plan.device
        ):  # the cluster that is named may, and is not slower than this
            key = key.in_float32()
        rate = flop_per_second(key, plan.header.network, threads=available_cores())
    # Workers share the cores that this tile had for itself; more of them than there are regions cannot help.
    passes = len(symmetries(config.tta, plan.header.network.dims))
    return passes * plan.flop / rate / (min(workers, max(len(plan.grid), 1)) if plan.device == "cuda" else 1)


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
        manifest = _check_place(
            remote.location(source, "source"), url, part, resume=resume, overwrite=overwrite
        )
    with places.refusals_told(url), model_file(model) as file:
        elsewhere = client is not None or chosen.scheduler or chosen.scheduler_file
        # What a running cluster has is asked once it answers; until then the plan is for what was wished, so that
        # what no machine could do is refused first.
        wish = chosen.device if elsewhere and chosen.device != "auto" else None
        inputs, machine = open_inputs(source, file, chosen), this_machine(chosen, wish)
        prepared = prepare(inputs, machine, manifest)
        if not elsewhere:
            require_here(prepared, manifest)
        verify_model(file)
        with ExitStack() as opened:
            if part:  # what the first driver chose is known only now
                shared = opened.enter_context(_among_parts(url, part))
                if shared != manifest:
                    manifest, prepared = shared, prepare(inputs, machine, shared)
            workers = opened.enter_context(_open_workers(prepared, client, on_event))
            check_workers(workers, file, url)
            if not workers.local:
                prepared = prepare(inputs, machine_of(workers, prepared.config), manifest)
            begun = _begun_in(prepared.plan.precision, manifest)
            require_precision(workers, prepared.plan.precision, prepared.plan.device, begun=begun)
            constants = _constants(prepared, workers, manifest, on_event)
            prepared, notes = checked_arithmetic(prepared, workers, manifest, constants)
            notes = (*prepared.plan.notes, *notes)
            if not part:
                opened.enter_context(locks.locked(url))
            if not overwrite:
                _require_unchanged(url, manifest)
            place = open_sink(prepared, url, manifest, constants)
            own = opened.enter_context(session(url))
            with Ledger(place.run_folder, partial(is_planned, prepared.plan)) as ledger:
                done = work(prepared, workers, place, ledger, constants, on_event, notes, own)
    return Run(
        url,
        prepared.plan,
        len((part or WHOLE).stretch(len(prepared.plan.grid))),
        done.computed,
        time.perf_counter() - began,
        done.peak_bytes,
        notes,
        part,
        done.remaining,
        done.complete,
    )


def require_here(prepared: Prepared, manifest: Manifest | None) -> None:
    """Refuse a precision that this machine's own workers would emulate, before any of them is started.

    Raises
    ------
    OptionError
        Saying what to use instead.
    """
    precision, device = prepared.plan.precision, prepared.plan.device
    if not multiplies(precision, device):
        raise cannot_multiply(precision, device, begun=_begun_in(precision, manifest))


def _begun_in(precision: str, manifest: Manifest | None) -> bool:
    """Return whether a run to resume was begun in a precision, so that it cannot go on in another."""
    return manifest is not None and manifest.precision == precision


def _check_place(
    source: str, sink: str, part: Part | None, *, resume: bool, overwrite: bool
) -> Manifest | None:
    """Return the manifest of a run to resume, None for a new one; refuse a sink that would do harm."""
    if part is not None and overwrite:
        raise OptionError(
            f"Part {part} cannot overwrite {remote.redact_url(sink)}: its siblings may be at work there. Remove it "
            "before the parts are started, or name another place with -o."
        )
    if resume and overwrite:
        raise OptionError("A run is either resumed or started over. Use --resume or --overwrite, not both.")
    if remote.contains(source, sink) or remote.contains(sink, source):
        raise SinkError(
            f"The sink {remote.redact_url(sink)} is the source, lies in it or holds it; writing there could destroy "
            "the data. Name another place with -o."
        )
    manifest = None
    if places.exists(sink):
        places.require_ours(sink)
        locks.require_free(sink, part or WHOLE)
        if resume or part is not None:  # a sibling may have begun it
            manifest = places.read_manifest(sink)
        elif overwrite:
            places.require_replaceable(sink)
        else:
            raise SinkError(
                f"{remote.redact_url(sink)} exists already. Go on with it by --resume, replace it by --overwrite, or "
                "name another place with -o."
            )
    reason = places.why_unwritable(sink)
    if reason:
        raise SinkError(
            f"The sink {remote.redact_url(sink)} cannot be written: {reason}. Name a place that can be written with -o."
        )
    return manifest


@contextmanager
def _among_parts(url: str, part: Part) -> Iterator[Manifest | None]:
    """Hold a part, and yield the manifest of the sink that all parts share, None to the one that creates it."""
    with locks.locked(url, part), claims.joined(url) as manifest:
        yield manifest


def _require_unchanged(sink: str, manifest: Manifest | None) -> None:
    """Raise if another run used the sink's place between the first look and the lock."""
    if places.read_manifest(sink) != manifest:
        raise SinkError(
            f"{remote.redact_url(sink)} was created or replaced by another run just now, and is left as it is. Look at "
            "it, then --resume or --overwrite it, or name another place with -o."
        )


def _open_workers(
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


def _constants(
    prepared: Prepared, workers: Cluster, manifest: Manifest | None, on_event: Listener
) -> Normalisation:
    """Return the constants of the normalisation: of the model, of the stored run, or of one pass now."""
    model = prepared.model.header.normalisation
    if model.kind == "constant" or not len(prepared.plan.grid):
        return model
    if manifest is not None:
        return Normalisation("constant", *manifest.normalisation)
    on_event(Stage("statistics of the whole volume"))
    source = prepared.source
    channel = source.axes.index("c")
    calls = ((index, (source.spec, window, channel)) for index, window in statistics.windows(source))
    parts: dict[tuple[int, ...], statistics.Moments] = {}
    for index, part in run_calls(workers.client, statistics.moments, calls, in_flight=4 * workers.workers):
        if isinstance(part, str):
            raise DataError(f"The statistics of the volume cannot be taken: {part}")
        parts[index] = part
    again = ((index, (source.spec, window, parts[index])) for index, window in statistics.windows(source))
    for _, same in run_calls(workers.client, statistics.still_there, again, in_flight=4 * workers.workers):
        if same is not True:
            raise DataError(
                f"The source {remote.redact_url(source.spec.url)} was changed while the statistics of the volume were "
                "taken. Let nobody write or move it, and start again."
            )
    mean, std = statistics.merge(parts[index] for index in sorted(parts))
    return Normalisation("constant", mean, std)


def _notebook_listener() -> Listener:
    """Return a listener that shows progress in a notebook, and one that is silent anywhere else."""
    from unet_dask.run.progress import in_notebook, listener

    return listener() if in_notebook() else lambda event: None
