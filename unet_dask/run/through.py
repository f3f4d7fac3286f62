"""A planned run and its workers, to the end: constants, arithmetic, the place of the result, then the work.

Whoever calls has looked at the place, planned, and knows who computes.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from unet_dask.dispatch import run_calls
from unet_dask.errors import DataError, SinkError
from unet_dask.io import remote
from unet_dask.io.sink import lock as locks
from unet_dask.io.sink import place as places
from unet_dask.io.sink.session import session
from unet_dask.io.source import statistics
from unet_dask.ledger import Ledger
from unet_dask.model.header import Normalisation
from unet_dask.part import WHOLE
from unet_dask.run.events import Listener, Stage
from unet_dask.run.execute import work
from unet_dask.run.manifest import open_sink
from unet_dask.run.outcome import Run
from unet_dask.run.planned import is_planned
from unet_dask.run.prepare import checked_arithmetic
from unet_dask.workers.preflight import require_precision

if TYPE_CHECKING:
    from unet_dask.io.sink.manifest import Manifest
    from unet_dask.run.prepared import Prepared
    from unet_dask.workers.cluster import Cluster


@dataclass(frozen=True, slots=True)
class Begun:
    """What was found before a run.

    Attributes
    ----------
    url : of its sink
    manifest : of the run to go on with, None for a new one
    overwrite : whether what stands there is replaced
    began : when it was asked for, of `perf_counter`
    compared : whether a precision that nobody asked for is known to agree with float32
    """

    url: str
    manifest: Manifest | None
    overwrite: bool
    began: float
    compared: bool = False


def worked_through(prepared: Prepared, workers: Cluster, begun: Begun, on_event: Listener) -> Run:
    """Do a run that is planned for its workers; a driver that is one of several holds its part."""
    url, manifest, part = begun.url, begun.manifest, prepared.part
    precision, device = prepared.plan.precision, prepared.plan.device
    require_precision(workers, precision, device, begun=begun_in(precision, manifest))
    constants = constants_of(prepared, workers, manifest, on_event)
    prepared, notes = checked_arithmetic(prepared, workers, manifest, constants, compared=begun.compared)
    notes = (*prepared.plan.notes, *notes)
    with ExitStack() as opened:
        if not part:
            opened.enter_context(locks.locked(url))
        if not begun.overwrite:
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
        time.perf_counter() - begun.began,
        done.peak_bytes,
        notes,
        part,
        done.remaining,
        done.complete,
        done.table,
    )


def begun_in(precision: str, manifest: Manifest | None) -> bool:
    """Return whether a run to resume was begun in a precision, so that it cannot go on in another."""
    return manifest is not None and manifest.precision == precision


def _require_unchanged(sink: str, manifest: Manifest | None) -> None:
    """Raise if another run used the sink's place between the first look and the lock."""
    if places.read_manifest(sink) != manifest:
        raise SinkError(
            f"{remote.redact_url(sink)} was created or replaced by another run just now, and is left as it is. Look at "
            "it, then --resume or --overwrite it, or name another place with -o."
        )


def constants_of(
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
