"""What regions say of their edges: which numbers meet there, and which objects go on behind them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from unet_dask.io.sink.place import NUMBERS
from unet_dask.objects.adjacency import summed
from unet_dask.objects.neurites import of_face
from unet_dask.objects.pieces import touching
from unet_dask.products.classes import Classes
from unet_dask.run import shape
from unet_dask.run.numbering import ground

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from unet_dask.io.sink.store import Sink
    from unet_dask.objects.adjacency import Graph
    from unet_dask.objects.neurites import Face
    from unet_dask.run.making import Index, Making
    from unet_dask.run.shape import Crossing
    from unet_dask.tiling.box import Box
    from unet_dask.tiling.region import RegionGrid

    #: An axis, a box two voxels thick across it, and the arrays in which the numbers of its two sides lie.
    Look = tuple[str, Box, tuple[str, str]]


_NONE = np.empty((0, 2), np.uint64)


@dataclass(frozen=True, slots=True)
class Edges:
    """What a region says of its edges.

    Attributes
    ----------
    pairs : (n, 2) numbers that meet there, and are of one object
    crossing : pieces that go on in other regions, where objects are given another shape
    graph : of the basins that meet there and are not one; None of connected pieces
    """

    pairs: NDArray[np.uint64]
    crossing: Crossing | None = None
    graph: Graph | None = None

    @property
    def graphs(self) -> list[Graph]:
        """The graph, if there is one."""
        return [] if self.graph is None else [self.graph]


def faces(grid: RegionGrid, index: Index, dims: int) -> Iterator[tuple[str, Box, Index]]:
    """Yield the upper faces of a region that have a neighbour: axis across, a box two voxels thick, and that."""
    own = grid.box(index).relative_to(grid.whole).in_space_and_time
    for place, axis in list(enumerate(grid.axes))[-dims:]:
        if index[place] + 1 < grid.counts[place]:
            _, stop = own.named[axis]
            other = (*index[:place], index[place] + 1, *index[place + 1 :])
            yield axis, own.along(axis, (stop - 1, stop + 1)), other


def edges(sink: Sink, making: Making, index: Index, looks: list[Look]) -> Edges:
    """Look at the edges of a region, on a worker."""
    if making.rule.threshold:
        found = [_face(sink, making, across, box) for across, box, _ in looks]
        pairs = np.concatenate([_NONE, *(face.pairs for face in found)])
        return Edges(pairs, graph=summed([face.graph for face in found]))
    crossing = None
    if making.rule.shapes:
        box, whole = making.box(index), making.grid.whole.in_space_and_time
        numbers = sink.read_written(NUMBERS, 0, box.slices)
        crossing = shape.crossing(
            numbers,  # type: ignore[arg-type] # numbers
            box,
            whole.relative_to(whole),
            making.dims,
            grow=making.rule.grow,
        )
    return Edges(_meetings(sink, looks, several=making.several), crossing)


def _face(sink: Sink, making: Making, across: str, box: Box) -> Face:
    """Return what basins meet at a face."""
    numbers = sink.read_written(NUMBERS, 0, box.slices)
    return of_face(ground(sink, making, box), numbers, box.axes.index(across))  # type: ignore[arg-type] # numbers


def _meetings(sink: Sink, looks: list[Look], *, several: bool) -> NDArray[np.uint64]:
    """Return the numbers that meet at a region's upper faces, each side read from where its numbers are."""
    found = [_NONE]
    for across, box, places in looks:
        low, high = box.named[across]
        halves = [box.along(across, span).slices for span in ((low, low + 1), (high - 1, high))]
        sides = [sink.read_written(name, 0, half) for name, half in zip(places, halves, strict=True)]
        sides += [sink.read_written(Classes.name, 0, half) for half in halves if several]
        found.append(touching(*sides))  # type: ignore[arg-type] # numbers, then classes
    return np.concatenate(found)
