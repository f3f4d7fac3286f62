"""Which boxes of a volume a mask touches, answered for many boxes at once.

The mask is read once, in bands, and pooled to at most some megapixels; the number of pixels in any box is then a sum
over the corners of a summed-area table. Pooling takes the largest value, so a box is never called empty that is not;
a worker that finds nothing in such a box has lost the time to look, no more.
"""

from __future__ import annotations

from functools import reduce
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from unet_dask.axes import by_axis, without_channel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from unet_dask.io.source.mask import Mask
    from unet_dask.tiling.box import Interval
    from unet_dask.tiling.region import RegionGrid

#: Pixels of the pooled mask, and of what is read at once.
LARGEST = 1 << 24


class Occupancy:
    """How much of a mask lies in boxes of the source.

    Parameters
    ----------
    mask : to look at

    Attributes
    ----------
    share : of the pooled pixels that the mask holds
    voxel_bytes : that a worker needs for the mask, per voxel of a region
    decoding : what reading the mask takes beside these
    """

    def __init__(self, mask: Mask) -> None:
        self._mask = mask
        self.voxel_bytes = mask.voxel_bytes
        self.decoding = mask.decoding
        self._axes = without_channel(mask.axes)
        sizes = [mask.shape[mask.axes.index(axis)] for axis in self._axes]
        self._step = 1
        while np.prod([-(-size // self._step) for size in sizes], dtype=np.float64) > LARGEST:
            self._step *= 2
        pooled = self._pooled(sizes)
        self.share = float(pooled.mean()) if pooled.size else 0.0
        table = pooled.astype(np.int32)  # no more than LARGEST
        for axis in range(table.ndim):
            table = np.cumsum(table, axis=axis, dtype=np.int32)
        self._table = np.pad(table, [(1, 0)] * table.ndim)

    def touched(self, intervals: Sequence[Sequence[Interval]]) -> NDArray[np.bool_]:
        """Return for every combination of intervals whether the mask touches the box.

        Parameters
        ----------
        intervals : (start, stop) in voxels, per axis of the source; those of the channel axis do not matter

        Returns
        -------
        one value per combination, of as many axes as the source has without the channels
        """
        over = without_channel(self._mask.over_axes)
        given = by_axis(self._mask.over_axes, intervals)
        ends = []
        for axis in self._axes:
            bounds = np.array(given.get(axis, [(0, 1)]), np.int64).reshape(-1, 2)
            first = self._mask.pixels(axis, bounds[:, 0]) // self._step
            last = self._mask.pixels(axis, bounds[:, 1] - 1) // self._step + 1
            ends.append((first, last))
        count = reduce(
            np.add,
            (
                (-1) ** (len(corner) - sum(corner))
                * self._table[np.ix_(*(end[side] for end, side in zip(ends, corner, strict=True)))]
                for corner in product((0, 1), repeat=len(ends))
            ),
        )
        own = [axis for axis in self._axes if axis in over]
        count = count.reshape([len(given[axis]) for axis in own])
        count = count[tuple(slice(None) if axis in own else np.newaxis for axis in over)]
        return np.broadcast_to(count > 0, [len(given[axis]) for axis in over])

    def regions(self, grid: RegionGrid) -> NDArray[np.bool_]:
        """Return for every region whether the mask touches it, without the channel axis; nothing of an empty grid."""
        if not len(grid):
            return np.zeros(0, np.bool_)
        return self.touched([each.regions() for each in grid.grids])

    def untouched(self, grid: RegionGrid) -> frozenset[tuple[int, ...]]:
        """Return the indices of the regions that the mask does not touch."""
        if not len(grid):
            return frozenset()
        empty = np.insert(np.argwhere(~self.regions(grid)), grid.axes.index("c"), 0, axis=1)
        return frozenset(map(tuple, empty.tolist()))

    def _pooled(self, sizes: list[int]) -> NDArray[np.bool_]:
        """Return the mask, its largest value in each cell of `step` pixels, read a band at a time."""
        step = self._step
        pooled = np.zeros([-(-size // step) for size in sizes], np.bool_)
        band = max(LARGEST // max(int(np.prod(sizes[1:], dtype=np.int64)), 1) // step, 1) * step
        for start in range(0, sizes[0], band):
            stop = min(start + band, sizes[0])
            ranges = by_axis(self._axes, [(start, stop), *((0, size) for size in sizes[1:])])
            values = self._mask.read(ranges)
            for axis in range(values.ndim if step > 1 else 0):
                values = np.maximum.reduceat(values, range(0, values.shape[axis], step), axis=axis)
            pooled[start // step : start // step + len(values)] = values
        return pooled
