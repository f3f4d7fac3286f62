"""Numbers of pieces, made of what a result has stored: where regions did not leave any, or could not.

A region that has just been computed numbers its own pieces while their classes are at hand. Basins need a voxel of what
lies around a region, which is there when all regions are; and whoever makes the objects of a finished result anew
finds no numbers any more.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from unet_dask import graph
from unet_dask.io.sink.files import stored_chunks
from unet_dask.io.sink.place import NUMBERS
from unet_dask.ledger import Entry
from unet_dask.objects.basins import Ground, foreground
from unet_dask.objects.neurites import of_part, size_of
from unet_dask.objects.pieces import numbered
from unet_dask.products.classes import Classes
from unet_dask.products.probabilities import Probabilities
from unet_dask.run.dependents import region_box
from unet_dask.run.making import ASIDE_LEVEL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import numpy as np
    from numpy.typing import NDArray

    from unet_dask.graph import Record
    from unet_dask.io.sink.store import ArraySpec, Sink
    from unet_dask.objects.adjacency import Graph
    from unet_dask.objects.planes import Tally
    from unet_dask.run.making import Index, Making
    from unet_dask.tiling.box import Box


@dataclass(frozen=True, slots=True)
class Numbered:
    """What becomes of a region whose pieces are numbered.

    Attributes
    ----------
    record : of what was put aside
    graph : between basins that may become one yet; None of connected pieces
    size : voxels of every basin that are rather foreground; None of connected pieces
    """

    record: Record
    graph: Graph | None = None
    size: Tally | None = None

    @property
    def graphs(self) -> list[Graph]:
        """The graph, if there is one."""
        return [] if self.graph is None else [self.graph]


def unnumbered(sink: Sink, making: Making, indices: Iterable[Index]) -> list[Index]:
    """Return the regions among some whose numbers are not there, or are of basins that are not known any more."""
    if making.rule.threshold:
        return list(indices)
    there = stored_chunks(sink, making.array, NUMBERS)

    def whole(index: Index) -> bool:
        units = region_box(making.grid, making.array, index).units(making.array.write_unit)
        return bool(there[tuple(slice(each.start, each.stop) for each in units)].all())

    return [index for index in indices if not whole(index)]


def number(sink: Sink, making: Making, index: Index) -> Numbered:
    """Give numbers to the pieces of a region by what is stored of it, and put them aside, on a worker."""
    began, box = time.perf_counter(), making.box(index)
    if not making.rule.threshold:
        numbers = numbered(
            sink.read_written(Classes.name, 0, box.slices),  # type: ignore[arg-type] # whole numbers
            start=box.start,
            shape=making.shape,
            dims=making.dims,
            dtype=making.array.dtype,
            core=making.rule.core,
        )
        return Numbered(_aside(sink, index, box, numbers, began))
    around = ground(sink, making, box)
    part = of_part(around, making.rule.threshold, making.array.dtype)
    size = size_of(part.numbers, around.foreground[around.own])
    return Numbered(_aside(sink, index, box, part.numbers, began), part.graph, size)


def _aside(sink: Sink, index: Index, box: Box, numbers: NDArray[np.unsignedinteger], began: float) -> Record:
    with sink.attempted() as own:
        own.write(NUMBERS, 0, box.start, numbers)
        return graph.record(Entry(index, ASIDE_LEVEL), began, attempt=own.attempt)


def ground(sink: Sink, making: Making, box: Box) -> Ground:
    """Return how much the voxels of a box are foreground, with a voxel around it, as the result has it."""
    array = next(each for each in sink.arrays if each.name == Probabilities.name)

    def read(part: Box) -> NDArray[np.generic]:
        return sink.read_written(array.name, 0, part.slices)

    return ground_of(read, array, box, shape=making.shape, dims=making.dims)


def ground_of(
    read: Callable[[Box], NDArray[np.generic]],
    array: ArraySpec,
    box: Box,
    *,
    shape: tuple[int, ...],
    dims: int,
) -> Ground:
    """Return how much the voxels of a box are foreground, with a voxel around it.

    Parameters
    ----------
    read : values of a box of the probabilities
    array : of the probabilities
    box : in the array of objects
    shape : of that
    dims : last axes along which voxels are neighbours
    """
    around = box.grown(1, dims, within=shape)
    background = read(array.box(around).along("c", (0, 1))).squeeze(array.axes.index("c"))
    own = box.relative_to(around).slices
    return Ground(foreground(background), around.start, own, shape, dims)
