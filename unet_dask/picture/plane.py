"""The part of a plane that a picture shows, and how it is read in bounded memory.

Of a pyramid the coarsest level that still fills the picture is read, a band of rows at a time. Pictures are those
of the preview and the tiles of the viewer alike.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from unet_dask.axes import by_axis, is_spatial
from unet_dask.errors import OptionError, SinkError, UnetDaskError
from unet_dask.io.remote import one_line
from unet_dask.io.source.received import source_of
from unet_dask.io.source.volume import levels
from unet_dask.levels import product_levels
from unet_dask.products.coarse import averaged
from unet_dask.products.sentinel import is_sentinel
from unet_dask.texts import parse_roi

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from unet_dask.io.bounded import OpenedArray
    from unet_dask.io.sink.manifest import ArrayRecord, Manifest
    from unet_dask.io.source.received import Consent
    from unet_dask.io.source.volume import Source

    Plane = NDArray[np.generic]

Scalar = TypeVar("Scalar", bound=np.generic)

#: Longest side of a panel in pixels.
SIDE = 1024
#: Voxels of the source that are read for one picture at most; beyond, it has to be a part of the volume.
_MOST_READ = 1 << 29
#: Voxels of the classes that are read to say how much of the result each covers, half a second of work. Of more it is
#: not said: on a coarse level, or on one plane, other shares are found.
_MOST_COUNTED = 1 << 27


@dataclass(frozen=True, slots=True)
class View:
    """The part of a sink that is drawn, in voxels of its finest level.

    Attributes
    ----------
    window : (start, stop) along y and x
    planes : position along every other axis but c
    corner : of the sink in the source, per axis
    step : voxels per pixel, a power of two as in pyramids
    """

    window: tuple[tuple[int, int], tuple[int, int]]
    planes: Mapping[str, int]
    corner: Mapping[str, int]
    step: int

    @property
    def shape(self) -> tuple[int, int]:
        """Pixels of the picture, (y, x)."""
        (top, bottom), (left, right) = self.window
        return -(-(bottom - top) // self.step), -(-(right - left) // self.step)

    def fit(self, plane: NDArray[Scalar]) -> NDArray[Scalar]:
        """Return a plane of exactly the picture's pixels: ragged ends of levels differ by a pixel."""
        plane = plane[..., : self.shape[0], : self.shape[1]]
        missing = [(0, wanted - got) for wanted, got in zip(self.shape, plane.shape[-2:], strict=True)]
        return np.pad(plane, [(0, 0)] * (plane.ndim - 2) + missing, mode="edge")

    @property
    def in_source(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """The window in voxels of the source."""
        (top, bottom), (left, right) = self.window
        down, along = self.corner["y"], self.corner["x"]
        return (top + down, bottom + down), (left + along, right + along)


def view_of(manifest: Manifest, *, z: int | None, t: int | None, roi: str | None) -> View:
    """Return the part to draw, from what was asked, in voxels of the source."""
    axes = manifest.plan.axes
    extent = manifest.plan.extent
    corner = {axis: start for axis, (start, _) in extent.items()}
    planes = {}
    for axis, asked in (("t", t), ("z", z)):
        if axis not in axes:
            if asked is not None:
                raise OptionError(f"The result has no axis {axis}, only {axes}. Leave out --{axis}.")
            continue
        start, stop = extent[axis]
        usual = (start + stop) // 2 if is_spatial(axis) else start
        position = usual if asked is None else asked
        if not start <= position < max(stop, start + 1):
            raise OptionError(f"--{axis} {position} is outside of the result. Use {start} to {stop - 1}.")
        planes[axis] = position - start
    shape = tuple(manifest.plan.shape[axes.index(axis)] for axis in "yx")
    whole = (extent["y"], extent["x"])
    part = parse_roi(roi, axes="yx", shape=shape) if roi else whole
    clipped = [
        (max(a, low) - low, min(b, high) - low) for (a, b), (low, high) in zip(part, whole, strict=True)
    ]
    if any(a >= b for a, b in clipped):
        raise OptionError(
            "There is nothing to draw: the result covers "
            f"{', '.join(f'{low}:{high}' for low, high in whole)} (y,x) of the source."
        )
    window = clipped[0], clipped[1]
    return View(window, planes, corner, fitting_step(window, SIDE))


def fitting_step(window: tuple[tuple[int, int], tuple[int, int]], side: int) -> int:
    """Return the voxels per pixel, a power of two, at which the longer side of a window fits into `side` pixels.

    Examples
    --------
    >>> fitting_step(((0, 100), (0, 1025)), 1024)
    2
    """
    longest = max(stop - start for start, stop in window)
    return 1 << max(-(-longest // side) - 1, 0).bit_length()


def product_plane(url: str, manifest: Manifest, entry: ArrayRecord, view: View) -> Plane:
    """Return the plane of a product, (y, x) or (c, y, x), of unwritten voxels the sentinel."""
    stored, axes = product_levels(url, manifest, entry), entry.axes
    finest = stored[0]
    chosen = stored[fitting_level([each.shape for each in stored], axes, view.step)]
    plane = read_level(chosen, axes, view, factors=factors_of(finest.shape, chosen.shape))
    if chosen is not finest and unwritten(plane).any():
        # Coarser levels are made last; in a run that is not complete only the finest tells what is there.
        plane = read_level(finest, axes, view, factors=(1,) * len(axes))
    return plane


def class_counts(array: OpenedArray) -> NDArray[np.int64] | None:
    """Return the voxels of each value in a whole level of classes, read chunk by chunk; None of more than are read.

    Raises
    ------
    SinkError
        If a part cannot be read.
    """
    if array.size > _MOST_COUNTED or array.dtype != np.uint8:
        return None
    counts = np.zeros(256, np.int64)
    steps = array.shards or array.chunks
    corners = [range(0, size, step) for size, step in zip(array.shape, steps, strict=True)]
    for corner in itertools.product(*corners):
        block = _read(array, tuple(slice(at, at + step) for at, step in zip(corner, steps, strict=True)))
        for values in np.array_split(
            block.ravel(), max(block.size >> 20, 1)
        ):  # counting takes eight bytes a value
            counts += np.bincount(values, minlength=256)
    return counts


def factors_of(finest: tuple[int, ...], shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the power of two by which each axis of a level is coarser."""
    return tuple(1 << round(math.log2(a / b)) if a and b else 1 for a, b in zip(finest, shape, strict=True))


def fitting_level(shapes: Sequence[tuple[int, ...]], axes: str, step: int) -> int:
    """Return the number of the coarsest level that has a voxel for every pixel of a picture."""
    fits = [
        number
        for number, shape in enumerate(shapes)
        if all(by_axis(axes, factors_of(shapes[0], shape))[axis] <= step for axis in "yx")
    ]
    return fits[-1] if fits else 0


def read_level(array: OpenedArray, axes: str, view: View, *, factors: tuple[int, ...]) -> Plane:
    """Read every n-th pixel of a level's plane, a band of rows at a time, to exactly the picture's pixels."""
    size = by_axis(axes, array.shape)
    factor = by_axis(axes, factors)
    (top, bottom), (left, right) = (
        (start // factor[axis], max(-(-stop // factor[axis]), start // factor[axis] + 1))
        for axis, (start, stop) in zip("yx", view.window, strict=True)
    )
    down, along = (max(view.step // factor[axis], 1) for axis in "yx")

    def read(first: int, last: int) -> Plane:
        at: dict[str, int | slice] = {
            **{a: min(p // factor[a], size[a] - 1) for a, p in view.planes.items() if a in axes},
            "y": slice(first, min(last, size["y"])),
            "x": slice(left, min(right, size["x"])),
        }
        values = _read(array, tuple(at.get(axis, slice(None)) for axis in axes))
        high, wide = values.shape[-2:]  # less than a step at a ragged end
        return values[..., min(down // 2, high - 1) :: down, min(along // 2, wide - 1) :: along]

    rows = (array.shards or array.chunks)[axes.index("y")]
    band = max(rows // down, 1) * down
    if min(band, bottom - top) * (right - left) * size.get("c", 1) > _MOST_READ:
        raise SinkError(
            f"{array.path} is too large to draw from without coarser levels. Draw a part with --roi y0:y1,x0:x1."
        )
    return view.fit(_bands(read, top, bottom, band=band))


def _read(array: OpenedArray, selection: tuple[int | slice, ...]) -> Plane:
    try:
        return np.asarray(array[selection])
    except Exception as error:  # whatever codecs make of a damaged chunk
        raise SinkError(
            f"A part of {array.path} cannot be read ({one_line(error)}). See what is wrong with unet-dask verify."
        ) from error


def _bands(
    read: Callable[[int, int], NDArray[Scalar]], top: int, bottom: int, *, band: int
) -> NDArray[Scalar]:
    """Put together what was read band by band."""
    return np.concatenate(
        [read(first, min(first + band, bottom)) for first in range(top, bottom, band)], axis=-2
    )


def unwritten(plane: Plane) -> NDArray[np.bool_]:
    """Return where a plane holds the sentinel, (y, x)."""
    missing = is_sentinel(plane)
    return np.logical_or.reduce(missing, axis=0) if plane.ndim == 3 else missing


def holes_of(products: Mapping[str, Plane]) -> NDArray[np.bool_]:
    """Return where any product holds the sentinel."""
    first, *others = (unwritten(plane) for plane in products.values())
    for other in others:
        first = first | other
    return first


def source_plane(
    manifest: Manifest, view: View, consent: Consent
) -> tuple[NDArray[np.float32] | None, tuple[str, ...]]:
    """Return the source's plane, (y, x) or (c, y, x) of three channels, or None and why not."""
    source, notes = shown_source(manifest, consent)
    if source is None:
        return None, notes
    try:
        pyramid = source_levels(source)
        coarse = pyramid[fitting_level([each.shape for each in pyramid], source.axes, view.step)]
        factors = factors_of(source.shape, coarse.shape)
        to_read = math.prod((stop - start) // factors[-2 + i] for i, (start, stop) in enumerate(view.window))
        if to_read > _MOST_READ:
            return None, ("the source has no coarser level and is too large to draw; use --roi y0:y1,x0:x1",)
        plane = read_source(coarse, view, factors)
    except UnetDaskError as error:
        return None, (f"the source is not shown: {error}",)
    return (plane if plane.shape[0] == 3 else plane[0]), ()


def shown_source(manifest: Manifest, consent: Consent) -> tuple[Source | None, tuple[str, ...]]:
    """Return the source that a result was made of, or None and why it cannot be shown."""
    try:
        source = source_of(manifest.fingerprint, consent)
    except UnetDaskError as error:
        return None, (f"the source is not shown: {error}",)
    if source.shape != manifest.plan.shape or source.axes != manifest.plan.axes:
        return None, ("the source has another shape now, so it is not shown",)
    return source, ()


def source_levels(source: Source) -> list[Source]:
    """Return a source and the coarser levels of its own pyramid that halve it, the finest first."""

    def halves(size: int, coarse: int, factor: int) -> bool:
        return abs(coarse * factor - size) < 2 * factor  # rounded up or down, once or at every level

    return [
        level
        for level in levels(source)
        if all(map(halves, source.shape, level.shape, factors_of(source.shape, level.shape)))
    ]


def read_source(
    source: Source, view: View, factors: tuple[int, ...], channels: tuple[int, int] | None = None
) -> NDArray[np.float32]:
    """Read a plane of a level of the source, averaged to the picture's pixels, (c, y, x) float32.

    Parameters
    ----------
    source : a level of the source's pyramid
    view : what to read
    factors : by which each axis of the level is coarser
    channels : the first, and the one after the last; None for all
    """
    axes = source.axes
    factor = by_axis(axes, factors)
    size = by_axis(axes, source.shape)
    first, last = channels or (0, size["c"])
    (top, bottom), (left, right) = (
        (
            min(start // factor[axis], size[axis] - 1),
            min(max(-(-stop // factor[axis]), start // factor[axis] + 1), size[axis]),
        )
        for axis, (start, stop) in zip("yx", view.in_source, strict=True)
    )
    down, along = (max(view.step // factor[axis], 1) for axis in "yx")

    def read(low: int, high: int) -> NDArray[np.float32]:
        window = {"y": slice(low, high), "x": slice(left, right), "c": slice(first, last)}
        for axis, position in view.planes.items():
            at = min((position + view.corner[axis]) // factor[axis], size[axis] - 1)
            window[axis] = slice(at, at + 1)
        values = source.read(tuple(window[axis] for axis in axes))
        plane = values.reshape(last - first, *values.shape[-2:])
        return np.asarray(averaged(plane.astype(np.float32), (1, down, along)), np.float32)

    rows = source.chunks[axes.index("y")]
    return view.fit(_bands(read, top, bottom, band=max(rows // down, 1) * down))
