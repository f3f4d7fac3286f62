"""What a run writes: the arrays and regions of a plan, or of a result that is there."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Protocol

from unet_dask.io.sink import pyramid
from unet_dask.run.dependents import region_box
from unet_dask.run.making import LEVEL, joined_array

if TYPE_CHECKING:
    from collections.abc import Iterator

    from unet_dask.io.sink.store import ArraySpec
    from unet_dask.ledger import Key
    from unet_dask.objects.rule import ObjectRule
    from unet_dask.tiling.region import RegionGrid


class Written(Protocol):
    """A plan, or a result; both know it."""

    @property
    def arrays(self) -> tuple[ArraySpec, ...]:
        """Of the products."""

    @property
    def grid(self) -> RegionGrid:
        """Of the regions."""

    @property
    def rule(self) -> ObjectRule:
        """By which objects are made."""

    @property
    def dims(self) -> int:
        """Axes along which the network looks."""

    @property
    def classes(self) -> int:
        """Classes of the network, background among them."""


def planned(written: Written) -> Iterator[Key]:
    """Yield the key of every piece of work."""
    joins = bool(joined_array(written.arrays))
    for index in written.grid.indices():
        yield 0, index
        if joins:
            yield LEVEL, index
    for number, array in enumerate(written.arrays):
        for level in range(1, len(array.levels)):
            for block in pyramid.block_indices(array, level):
                yield level, (number, *block)


def total_work(written: Written) -> int:
    """Return the pieces of work: regions, twice if their objects are joined, and blocks of all pyramids."""
    blocks = sum(
        1
        for array in written.arrays
        for level in range(1, len(array.levels))
        for _ in pyramid.block_indices(array, level)
    )
    return len(written.grid) * (1 + bool(joined_array(written.arrays))) + blocks


def files_of(written: Written, key: Key) -> int:
    """Return how many files a piece of work writes."""
    level, index = key
    if level > 0:
        array = written.arrays[index[0]]
        boxes = [(array, pyramid.block_box(array, level, index[1:]))]
    else:
        boxes = [
            (array, region_box(written.grid, array, index))
            for array in _of_region(written, objects=level < 0)
        ]
    return sum(math.prod(map(len, box.units(array.write_unit))) for array, box in boxes)


def _of_region(written: Written, *, objects: bool) -> Iterator[ArraySpec]:
    """Yield what is written with a region: where it is computed its pieces are numbered, unless they are basins."""
    for array in written.arrays:
        if array.product.joined == objects or (array.product.joined and not written.rule.threshold):
            yield array
