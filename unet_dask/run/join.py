"""Objects across regions: the stage that follows the regions when a run makes numbers of objects.

Each region has numbered its pieces by itself, while their classes were at hand, and put the numbers aside (`NUMBERS`).
Here the faces between regions are looked at, the driver finds out which numbers are one object, and each region is
written to the product, renumbered: see :mod:`unet_dask.objects.pieces` for why that may be interrupted anywhere and
done again. Of a region that is done, the numbers that it has now meet those of its neighbours in the same objects; but
if objects are given another shape (:mod:`unet_dask.run.shape`), those that were put aside are needed until the end.

The ledger holds the checksum of a region's numbers from this stage, at level :data:`LEVEL`.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from unet_dask import graph
from unet_dask.dispatch import Failure, run_calls
from unet_dask.io.sink.place import NUMBERS
from unet_dask.ledger import Entry
from unet_dask.objects.pieces import merged, renumbered, touching
from unet_dask.objects.region import Window, reshaped
from unet_dask.products.classes import Classes
from unet_dask.run import shape

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence

    from numpy.typing import NDArray

    from unet_dask.graph import Record
    from unet_dask.io.sink.store import ArraySpec, Sink
    from unet_dask.objects.rule import ObjectRule
    from unet_dask.run.shape import Crossing
    from unet_dask.tiling.box import Box
    from unet_dask.tiling.region import RegionGrid
    from unet_dask.workers.cluster import Cluster

    #: Numbers that change, ascending, and what they become.
    Changes = tuple[NDArray[np.uint64], NDArray[np.uint64]]
    #: What workers call, and with what for each region.
    Work = tuple[Callable[..., Record], Iterator[tuple["Index", tuple[Any, ...]]]]

Index = tuple[int, ...]


#: Of the ledger's entries of this stage; it comes after the regions, which are 0, and before the pyramid.
LEVEL = -1


def joined_array(arrays: Sequence[ArraySpec]) -> ArraySpec | None:
    """Return the array whose values are joined across regions, None if there is none."""
    return next((array for array in arrays if array.product.joined), None)


@dataclass(frozen=True, slots=True)
class Making:
    """How objects are made.

    Attributes
    ----------
    dims : last axes along which pieces are connected
    several : whether there is more than one class beside background, so that classes must be compared
    rule : what is done to each object once it is joined
    """

    dims: int
    several: bool
    rule: ObjectRule


@dataclass(frozen=True, slots=True)
class _Edges:
    """What a region says of its edges: numbers that meet there, and the pieces that go on in other regions."""

    pairs: NDArray[np.uint64]
    crossing: Crossing | None


def join(
    workers: Cluster,
    sink: Sink,
    grid: RegionGrid,
    making: Making,
    done: set[tuple[int, Index]],
) -> Generator[Record | Failure, None, None]:
    """Give each object one number and its final shape, and yield a record for each region.

    Parameters
    ----------
    workers : that look at faces and renumber
    sink : whose regions are all written
    grid : of the regions
    making : of the objects
    done : keys of the ledger's entries
    """
    missing = [index for index in grid.indices() if (LEVEL, index) not in done]
    if not missing:
        return
    array = joined_array(sink.arrays)
    assert array is not None

    def of(index: Index) -> str:  # an object in its final shape does not meet what its pieces met
        return array.name if (LEVEL, index) in done and not making.rule.changes else NUMBERS

    looks = (
        (
            index,
            (
                sink,
                grid,
                index,
                [(axis, box, (of(index), of(other))) for axis, box, other in faces(grid, index, making.dims)],
                making,
            ),
        )
        for index in grid.indices()
    )
    found: list[_Edges] = []
    failed = False
    for index, outcome in run_calls(workers.client, _edges, looks, in_flight=4 * workers.workers):
        if isinstance(outcome, str):
            failed = True
            yield Failure(index, LEVEL, outcome)
        else:
            found.append(outcome)
    if failed:
        return
    old, new = merged(np.concatenate([edges.pairs for edges in found]))
    work, calls = (
        _reshaping(sink, array, grid, making, missing, found, (old, new))
        if making.rule.changes
        else _renumbering(sink, array, grid, missing, (old, new))
    )
    del found  # the driver keeps what it tells regions, and no more
    for index, outcome in run_calls(workers.client, work, calls, in_flight=4 * workers.workers):
        yield Failure(index, LEVEL, outcome) if isinstance(outcome, str) else outcome


def _renumbering(
    sink: Sink, array: ArraySpec, grid: RegionGrid, missing: Sequence[Index], changed: Changes
) -> Work:
    """Return what is done where objects are their pieces."""
    changes = by_region(grid, *changed)
    none = np.empty(0, np.uint64)
    return _renumber, (
        (index, (sink, array, index, _box(grid, index), *changes.get(index, (none, none))))
        for index in missing
    )


def _reshaping(
    sink: Sink,
    array: ArraySpec,
    grid: RegionGrid,
    making: Making,
    missing: Sequence[Index],
    found: Sequence[_Edges],
    changed: Changes,
) -> Work:
    """Return what is done where objects are given another shape."""
    crossings = [edges.crossing for edges in found if edges.crossing is not None]
    dims, grow = making.dims, making.rule.grow
    objects = shape.gathered(crossings, *changed, dims)
    rows = shape.by_region(grid, objects.low, objects.high, dims=dims, grow=grow)
    large = shape.by_region(grid, objects.large.low, objects.large.high, dims=dims, grow=grow)
    nobody = np.zeros(0, np.intp)

    def told(index: Index) -> shape.Known:
        box = _box(grid, index)
        around = box.grown(grow, dims, within=grid.whole.in_space_and_time.shape)
        return shape.known(objects, rows.get(index, nobody), large.get(index, nobody), box, around)

    return _reshape, ((index, (sink, array, index, making, told(index))) for index in missing)


def _box(grid: RegionGrid, index: Index) -> Box:
    """Return where a region lies in the arrays of numbers, which have no channel axis."""
    return grid.box(index).relative_to(grid.whole).in_space_and_time


def faces(grid: RegionGrid, index: Index, dims: int) -> Iterator[tuple[str, Box, Index]]:
    """Yield the upper faces of a region that have a neighbour: axis across, a box two voxels thick, and that."""
    own = _box(grid, index)
    for place, axis in list(enumerate(grid.axes))[-dims:]:
        if index[place] + 1 < grid.counts[place]:
            _, stop = own.named[axis]
            other = (*index[:place], index[place] + 1, *index[place + 1 :])
            yield axis, own.along(axis, (stop - 1, stop + 1)), other


def by_region(
    grid: RegionGrid, old: NDArray[np.uint64], new: NDArray[np.uint64]
) -> dict[Index, tuple[NDArray[np.uint64], NDArray[np.uint64]]]:
    """Return the changes of each region: a piece's number is the place of a voxel of the region that made it."""
    if not len(old):
        return {}
    whole = grid.whole.in_space_and_time
    places = np.unravel_index((old - np.uint64(1)).astype(np.int64), whole.shape)
    found = dict(zip(whole.axes, places, strict=True))
    index = np.zeros((len(grid.axes), len(old)), np.int64)
    for number, (axis, regions) in enumerate(zip(grid.axes, grid.grids, strict=True)):
        if axis in found:
            index[number] = regions.holding(found[axis])
    order = np.lexsort(index[::-1])
    cuts = np.flatnonzero(np.any(np.diff(index[:, order], axis=1), axis=0)) + 1
    return {
        tuple(index[:, part[0]].tolist()): (np.sort(old[part]), new[part][np.argsort(old[part])])
        for part in np.split(order, cuts)
    }


def _edges(
    sink: Sink,
    grid: RegionGrid,
    index: Index,
    looks: list[tuple[str, Box, tuple[str, str]]],
    making: Making,
) -> _Edges:
    """Look at the edges of a region, on a worker."""
    crossing = None
    if making.rule.changes:
        box, whole = _box(grid, index), grid.whole.in_space_and_time
        numbers = sink.read_written(NUMBERS, 0, box.slices)
        crossing = shape.crossing(numbers, box, whole.relative_to(whole), making.dims, grow=making.rule.grow)  # type: ignore[arg-type] # numbers
    return _Edges(_meetings(sink, looks, making.several), crossing)


def _meetings(sink: Sink, looks: list[tuple[str, Box, tuple[str, str]]], several: bool) -> NDArray[np.uint64]:
    """Return the numbers that meet at a region's upper faces, each side read from where its numbers are."""
    found = [np.empty((0, 2), np.uint64)]
    for across, box, places in looks:
        low, high = box.named[across]
        halves = [box.along(across, span).slices for span in ((low, low + 1), (high - 1, high))]
        sides = [sink.read_written(name, 0, half) for name, half in zip(places, halves, strict=True)]
        sides += [sink.read_written(Classes.name, 0, half) for half in halves if several]
        found.append(touching(*sides))  # type: ignore[arg-type] # numbers, then classes
    return np.concatenate(found)


def _renumber(
    sink: Sink, array: ArraySpec, index: Index, box: Box, old: NDArray[np.uint64], new: NDArray[np.uint64]
) -> Record:
    """Write the numbers of a region's objects, on a worker."""
    began = time.perf_counter()
    values = sink.read_written(NUMBERS, 0, box.slices)
    with sink.attempted() as own:
        digest = own.write(array.name, 0, box.start, renumbered(values, old, new))  # type: ignore[arg-type] # numbers
        return graph.record(Entry(index, LEVEL, {array.name: digest}), began, attempt=own.attempt)


def _reshape(sink: Sink, array: ArraySpec, index: Index, making: Making, known: shape.Known) -> Record:
    """Write the numbers of a region's objects in their final shape, on a worker."""
    began = time.perf_counter()
    numbers = sink.read_written(NUMBERS, 0, known.window.slices)
    classes = sink.read_written(Classes.name, 0, known.window.slices) if making.several else None
    window = Window(
        shape.seen(numbers, known),  # type: ignore[arg-type] # numbers
        known.window.start,
        known.box.relative_to(known.window).slices,
        classes,  # type: ignore[arg-type] # whole numbers
    )
    values, unshaped = reshaped(
        window, known.whole, making.rule, dims=making.dims, shape=array.levels[0].shape
    )
    with sink.attempted() as own:
        entry = Entry(index, LEVEL, {array.name: own.write(array.name, 0, known.box.start, values)})
        return graph.record(entry, began, attempt=own.attempt, unshaped=unshaped)
