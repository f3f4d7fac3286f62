"""The coarser levels of a product, each made from the next finer one on disk, block by block.

A block is whole write units of the coarser level, so no two tasks share a chunk, and its source is exactly the
block times the step: no halo, any order, resumable.
"""

from __future__ import annotations

import math
from itertools import product
from typing import TYPE_CHECKING

from unet_dask.axes import is_spatial
from unet_dask.tiling.box import Box

if TYPE_CHECKING:
    from collections.abc import Iterator

    from unet_dask.io.sink.store import ArraySpec, Sink

#: Voxels of a block, about; its source is up to eight times as many.
_BLOCK_VOXELS = 1 << 20


def block_shape(array: ArraySpec) -> tuple[int, ...]:
    """Return the size of the blocks of every coarser level: whole write units."""
    block = list(array.write_unit)
    voxels = math.prod(block)
    for axis in reversed(range(len(block))):
        if is_spatial(array.axes[axis]) and 2 * voxels <= _BLOCK_VOXELS:
            block[axis] *= 2
            voxels *= 2
    return tuple(block)


def block_counts(array: ArraySpec, level: int) -> tuple[int, ...]:
    """Return the number of blocks of a level, per axis."""
    shape = array.levels[level].shape
    return tuple(-(-size // side) for size, side in zip(shape, block_shape(array), strict=True))


def block_indices(array: ArraySpec, level: int) -> Iterator[tuple[int, ...]]:
    """Yield the index of every block of a level."""
    yield from product(*map(range, block_counts(array, level)))


def block_box(array: ArraySpec, level: int, index: tuple[int, ...]) -> Box:
    """Return a block as a box of the array of its level."""
    spans = tuple(
        (i * side, min((i + 1) * side, size))
        for i, side, size in zip(index, block_shape(array), array.levels[level].shape, strict=True)
    )
    return Box(array.axes, spans)


def write_block(sink: Sink, array: ArraySpec, level: int, index: tuple[int, ...]) -> str:
    """Make one block of a level from the finer level, and return its checksum."""
    here, finer = array.levels[level], array.levels[level - 1]
    step = here.step_from(finer)
    box = block_box(array, level, index)
    window = tuple(
        slice(a * by, min(b * by, size))
        for (a, b), by, size in zip(box.spans, step, finer.shape, strict=True)
    )
    values = array.product.coarser(sink.read_written(array.name, level - 1, window), step)
    return sink.write(array.name, level, box.start, values)
