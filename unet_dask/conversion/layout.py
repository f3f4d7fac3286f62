"""What is written of an image: its axes, the levels of its pyramid, chunks and shards, and what OME-Zarr says of it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from unet_dask.axes import has_depth, is_channel
from unet_dask.io.sink.multiscale import Level, image_metadata, pyramid
from unet_dask.tiling.box import Box

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from unet_dask.io.source.volume import Source

#: Pixels of a chunk along y and x, and planes, where there are planes.
_FLAT, _DEEP, _PLANES = 512, 256, 16
#: Chunks of a shard along y, x and z. A shard is a file, and what is read and written at a time.
_SHARD = 4
#: Channels that lie in one shard, because files of pictures hold them pixel by pixel.
_TOGETHER = 4
#: Colours of channels that viewers show one over the other, in turn.
_COLOURS = ("FFFFFF", "00FF00", "FF00FF", "00FFFF", "FFFF00", "FF0000", "0000FF")
_RGB = ("FF0000", "00FF00", "0000FF")


@dataclass(frozen=True, slots=True)
class Layout:
    """An image as it is written.

    Attributes
    ----------
    axes : those of the source, without one for channels that it does not have
    levels : of the pyramid, the finest first
    chunks, shards : sizes along the axes, of all levels; a shard is some whole chunks
    """

    axes: str
    levels: tuple[Level, ...]
    chunks: tuple[int, ...]
    shards: tuple[int, ...]

    def boxes(self, level: int) -> Iterator[tuple[tuple[int, ...], Box]]:
        """Yield the index of each shard of a level, and its box there, in raster order."""
        shape = self.levels[level].shape
        counts = [range(-(-size // side)) for size, side in zip(shape, self.shards, strict=True)]
        for index in product(*counts):
            spans = tuple(
                (number * side, min((number + 1) * side, size))
                for number, side, size in zip(index, self.shards, shape, strict=True)
            )
            yield index, Box(self.axes, spans)

    def finer(self, level: int, box: Box) -> tuple[Box, tuple[int, ...]]:
        """Return the box of the next finer level that a box is made of, and the step between them."""
        here, below = self.levels[level], self.levels[level - 1]
        step = here.step_from(below)
        spans = tuple(
            (a * by, min(b * by, size)) for (a, b), by, size in zip(box.spans, step, below.shape, strict=True)
        )
        return Box(self.axes, spans), step

    @property
    def shard_voxels(self) -> int:
        """Voxels of a whole shard."""
        return math.prod(self.shards)


def layout_of(source: Source) -> Layout:
    """Return how an image is written."""
    kept = [axis for axis in source.axes if not is_channel(axis) or axis in source.spec.axes]
    axes = "".join(kept)
    sizes = source.sizes
    shape = tuple(sizes[axis] for axis in kept)
    side = _DEEP if has_depth(axes) and sizes["z"] > 1 else _FLAT
    wanted = {"z": _PLANES, "y": side, "x": side}
    chunks = {axis: min(wanted.get(axis, 1), sizes[axis]) for axis in kept}
    shards = {
        axis: size * min(_SHARD, -(-sizes[axis] // size)) for axis, size in chunks.items() if axis in wanted
    }
    if "c" in kept and sizes["c"] <= _TOGETHER:
        shards["c"] = sizes["c"]
    return Layout(
        axes,
        pyramid(axes, shape, source.spacing),
        tuple(chunks[axis] for axis in kept),
        tuple(shards.get(axis, 1) for axis in kept),
    )


def described(source: Source, layout: Layout, coarsest: NDArray[np.generic]) -> dict[str, Any]:
    """Return what OME-Zarr says of the image: axes, levels, and its channels with a range to show them in.

    Parameters
    ----------
    source : the image
    layout : of what is written
    coarsest : values of the coarsest level
    """
    said = image_metadata(
        layout.axes,
        layout.levels,
        name=source.name,
        spacing=source.spacing,
        unit=source.unit,
        translation=source.translation,
    )
    return said | {
        "omero": {"channels": list(_channels(source, layout, coarsest)), "rdefs": {"model": "color"}}
    }


def _channels(source: Source, layout: Layout, coarsest: NDArray[np.generic]) -> Iterator[dict[str, Any]]:
    """Yield what is said of each channel."""
    channel = layout.axes.find("c")
    planes = [coarsest] if channel < 0 else list(np.moveaxis(coarsest, channel, 0))
    lowest, highest = _limits(source.dtype)
    colours = _RGB if len(planes) == len(_RGB) and source.dtype == np.uint8 else _COLOURS
    for number, plane in enumerate(planes):
        finite = plane[np.isfinite(plane)]
        low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
        yield {
            "label": source.channel_names[number] if source.channel_names else str(number),
            "color": colours[number % len(colours)],
            "active": True,
            "window": {
                "min": min(lowest, low),
                "max": max(highest, high),
                "start": low,
                "end": max(high, low + 1),
            },
        }


def _limits(dtype: np.dtype[np.generic]) -> tuple[float, float]:
    """Return the range of a type of whole numbers; of others that of shares."""
    if dtype.kind in "iu":
        limits = np.iinfo(dtype.name)
        return float(limits.min), float(limits.max)
    return 0.0, 1.0
