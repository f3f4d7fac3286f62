"""Regions: the units of work, laid on the write units of the store and on the pooling lattice.

One axis of the volume, cut into three regions; ``|`` are the edges of the regions, ``:`` the chunks of
the sink, the write units that two tasks must never share::

      volume   0         :         |         :         |         :      ~ n
      write    |<--- region 0 ---->|<--- region 1 ---->|<-- region 2 -->|
      read  <--|---------------halo|-->                |                |
      (1)               <--halo----|--- region 1 ------|----halo-->     |
      tiles                        [  core  ][  core  ]
                                          each core: a multiple of the stride long, begun on the lattice

Region 0 reads beyond the volume on the left: there the worker mirrors. The last region takes in a
remainder that would be thinner than the context, since ``map_overlap`` can only fetch context from the
neighbour next door.

Everything is in voxels of the volume. A region of interest that begins off the lattice costs up to
``stride - 1`` voxels of additional context (the *phase*), never another result.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise, product, repeat
from typing import TYPE_CHECKING

import numpy as np

from unet_dask.errors import GeometryError
from unet_dask.tiling.box import Box
from unet_dask.tiling.mirror import mirrored
from unet_dask.tiling.valid import aligned

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from unet_dask.tiling.box import Interval
    from unet_dask.tiling.valid import Context


@dataclass(frozen=True)
class AxisGrid:
    """Regions along one axis.

    Attributes
    ----------
    size : of the axis of the volume
    start, stop : the part of it to segment
    step : length of a region; the last one may be longer or shorter
    core : length of a tile, a multiple of the stride
    context : what the network consumes
    """

    size: int
    start: int
    stop: int
    step: int
    core: int
    context: Context

    def __post_init__(self) -> None:
        if not 0 <= self.start <= self.stop <= self.size:
            raise GeometryError(
                f"The part {self.start}:{self.stop} is not within an axis of {self.size} voxels."
            )
        if self.core % self.context.stride or self.core < 1:
            raise GeometryError(
                f"A tile of {self.core} voxels does not fit the network's poolings. "
                f"Use a multiple of {self.context.stride}."
            )
        if self.step < 1 or (len(self.edges) > 2 and self.step % self.context.stride):
            raise GeometryError(
                f"A region of {self.step} voxels does not fit the network's poolings. "
                f"Use a multiple of {self.context.stride}."
            )

    @property
    def phase(self) -> int:
        """Voxels from the last point of the lattice to the beginning of every region."""
        return self.start % self.context.stride

    @property
    def before(self) -> int:
        """Context read before a region."""
        return self.context.halo + self.phase

    @property
    def after(self) -> int:
        """Context read after a region that is not the last."""
        return self.context.halo + self.context.slack + (-self.phase) % self.context.stride

    @cached_property
    def edges(self) -> tuple[int, ...]:
        """Beginnings of all regions, then the end of the last."""
        edges = list(range(self.start, self.stop, self.step))
        if len(edges) > 1 and self.stop - edges[-1] < self.thinnest:
            edges.pop()
        return (*edges, self.stop) if edges else (self.start, self.stop)

    @property
    def thinnest(self) -> int:
        """Least length of a region that has a neighbour, which must find its context in it."""
        return max(self.before, self.after, 1)

    @property
    def count(self) -> int:
        """Number of regions."""
        return len(self.edges) - 1

    @property
    def longest(self) -> int:
        """Length of the longest region."""
        return max(stop - start for start, stop in pairwise(self.edges))

    def write(self, index: int) -> Interval:
        """Return the voxels that region `index` owns."""
        return self.edges[index], self.edges[index + 1]

    def holding(self, places: NDArray[np.integer]) -> NDArray[np.intp]:
        """Return which region each of some voxels lies in, counted from the first that is segmented."""
        inner = np.array(self.edges[1:-1], np.int64) - self.start
        return np.searchsorted(inner, places, side="right")

    def regions(self) -> list[Interval]:
        """Return the voxels that each region owns."""
        return list(pairwise(self.edges))

    def read(self, index: int) -> Interval:
        """Return the voxels that region `index` needs; they may lie outside the volume."""
        start, stop = self.write(index)
        first = start - self.phase
        beyond = aligned(stop - first, self.context.stride) + self.context.slack + self.context.halo
        return first - self.context.halo, first + beyond

    def source_window(self, index: int) -> Interval:
        """Return the part of the volume that :meth:`read` shows, itself or as a mirror image.

        The lattice may carry a short region at the end of a volume so far beyond it that the mirror image shows
        more than lies before the region within its context.
        """
        start, stop = self.read(index)
        if start >= 0 and stop <= self.size:
            return start, stop
        shown = mirrored(start, stop, self.size)
        return int(shown.min()), int(shown.max()) + 1

    @property
    def tile(self) -> int:
        """Input size of a tile."""
        return self.core + self.context.slack + 2 * self.context.halo

    @property
    def half_tile(self) -> int:
        """Input size of half a tile, on which two ways to run a network are compared: one may need twice the memory."""
        return aligned(-(-self.core // 2), self.context.stride) + self.tile - self.core

    def tiles(self, length: int) -> tuple[int, ...]:
        """Return the first lattice points of the tiles that cover a region of `length`, from its own first.

        The last tile is moved back, along the lattice, so that it needs no more context than the region
        has; a region shorter than one tile is covered by one that reaches beyond it.
        """
        covered = aligned(self.phase + length, self.context.stride)
        if covered <= self.core:
            return (0,)
        return (*range(0, covered - self.core, self.core), covered - self.core)

    def cores(self, length: int) -> tuple[Interval, ...]:
        """Return the cores of the tiles that cover a region of `length`, in lattice points from its own first."""
        return tuple((first, first + self.core) for first in self.tiles(length))

    def kept(self, core: Interval, length: int) -> Interval:
        """Return what a core contributes to a region of `length`, from its own first."""
        return max(core[0] - self.phase, 0), min(core[1] - self.phase, length)

    @property
    def cell(self) -> int:
        """Side of the cells in which tiles are fitted to a mask: fine beside the halo, and found fast."""
        return self.context.stride * min(4, self.core // self.context.stride)

    def cells(self, length: int) -> tuple[Interval, ...]:
        """Return the cells of a region of `length`, from its own first; the lattice may cut the outermost."""
        starts = range(-self.phase, length, self.cell)
        return tuple((max(start, 0), min(start + self.cell, length)) for start in starts)

    @cached_property
    def tile_count(self) -> int:
        """Number of tiles along the axis."""
        inner = len(self.tiles(self.step)) * (self.count - 1) if self.count > 1 else 0
        return inner + len(self.tiles(self.edges[-1] - self.edges[-2]))


@dataclass(frozen=True)
class RegionGrid:
    """All regions of a run: the product of one :class:`AxisGrid` per axis.

    Attributes
    ----------
    axes : canonical axes, such as "czyx"
    grids : one per axis; the channel axis is one region
    """

    axes: str
    grids: tuple[AxisGrid, ...]

    @property
    def counts(self) -> tuple[int, ...]:
        """Number of regions per axis."""
        return tuple(grid.count for grid in self.grids)

    def __len__(self) -> int:
        """Return the number of regions."""
        return math.prod(self.counts) if all(grid.stop > grid.start for grid in self.grids) else 0

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the whole volume."""
        return tuple(grid.size for grid in self.grids)

    @property
    def roi(self) -> tuple[Interval, ...]:
        """The part to segment."""
        return tuple((grid.start, grid.stop) for grid in self.grids)

    def indices(self) -> Iterator[tuple[int, ...]]:
        """Yield the index of every region, the last axis fastest."""
        if len(self):
            yield from product(*(range(count) for count in self.counts))

    def write(self, index: tuple[int, ...]) -> tuple[Interval, ...]:
        """Return the voxels that a region owns."""
        return tuple(grid.write(place) for grid, place in zip(self.grids, index, strict=True))

    def box(self, index: tuple[int, ...]) -> Box:
        """Return the voxels that a region owns."""
        return Box(self.axes, self.write(index))

    @property
    def whole(self) -> Box:
        """The part to segment; a result begins at its first voxel."""
        return Box(self.axes, self.roi)

    def read(self, index: tuple[int, ...]) -> tuple[Interval, ...]:
        """Return the voxels that a region needs; they may lie outside the volume."""
        return tuple(grid.read(place) for grid, place in zip(self.grids, index, strict=True))

    def source_window(self, index: tuple[int, ...]) -> tuple[Interval, ...]:
        """Return the part of the volume that :meth:`read` shows, itself or as a mirror image."""
        return tuple(grid.source_window(place) for grid, place in zip(self.grids, index, strict=True))

    def meeting(
        self, low: NDArray[np.integer], high: NDArray[np.integer]
    ) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Return the regions that boxes meet.

        Parameters
        ----------
        low, high : (n, axes but channels) first voxel of each box in the result, and the one after the last

        Returns
        -------
        of every meeting the place of the region in the order of :meth:`indices`, and the number of the box
        """
        axes = [number for number, axis in enumerate(self.axes) if axis != "c"]  # channels are one region
        first = [self.grids[axis].holding(low[:, n]) for n, axis in enumerate(axes)]
        last = [self.grids[axis].holding(high[:, n] - 1) for n, axis in enumerate(axes)]
        strides = [math.prod(self.counts[axis + 1 :]) for axis in axes]
        regions, boxes = [np.zeros(0, np.int64)], [np.zeros(0, np.int32)]
        most = [int((b - a).max(initial=0)) for a, b in zip(first, last, strict=True)]
        for steps in np.ndindex(*(step + 1 for step in most)):
            met = np.all([a + step <= b for a, b, step in zip(first, last, steps, strict=True)], axis=0)
            boxes.append(np.flatnonzero(met).astype(np.int32))
            places = zip(first, steps, strides, strict=True)
            regions.append(sum((a[met] + step) * stride for a, step, stride in places).astype(np.int64))
        return np.concatenate(regions), np.concatenate(boxes)

    def waves(self, regions: int | Iterable[int], stretch: range | None = None) -> Iterator[Wave]:
        """Yield boxes of at most `regions` regions that together hold every region, or those of a stretch, once.

        The regions are ordered by halving: all of one half of the grid come before the other half, and so on in
        each half, always across its longest axis. So regions that are near in time are near in the volume, any
        stretch of the order is a few compact boxes, and a box is as cubic as it can be, since the context at its
        faces is read twice. The order does not depend on `regions`.

        Parameters
        ----------
        regions : at most, in a box; more than half as many where the grid and the stretch allow. An endless row of
            numbers holds for the boxes in turn
        stretch : ranks in the order of all regions; None for all
        """
        stretch = range(len(self)) if stretch is None else stretch
        boxes = [(0, Wave(self, (0,) * len(self.counts), self.counts))] if len(stretch) else []
        limits = repeat(regions) if isinstance(regions, int) else iter(regions)
        limit = next(limits)
        while boxes:
            first, box = boxes.pop()
            stop = first + len(box)
            if stop <= stretch.start or first >= stretch.stop:
                continue
            if len(box) <= limit and stretch.start <= first and stop <= stretch.stop:
                yield box
                limit = next(limits)
                continue
            near, far = box.halves()
            boxes += [(first + len(near), far), (first, near)]

    def stretch(self, ranks: range) -> Iterator[tuple[int, ...]]:
        """Yield the index of every region of a stretch of the order of :meth:`waves`."""
        for wave in self.waves(len(self), ranks):
            yield from wave.indices()


@dataclass(frozen=True)
class Wave:
    """A box of regions that are submitted together.

    Attributes
    ----------
    grid : of all regions
    start, stop : first index and index after the last, per axis
    """

    grid: RegionGrid
    start: tuple[int, ...]
    stop: tuple[int, ...]

    @property
    def window(self) -> tuple[Interval, ...]:
        """Voxels to read, context included, within the volume."""
        return tuple(
            (grid.source_window(start)[0], grid.source_window(stop - 1)[1])
            for grid, start, stop in zip(self.grid.grids, self.start, self.stop, strict=True)
        )

    @property
    def chunks(self) -> tuple[tuple[int, ...], ...]:
        """Lengths of the blocks that `window` is cut into, one per region.

        The outermost blocks hold the outer context too; every inner edge is the edge of a region, so that
        ``map_overlap`` completes each block to exactly what its region reads.
        """
        chunks = []
        for grid, start, stop, window in zip(
            self.grid.grids, self.start, self.stop, self.window, strict=True
        ):
            edges = [window[0], *grid.edges[start + 1 : stop], window[1]]
            chunks.append(tuple(b - a for a, b in pairwise(edges)))
        return tuple(chunks)

    @property
    def depth(self) -> tuple[tuple[int, int], ...]:
        """Context that a block takes from its neighbours, (before, after) per axis."""
        return tuple(
            (grid.before, grid.after) if stop - start > 1 else (0, 0)
            for grid, start, stop in zip(self.grid.grids, self.start, self.stop, strict=True)
        )

    def __len__(self) -> int:
        """Return the number of regions."""
        return math.prod(b - a for a, b in zip(self.start, self.stop, strict=True))

    def halves(self) -> tuple[Wave, Wave]:
        """Cut the wave across its longest axis, the first of those that are longest."""
        sides = [b - a for a, b in zip(self.start, self.stop, strict=True)]
        axis = sides.index(max(sides))
        middle = self.start[axis] + sides[axis] // 2
        return (
            Wave(self.grid, self.start, (*self.stop[:axis], middle, *self.stop[axis + 1 :])),
            Wave(self.grid, (*self.start[:axis], middle, *self.start[axis + 1 :]), self.stop),
        )

    def indices(self) -> Iterator[tuple[int, ...]]:
        """Yield the index of every region of the wave."""
        yield from product(*(range(a, b) for a, b in zip(self.start, self.stop, strict=True)))

    def only(self, index: tuple[int, ...]) -> Wave:
        """Return the wave of one region."""
        return Wave(self.grid, index, tuple(place + 1 for place in index))
