"""Objects in their final shape: what is done to each once it is known where it lies, see :mod:`unet_dask.objects`.

A region does it for every object that reaches into its own voxels. Those that lie in it are nobody else's business. Of
those that cross from one region to another the driver knows the box, and tells every region that the box meets; it
reads the numbers of its neighbours as far as these boxes go. Numbers that regions have put aside are all there until
the last of them is done, so it may be interrupted anywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from unet_dask.objects.growth import room
from unet_dask.objects.pieces import renumbered
from unet_dask.objects.rule import REACH
from unet_dask.objects.runs import extents, places
from unet_dask.tiling.box import Box

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from unet_dask.tiling.region import RegionGrid

Index = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Crossing:
    """Pieces of objects that end at a face between regions, or grow beyond it, with the box of each.

    Attributes
    ----------
    pieces : (n) numbers that regions have given them
    low, high : (n, axes) first voxel of the box in the result, and voxel after the last
    """

    pieces: NDArray[np.uint64]
    low: NDArray[np.int32]
    high: NDArray[np.int32]


def crossing(
    numbers: NDArray[np.unsignedinteger], box: Box, whole: Box, dims: int, *, grow: int = 0
) -> Crossing:
    """Return the pieces of a region that may go on in another, or grow into it.

    Parameters
    ----------
    numbers : of the pieces of a region
    box : where it lies in the result
    whole : the result
    dims : last axes along which pieces are connected
    grow : voxels by which objects grow
    """
    faces, thick = [np.zeros(0, numbers.dtype)], max(grow, 1)
    for axis in range(numbers.ndim - dims, numbers.ndim):
        lines = np.moveaxis(numbers, axis, 0)
        faces += [lines[:thick].ravel()] * (box.start[axis] > 0)
        faces += [lines[-thick:].ravel()] * (box.spans[axis][1] < whole.spans[axis][1])
    pieces = np.unique(np.concatenate(faces))
    pieces = pieces[(pieces > 0) & (pieces < room(numbers.dtype))]
    low, high = extents(places(numbers, pieces), len(pieces))
    start = np.array(box.start, np.int32)
    return Crossing(pieces.astype(np.uint64), low + start, high + start)


@dataclass(frozen=True, slots=True)
class Objects:
    """Objects that cross from region to region.

    Of those that are too large to be shaped a region has to know its own pieces alone: one may reach through all of
    them.

    Attributes
    ----------
    names : (n) numbers of those that are to be shaped, ascending
    low, high : (n, axes) their boxes
    pieces : (m) numbers of their pieces, in the order of the objects
    first : (n + 1) which piece is the first of each object
    large : pieces of the others, with a box each
    owners : numbers of the objects that these are of
    """

    names: NDArray[np.uint64]
    low: NDArray[np.int32]
    high: NDArray[np.int32]
    pieces: NDArray[np.uint64]
    first: NDArray[np.int64]
    large: Crossing
    owners: NDArray[np.uint64]


def gathered(
    found: Sequence[Crossing], old: NDArray[np.uint64], new: NDArray[np.uint64], dims: int
) -> Objects:
    """Return the objects that pieces are of.

    Parameters
    ----------
    found : pieces of all regions
    old, new : numbers of pieces that are joined to others, and what they become; `old` ascends
    dims : last axes along which pieces are connected
    """
    pieces = np.concatenate([each.pieces for each in found])
    low, high = (
        np.concatenate(each) for each in zip(*((each.low, each.high) for each in found), strict=True)
    )
    final = renumbered(pieces, old, new)
    names, owner, count = np.unique(final, return_inverse=True, return_counts=True)
    first = np.cumsum(count) - count
    order = np.argsort(owner, kind="stable")
    pieces, low, high = pieces[order], low[order], high[order]
    lowest, highest = low, high
    if len(names):
        lowest, highest = np.minimum.reduceat(low, first), np.maximum.reduceat(high, first)
    small = ((highest - lowest)[:, -dims:] <= REACH[dims]).all(axis=1)
    large = ~np.repeat(small, count)
    return Objects(
        names[small],
        lowest[small],
        highest[small],
        pieces[~large],
        np.append(0, np.cumsum(count[small])),
        Crossing(pieces[large], low[large], high[large]),
        np.repeat(names, count)[large],
    )


class ByRegion(Mapping[Index, "NDArray[np.int32]"]):
    """Boxes that regions have to know, of each region that has to know any: two arrays, however many boxes there are.

    Parameters
    ----------
    counts : regions along each axis
    regions : (n) place of a region in the raster order of all
    rows : (n) which box it has to know
    """

    def __init__(self, counts: tuple[int, ...], regions: NDArray[np.int64], rows: NDArray[np.int32]) -> None:
        order = np.argsort(regions, kind="stable")
        self._counts, self._rows = counts, rows[order]
        self._regions, first = np.unique(regions[order], return_index=True)
        self._first = np.append(first, len(rows))

    def __getitem__(self, index: Index) -> NDArray[np.int32]:
        """Return the boxes of a region."""
        region = int(np.ravel_multi_index(index, self._counts))
        place = int(np.searchsorted(self._regions, region))
        if place == len(self._regions) or self._regions[place] != region:
            raise KeyError(index)
        return self._rows[self._first[place] : self._first[place + 1]]

    def __iter__(self) -> Iterator[Index]:
        for region in self._regions.tolist():
            yield tuple(int(at) for at in np.unravel_index(region, self._counts))

    def __len__(self) -> int:
        return len(self._regions)


def by_region(
    grid: RegionGrid, low: NDArray[np.int32], high: NDArray[np.int32], *, dims: int, grow: int = 0
) -> ByRegion:
    """Return which boxes each region has to know: those that meet its own voxels, or voxels that grow into them.

    Parameters
    ----------
    grid : of the regions
    low, high : (n, axes) of the boxes, in the result
    dims : last axes along which objects grow
    grow : voxels by which they do
    """
    whole = grid.whole.in_space_and_time
    more = np.array([0] * (len(whole.axes) - dims) + [grow] * dims, np.int32)
    low, high = np.maximum(low - more, 0), np.minimum(high + more, np.array(whole.shape, np.int32))
    return ByRegion(grid.counts, *grid.meeting(low, high))


@dataclass(frozen=True, slots=True)
class Known:
    """What a region is told of the objects that cross its faces, or lie around it.

    Attributes
    ----------
    box : the region, in the result
    window : that, what may grow into it, and the boxes of the objects that are to be shaped
    old, new : numbers of their pieces, ascending, and what they become
    seen : numbers of the objects that are to be shaped, ascending
    whole : numbers of the objects that stay as they are
    """

    box: Box
    window: Box
    old: NDArray[np.uint64]
    new: NDArray[np.uint64]
    seen: NDArray[np.uint64]
    whole: NDArray[np.uint64]


def known(
    objects: Objects, rows: NDArray[np.integer], large: NDArray[np.integer], box: Box, around: Box
) -> Known:
    """Return what a region is told.

    Parameters
    ----------
    objects : that cross from region to region
    rows : those that the region has to know
    large : pieces that it has to know, of objects that stay as they are
    box : the region, in the result
    around : that, and the voxels from which objects may grow into it
    """
    rows = np.sort(rows)
    counts = objects.first[rows + 1] - objects.first[rows]
    own = np.repeat(objects.first[rows] - (np.cumsum(counts) - counts), counts) + np.arange(counts.sum())
    owners = objects.owners[large]
    pieces = np.concatenate([objects.pieces[own], objects.large.pieces[large]])
    names = np.concatenate([np.repeat(objects.names[rows], counts), owners])
    order = np.argsort(pieces)
    low = objects.low[rows].min(axis=0, initial=np.iinfo(np.int32).max)
    high = objects.high[rows].max(axis=0, initial=0)
    spans = zip(around.spans, low.tolist(), high.tolist(), strict=True)
    window = Box(around.axes, tuple((min(a, low), max(b, high)) for (a, b), low, high in spans))
    return Known(box, window, pieces[order], names[order], objects.names[rows], np.unique(owners))


def seen(numbers: NDArray[np.unsignedinteger], told: Known) -> NDArray[np.unsignedinteger]:
    """Return the final numbers in the window of a region, 0 for what lies in its neighbours and needs no look here.

    Parameters
    ----------
    numbers : in the window, as regions have put them aside
    told : of the window
    """
    final = renumbered(numbers, told.old, told.new)
    own = told.box.relative_to(told.window).slices
    names = np.unique(np.concatenate([told.seen, told.whole, [room(numbers.dtype)]])).astype(final.dtype)
    inside = final[own]
    final = np.where(places(final, names) > 0, final, final.dtype.type(0))
    final[own] = inside
    return final
