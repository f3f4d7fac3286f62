"""One of many images: an ordinary run, with its own place, ledger and last look, by a staff that is there already."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from unet_dask.errors import SinkError
from unet_dask.io.remote import redact_url
from unet_dask.io.sink import lock as locks
from unet_dask.io.sink import place as places
from unet_dask.many.outcome import BEFORE, DONE, Row
from unet_dask.measuring.count import object_count
from unet_dask.run.entry import check_place
from unet_dask.run.prepare import open_inputs, prepare
from unet_dask.run.staff import Staff
from unet_dask.run.through import Begun, worked_through
from unet_dask.workers.cluster import Cluster
from unet_dask.workers.here import Here

if TYPE_CHECKING:
    from unet_dask.config import SegmentConfig
    from unet_dask.many.listing import Image
    from unet_dask.model.file import ModelFile
    from unet_dask.run.events import Event
    from unet_dask.run.outcome import Run
    from unet_dask.run.prepare import Machine


#: Seconds that an image is waited for which somebody else has in hand, and between two looks.
_PATIENCE, _PAUSE = 30.0, 0.2


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be done with an image.

    Attributes
    ----------
    image : which
    sink : path or URL of its result
    model : its file
    config : of the run, without a part
    overwrite : whether an earlier result is replaced; else it is gone on with
    """

    image: Image
    sink: str
    model: ModelFile
    config: SegmentConfig
    overwrite: bool = False

    @property
    def own(self) -> SegmentConfig:
        """The configuration of this image."""
        return self.config if self.image.key is None else replace(self.config, key=self.image.key)

    def row(self, status: str, *, reason: str = "") -> Row:
        """Return what is known of the image whatever became of it."""
        image = self.image
        return Row(
            image.name,
            redact_url(image.source),
            image.key or "",
            redact_url(self.sink),
            status,
            reason=reason,
        )


def segment_here(order: Order, machine: Machine, threads: int) -> Row:
    """Segment an image of one region in this process, on a worker: nothing of it is handed to another.

    Parameters
    ----------
    order : what
    machine : for which it is planned
    threads : of the network
    """
    return segment_one(order, Staff(Cluster(Here(), 1, threads, local=True), machine))


def segment_one(order: Order, staff: Staff) -> Row:
    """Segment an image, and return its row.

    Raises
    ------
    UnetDaskError
        As :func:`unet_dask.segment_store`.
    """
    began = time.perf_counter()
    run = _run(order, staff)
    return replace(
        order.row(DONE if run.computed else BEFORE),
        objects=object_count(order.sink),
        seconds=time.perf_counter() - began,
        peak_bytes=run.peak_bytes,
        notes=run.notes,
    )


def _run(order: Order, staff: Staff) -> Run:
    began, source, sink = time.perf_counter(), order.image.source, order.sink
    with places.refusals_told(sink):
        _await(sink)
        manifest = check_place(source, sink, None, resume=not order.overwrite, overwrite=order.overwrite)
        prepared = prepare(open_inputs(source, order.model, order.own), staff.machine, manifest)
        begun = Begun(sink, manifest, order.overwrite, began, compared=True)
        return worked_through(prepared, staff.workers, begun, _unheard)


def _await(sink: str) -> None:
    """Wait a while for whoever has an image in hand: a worker finishes what it was given, even without its driver."""
    until = time.monotonic() + _PATIENCE
    while time.monotonic() < until:
        try:
            locks.require_free(sink)
        except SinkError:
            time.sleep(_PAUSE)
        else:
            return


def _unheard(event: Event) -> None:
    """Tell nobody: of many images, each is a row."""
