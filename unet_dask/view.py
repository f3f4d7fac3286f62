"""The part of a result that a picture shows, and how its planes are read in bounded memory.

Of a pyramid the coarsest level that still fills the picture is read, a band of rows at a time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr

from unet_dask.config import parse_roi
from unet_dask.errors import OptionError, UnetDaskError
from unet_dask.io.sink.multiscale import coarser
from unet_dask.io.source.volume import levels, open_source

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from unet_dask.io.source.volume import Source

    Plane = NDArray[Any]

#: Longest side of a panel in pixels.
SIDE = 1024
#: Voxels of the source that are read for one picture at most; beyond, it has to be a part of the volume.
_MOST_READ = 1 << 29


@dataclass(frozen=True, slots=True)
class View:
    """The part of a sink that is drawn, in voxels of its finest level.

    Attributes
    ----------
    window : (start, stop) along y and x
    planes : position along every other axis but c
    corner : of the sink in the source, per axis
    """

    window: tuple[tuple[int, int], tuple[int, int]]
    planes: Mapping[str, int]
    corner: Mapping[str, int]

    @property
    def step(self) -> int:
        """Voxels per pixel, a power of two as in pyramids, so that the longer side fits the panel."""
        longest = max(stop - start for start, stop in self.window)
        return 1 << max(-(-longest // SIDE) - 1, 0).bit_length()

    @property
    def shape(self) -> tuple[int, int]:
        """Pixels of a panel, (y, x)."""
        (top, bottom), (left, right) = self.window
        return -(-(bottom - top) // self.step), -(-(right - left) // self.step)

    def fit(self, plane: Plane) -> Plane:
        """Return a plane of exactly the panel's pixels: ragged ends of levels differ by a pixel."""
        plane = plane[..., : self.shape[0], : self.shape[1]]
        missing = [(0, wanted - got) for wanted, got in zip(self.shape, plane.shape[-2:], strict=True)]
        return np.pad(plane, [(0, 0)] * (plane.ndim - 2) + missing, mode="edge")

    @property
    def in_source(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """The window in voxels of the source."""
        (top, bottom), (left, right) = self.window
        down, along = self.corner["y"], self.corner["x"]
        return (top + down, bottom + down), (left + along, right + along)


def view_of(manifest: Mapping[str, Any], *, z: int | None, t: int | None, roi: str | None) -> View:
    """Return the part to draw, from what was asked, in voxels of the source."""
    axes: str = manifest["plan"]["axes"]
    extent = {axis: tuple(each) for axis, each in zip(axes, manifest["plan"]["roi"], strict=True)}
    corner = {axis: start for axis, (start, _) in extent.items()}
    planes = {}
    for axis, asked in (("t", t), ("z", z)):
        if axis not in axes:
            if asked is not None:
                raise OptionError(f"The result has no axis {axis}, only {axes}. Leave out --{axis}.")
            continue
        start, stop = extent[axis]
        position = (start + stop) // 2 if asked is None and axis == "z" else start if asked is None else asked
        if not start <= position < max(stop, start + 1):
            raise OptionError(f"--{axis} {position} is outside of the result. Use {start} to {stop - 1}.")
        planes[axis] = position - start
    shape = tuple(manifest["plan"]["shape"][axes.index(axis)] for axis in "yx")
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
    return View((clipped[0], clipped[1]), planes, corner)


def product_plane(url: str, entry: Mapping[str, Any], view: View) -> Plane:
    """Return the plane of a product, (y, x) or (c, y, x), of unwritten voxels the sentinel."""
    stored = [zarr.open_array(url, path=f"{entry['name']}/{n}", mode="r") for n in range(entry["levels"])]
    axes: str = entry["axes"]
    finest = stored[0].shape
    chosen = stored[0]
    for level in stored:
        if _factor(finest, level.shape, axes) <= view.step:
            chosen = level
    plane = _read_level(chosen, axes, view, factors=_factors(finest, chosen.shape))
    if chosen is not stored[0] and unwritten(plane).any():
        # Coarser levels are made last; in a run that is not complete only the finest tells what is there.
        plane = _read_level(stored[0], axes, view, factors=(1,) * len(axes))
    return view.fit(plane)


def _factors(finest: tuple[int, ...], shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the power of two by which each axis of a level is coarser."""
    return tuple(1 << round(math.log2(a / b)) if a and b else 1 for a, b in zip(finest, shape, strict=True))


def _factor(finest: tuple[int, ...], shape: tuple[int, ...], axes: str) -> int:
    factors = _factors(finest, shape)
    return max(factors[axes.index("y")], factors[axes.index("x")])


def _read_level(array: zarr.Array[Any], axes: str, view: View, *, factors: tuple[int, ...]) -> Plane:
    """Read every n-th pixel of a level's plane, a band of rows at a time."""
    size = dict(zip(axes, array.shape, strict=True))
    factor = dict(zip(axes, factors, strict=True))
    (top, bottom), (left, right) = (
        (start // factor[axis], max(-(-stop // factor[axis]), start // factor[axis] + 1))
        for axis, (start, stop) in zip("yx", view.window, strict=True)
    )
    take = max(view.step // factor["y"], 1)

    def read(first: int, last: int) -> Plane:
        at: dict[str, int | slice] = {
            **{a: min(p // factor[a], size[a] - 1) for a, p in view.planes.items() if a in axes},
            "y": slice(first, min(last, size["y"])),
            "x": slice(left, min(right, size["x"])),
        }
        values = np.asarray(array[tuple(at.get(axis, slice(None)) for axis in axes)])
        return values[..., take // 2 :: take, take // 2 :: take]

    rows = (array.shards or array.chunks)[axes.index("y")]
    return _bands(read, top, bottom, band=max(rows // take, 1) * take)


def _bands(read: Callable[[int, int], Plane], top: int, bottom: int, *, band: int) -> Plane:
    """Put together what was read band by band."""
    return np.concatenate(
        [read(first, min(first + band, bottom)) for first in range(top, bottom, band)], axis=-2
    )


def unwritten(plane: Plane) -> NDArray[np.bool_]:
    """Return where a plane holds the sentinel, (y, x)."""
    missing: NDArray[np.bool_] = (
        np.isnan(plane) if plane.dtype.kind == "f" else plane == np.iinfo(plane.dtype).max
    )
    return np.logical_or.reduce(missing, axis=0) if plane.ndim == 3 else missing


def holes_of(products: Mapping[str, Plane]) -> NDArray[np.bool_]:
    """Return where any product holds the sentinel."""
    first, *others = (unwritten(plane) for plane in products.values())
    for other in others:
        first = first | other
    return first


def source_plane(manifest: Mapping[str, Any], view: View) -> tuple[Plane | None, tuple[str, ...]]:
    """Return the source's plane, (y, x) or (c, y, x), or None and why not."""
    identity = manifest["fingerprint"]
    chosen = identity["source.channels"]
    channels = None if chosen == "all" else [int(channel) for channel in chosen.split(",")]
    try:
        source = open_source(
            identity["source.url"],
            key=identity["source.key"] or None,
            axes=identity["source.axes"],
            channels=channels,
        )
        if list(source.shape) != manifest["plan"]["shape"]:
            return None, ("the source has another shape now, so it is not shown",)
        coarse = _coarse_source(source, view)
        factors = _factors(source.shape, coarse.shape)
        to_read = math.prod((stop - start) // factors[-2 + i] for i, (start, stop) in enumerate(view.window))
        if to_read > _MOST_READ:
            return None, ("the source has no coarser level and is too large to draw; use --roi y0:y1,x0:x1",)
        return view.fit(_read_source(coarse, view, factors)), ()
    except UnetDaskError as error:
        return None, (f"the source is not shown: {error}",)


def _coarse_source(source: Source, view: View) -> Source:
    """Return the coarsest level of the source's own pyramid that fills the panel."""
    best = source
    for level in levels(source):
        if _factor(source.shape, level.shape, source.axes) > view.step:
            break
        best = level
    return best


def _read_source(source: Source, view: View, factors: tuple[int, ...]) -> Plane:
    """Read a plane of the source, averaged to the panel's pixels."""
    axes = source.axes
    factor = dict(zip(axes, factors, strict=True))
    size = dict(zip(axes, source.shape, strict=True))
    (top, bottom), (left, right) = (
        (start // factor[axis], min(max(-(-stop // factor[axis]), start // factor[axis] + 1), size[axis]))
        for axis, (start, stop) in zip("yx", view.in_source, strict=True)
    )
    take = max(view.step // factor["y"], 1)

    def read(first: int, last: int) -> Plane:
        window = {"y": slice(first, last), "x": slice(left, right), "c": slice(0, size["c"])}
        for axis, position in view.planes.items():
            at = min((position + view.corner[axis]) // factor[axis], size[axis] - 1)
            window[axis] = slice(at, at + 1)
        values = source.read(tuple(window[axis] for axis in axes))
        plane = values.reshape(size["c"], *values.shape[-2:])
        return coarser(plane.astype(np.float32), (1, take, take), how="mean")

    rows = source.chunks[axes.index("y")]
    plane = _bands(read, top, bottom, band=max(rows // take, 1) * take)
    return plane if plane.shape[0] == 3 else plane[0]
