"""What regions write of their objects once it is known which numbers are one: renumbered, or in their final shape."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np

from unet_dask import graph
from unet_dask.io.sink.place import NUMBERS, SHAPED
from unet_dask.ledger import Entry
from unet_dask.objects.neurites import finished
from unet_dask.objects.pieces import renumbered
from unet_dask.objects.region import Window, reshaped
from unet_dask.products.classes import Classes
from unet_dask.run import shape
from unet_dask.run.making import ASIDE_LEVEL, LEVEL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from unet_dask.graph import Record
    from unet_dask.io.sink.store import Sink
    from unet_dask.objects.pieces import Changes
    from unet_dask.run.making import Index, Making
    from unet_dask.run.naming import LastNames
    from unet_dask.run.shape import Crossing
    from unet_dask.tiling.box import Box
    from unet_dask.tiling.region import RegionGrid

    #: What workers call, and with what for each region.
    Work = tuple[Callable[..., Record], Iterator[tuple[Index, tuple[Any, ...]]]]

_NONE = np.empty(0, np.uint64)


def renumbering(sink: Sink, making: Making, regions: Sequence[Index], place: str, changed: Changes) -> Work:
    """Return what is done where objects are their pieces, or basins that have become one.

    Parameters
    ----------
    sink, making : of the objects
    regions : to write
    place : array to write them to
    changed : numbers of pieces that are joined to others, or go
    """
    changes, grow = by_region(making.grid, *changed), making.rule.grow

    def told(index: Index) -> tuple[Box, Changes]:
        around = making.box(index).grown(grow, making.dims, within=making.shape)
        met, _ = making.grid.meeting(*(np.array([ends]) for ends in zip(*around.spans, strict=True)))
        near = zip(*(each.tolist() for each in np.unravel_index(met, making.grid.counts)), strict=True)
        known = [changes[each] for each in near if each in changes]
        old, new = (
            (np.concatenate([_NONE, *each]) for each in zip(*known, strict=True)) if known else (_NONE, _NONE)
        )
        order = np.argsort(old)
        return around, (old[order], new[order])

    return _renumber, ((index, (sink, making, index, (NUMBERS, place), *told(index))) for index in regions)


def renaming(sink: Sink, making: Making, regions: Sequence[Index], place: str, names: LastNames) -> Work:
    """Return what is done where objects have been put aside and have their last names now."""
    return _rename, ((index, (sink, making, index, place, names.of(index))) for index in regions)


def reshaping(
    sink: Sink,
    making: Making,
    regions: Sequence[Index],
    place: str,
    changed: Changes,
    crossings: Sequence[Crossing],
) -> Work:
    """Return what is done where objects are given another shape.

    Parameters
    ----------
    sink, making, regions, place, changed : as of `renumbering`
    crossings : pieces that cross from region to region, of all regions
    """
    grid, dims, grow = making.grid, making.dims, making.rule.grow
    objects = shape.gathered(crossings, *changed, dims)
    rows = shape.by_region(grid, objects.low, objects.high, dims=dims, grow=grow)
    large = shape.by_region(grid, objects.large.low, objects.large.high, dims=dims, grow=grow)
    nobody = np.zeros(0, np.intp)

    def told(index: Index) -> shape.Known:
        box = making.box(index)
        around = box.grown(grow, dims, within=grid.whole.in_space_and_time.shape)
        return shape.known(objects, rows.get(index, nobody), large.get(index, nobody), box, around)

    return _reshape, ((index, (sink, making, index, place, told(index))) for index in regions)


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


def _renumber(
    sink: Sink, making: Making, index: Index, places: tuple[str, str], around: Box, changes: Changes
) -> Record:
    """Write the numbers of a region's objects from one array to another, on a worker."""
    began, box = time.perf_counter(), making.box(index)
    numbers = sink.read_written(places[0], 0, around.slices)
    made = finished(numbers, changes, grow=making.rule.grow, dims=making.dims)  # type: ignore[arg-type] # numbers
    own = box.relative_to(around).slices
    return _written(sink, index, places[1], box.start, np.ascontiguousarray(made[own]), began)


def _rename(sink: Sink, making: Making, index: Index, place: str, changes: Changes) -> Record:
    """Write the objects of a region that were put aside, by their last names, on a worker."""
    began, box = time.perf_counter(), making.box(index)
    values = sink.read_written(SHAPED, 0, box.slices)
    return _written(sink, index, place, box.start, renumbered(values, *changes), began)  # type: ignore[arg-type] # numbers


def _reshape(sink: Sink, making: Making, index: Index, place: str, known: shape.Known) -> Record:
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
    values, unshaped = reshaped(window, known.whole, making.rule, dims=making.dims, shape=making.shape)
    return _written(sink, index, place, known.box.start, values, began, unshaped)


def _written(
    sink: Sink,
    index: Index,
    place: str,
    start: Sequence[int],
    values: NDArray[np.unsignedinteger],
    began: float,
    unshaped: int = 0,
) -> Record:
    """Write the objects of a region, and return the record of it; of what is put aside none is kept."""
    with sink.attempted() as own:
        digest = own.write(place, 0, start, values)
        entry = Entry(index, ASIDE_LEVEL) if place == SHAPED else Entry(index, LEVEL, {place: digest})
        return graph.record(entry, began, attempt=own.attempt, unshaped=unshaped)
