"""Whether an entry of the ledger can be of a plan: what cannot, whoever wrote it, does not make a region done."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unet_dask.io.sink import pyramid
from unet_dask.run.dependents import within
from unet_dask.run.making import LEVEL

if TYPE_CHECKING:
    from unet_dask.ledger import Entry
    from unet_dask.run.written import Written


def is_planned(plan: Written, entry: Entry) -> bool:
    """Return whether a finished piece of work is one of a plan, with a checksum of everything that it writes."""
    if entry.level > 0:
        return _is_block(plan, entry)
    if not len(plan.grid) or not within(entry.index, plan.grid.counts):
        return False
    # Numbers of objects are provisional until they are joined across regions: see unet_dask.run.join.
    joined = entry.level == LEVEL
    wanted = {array.name for array in plan.arrays if array.product.joined == joined}
    return set(entry.checksums) == wanted and (bool(wanted) or entry.level == 0)


def _is_block(plan: Written, entry: Entry) -> bool:
    """Return whether an entry is of a block of a pyramid's level."""
    number, *index = entry.index
    if number >= len(plan.arrays) or entry.level >= len(plan.arrays[number].levels):
        return False
    array = plan.arrays[number]
    return set(entry.checksums) == {array.name} and within(index, pyramid.block_counts(array, entry.level))
