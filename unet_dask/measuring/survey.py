"""What is measured of a result, and how a block of it is looked at."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from unet_dask.io.remote import printable
from unet_dask.io.source.received import mask_at_hand
from unet_dask.io.source.window import read_window
from unet_dask.measuring.block import block_sums, pixel_rows
from unet_dask.measuring.columns import columns_of
from unet_dask.measuring.finished import Finished, open_finished, source_at_hand
from unet_dask.measuring.frame import Frame, frame_of
from unet_dask.measuring.sums import Layout
from unet_dask.measuring.tally import Seen, Tally
from unet_dask.products import product_of
from unet_dask.products.classes import Classes
from unet_dask.products.instances import Instances
from unet_dask.products.probabilities import Probabilities

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from unet_dask.io.source.mask import Mask
    from unet_dask.io.source.received import Consent
    from unet_dask.io.source.volume import Source
    from unet_dask.measuring.block import PixelRows
    from unet_dask.measuring.columns import Columns
    from unet_dask.measuring.sums import Rows
    from unet_dask.tiling.box import Box

#: Bytes that a row of pixels takes beside the sums of its object, where each pixel is one: 90 were measured.
_ROW_BYTES = 128


@dataclass(frozen=True)
class Survey:
    """What is measured of a result.

    Attributes
    ----------
    result : finished
    layout : what is added up
    frame : where its voxels lie
    source : with all channels; None if grey values are not measured
    mask : of the run, if it had one and that is at hand
    notes : what the user should know
    """

    result: Finished
    layout: Layout
    frame: Frame
    source: Source | None
    mask: Mask | None
    notes: tuple[str, ...]

    def labels(self, box: Box) -> NDArray[np.unsignedinteger]:
        """Return the label image of a block.

        Raises
        ------
        SinkError
            If it cannot be read there.
        """
        return self.result.read(Instances.name, box)

    def look(self, box: Box) -> Seen:
        """Look at a block."""
        return self.seen(box, self.labels(box))

    def seen(self, box: Box, labels: NDArray[np.unsignedinteger]) -> Seen:
        """Return what is seen in a block of the label image.

        Raises
        ------
        SinkError
            If the result cannot be read there.
        InputError
            If the source cannot.
        """
        rows = self.sums(pixel_rows(labels), box) if labels.any() else np.empty(0, self.layout.record)
        return Seen(rows, box.slices[: len(self.frame.planes)], self._extent(box))

    def sums(self, rows: PixelRows, box: Box) -> Rows:
        """Return the sums of the objects of a block, in which there is one."""
        classes = self.result.read(Classes.name, box) if self.layout.classes else None
        certain = self.result.read(Probabilities.name, box)[1:] if self.layout.certain else None
        return block_sums(
            rows, box.start, self.layout, classes=classes, certain=certain, channels=self._channels(box)
        )

    def _channels(self, box: Box) -> Iterator[tuple[int, NDArray[np.generic]]]:
        """Yield the channels of the source over a block, each with its number; those of one chunk are read at once."""
        if self.source is None:
            return
        place = self.source.axes.index("c")
        count, together = self.source.shape[place], self.source.chunks[place]
        for first in range(0, count, together):
            window = self.result.in_source(box, (first, min(first + together, count)))
            values = read_window(self.source.spec, window, run=f"measure {self.result.url}")
            plain = values.view(np.uint8) if values.dtype.kind == "b" else values
            yield from enumerate(np.ascontiguousarray(np.moveaxis(plain, place, 0)), first)

    def _extent(self, box: Box) -> NDArray[np.int64]:
        """Return the voxels of each plane of a block that were segmented."""
        planes = box.shape[: len(self.frame.planes)]
        if self.mask is None:
            return np.full(planes, prod(box.shape[len(planes) :]), np.int64)
        window = self.result.in_source(box, (0, 1))
        inside = self.mask.inside([(span.start, span.stop) for span in window])
        return np.asarray(np.count_nonzero(inside.reshape(*planes, -1), axis=-1), np.int64)

    def columns(self, rows: Rows) -> Columns:
        """Return the table of objects of which all is summed up."""
        named = self.source.channel_names if self.source is not None else ()
        names = named or [""] * self.layout.channels
        array = self.result.arrays.get(Probabilities.name)
        certain = None if array is None else product_of(Probabilities.name, array.dtype.name)
        scale = certain.scale if isinstance(certain, Probabilities) else 1
        return columns_of(
            rows, self.frame, self.result.manifest.classes, names, scale=scale, core=self.result.core
        )

    def tally(self) -> Tally:
        """Return what counts its objects."""
        return Tally(self.frame, tuple(map(printable, self.result.manifest.classes)), core=self.result.core)

    @property
    def voxel_bytes(self) -> int:
        """Bytes that looking at a voxel takes at most: if each is an object, with what is read of it."""
        inputs = [each.dtype.itemsize for each in self.result.arrays.values()] + [
            self.layout.certain * np.dtype(self.layout.certain_type).itemsize
        ]
        if self.source is not None:
            together = min(self.layout.channels, self.source.chunks[self.source.axes.index("c")])
            inputs.append(together * self.source.dtype.itemsize)
        return self.layout.record.itemsize + _ROW_BYTES + 2 * sum(inputs)

    @property
    def head(self) -> Columns:
        """The columns, without rows."""
        return self.columns(np.empty(0, self.layout.record))


def open_survey(url: str, consent: Consent, *, intensities: bool = True) -> Survey:
    """Open a result to be measured.

    Parameters
    ----------
    url : path or URL of the result
    consent : what may be opened beyond this machine
    intensities : whether to measure grey values of the source, if it is at hand

    Raises
    ------
    SinkError
        If there is no finished result with objects.
    InputError
        If the source has changed.
    """
    return surveyed(open_finished(url), consent, intensities=intensities)


def surveyed(result: Finished, consent: Consent, *, intensities: bool = True) -> Survey:
    """Return how an opened result is measured; the rest is as of :func:`open_survey`."""
    mask, unknown = mask_at_hand(result.manifest, consent)
    notes = [f"objects are counted per area of the whole image: {unknown}"] if unknown else []
    source, missing = source_at_hand(result, consent) if intensities else (None, "")
    notes += [missing] if missing else []
    return survey_of(result, source, mask, notes)


def survey_of(
    result: Finished, source: Source | None, mask: Mask | None, notes: Iterable[str] = ()
) -> Survey:
    """Return how a result is measured; see :class:`Survey`."""
    return Survey(result, _layout(result, source), frame_of(result, source), source, mask, tuple(notes))


def _layout(result: Finished, source: Source | None) -> Layout:
    """Return what can be added up of the objects of a result."""
    classes = len(result.manifest.classes) - 1
    certain = result.arrays.get(Probabilities.name)
    several = classes > 1 and not result.core and Classes.name in result.arrays
    kept = Layout(
        result.axes,
        classes=classes if several else 0,
        certain=0 if certain is None else classes,
        certain_type="float32" if certain is None else certain.dtype.name,
    )
    if source is None:
        return kept
    kind = "uint8" if source.dtype.kind == "b" else source.dtype.name
    channels = source.shape[source.axes.index("c")]
    return replace(kept, channels=channels, dtype=kind)
