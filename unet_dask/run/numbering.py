"""Numbers of pieces, made of what a result has stored: where regions did not leave any, or could not.

A region that has just been computed numbers its own pieces while their classes are at hand. Basins need a voxel of what
lies around a region, which is there when all regions are; and whoever makes the objects of a finished result anew
finds no numbers any more.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from unet_dask import graph
from unet_dask.io.sink.files import stored_chunks
from unet_dask.io.sink.place import NUMBERS
from unet_dask.ledger import Entry
from unet_dask.objects.pieces import numbered
from unet_dask.products.classes import Classes
from unet_dask.run.dependents import region_box
from unet_dask.run.making import ASIDE_LEVEL

if TYPE_CHECKING:
    from collections.abc import Iterable

    from unet_dask.graph import Record
    from unet_dask.io.sink.store import Sink
    from unet_dask.run.making import Index, Making


def unnumbered(sink: Sink, making: Making, indices: Iterable[Index]) -> list[Index]:
    """Return the regions among some whose numbers are not there."""
    there = stored_chunks(sink, making.array, NUMBERS)

    def whole(index: Index) -> bool:
        units = region_box(making.grid, making.array, index).units(making.array.write_unit)
        return bool(there[tuple(slice(each.start, each.stop) for each in units)].all())

    return [index for index in indices if not whole(index)]


def number(sink: Sink, making: Making, index: Index) -> Record:
    """Give numbers to the pieces of a region by what is stored of it, and put them aside, on a worker."""
    began = time.perf_counter()
    box = making.box(index)
    numbers = numbered(
        sink.read_written(Classes.name, 0, box.slices),  # type: ignore[arg-type] # whole numbers
        start=box.start,
        shape=making.shape,
        dims=making.dims,
        dtype=making.array.dtype,
        core=making.rule.core,
    )
    with sink.attempted() as own:
        own.write(NUMBERS, 0, box.start, numbers)
        return graph.record(Entry(index, ASIDE_LEVEL), began, attempt=own.attempt)
