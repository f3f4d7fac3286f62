"""How the objects of a run are made: what every step of that stage has to know."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from unet_dask.products.classes import Classes
from unet_dask.products.probabilities import Probabilities

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from unet_dask.io.sink.store import ArraySpec
    from unet_dask.objects.rule import ObjectRule
    from unet_dask.tiling.box import Box
    from unet_dask.tiling.region import RegionGrid

Index = tuple[int, ...]

#: Of the ledger's entries of objects; they come after the regions, which are 0, and before the pyramid.
LEVEL = -1
#: Of work that is put aside, which no ledger holds: what it makes depends on the regions alone and can be made again.
ASIDE_LEVEL = -2


def joined_array(arrays: Sequence[ArraySpec]) -> ArraySpec | None:
    """Return the array whose values are joined across regions, None if there is none."""
    return next((array for array in arrays if array.product.joined), None)


def stored_source(names: Collection[str], rule: ObjectRule) -> str | None:
    """Return the product that numbers of pieces can be made of, None if a result does not have it."""
    source = Probabilities.name if rule.threshold else Classes.name
    return source if source in names else None


@dataclass(frozen=True, slots=True)
class Making:
    """How objects are made.

    Attributes
    ----------
    array : of the objects
    grid : of the regions
    dims : last axes along which pieces are connected
    several : whether there is more than one class beside background, so that classes must be compared
    rule : what is done to each object once it is joined
    source : product of the result that numbers of pieces can be made of; None if it is not kept
    """

    array: ArraySpec
    grid: RegionGrid
    dims: int
    several: bool
    rule: ObjectRule
    source: str | None = None

    @classmethod
    def of(
        cls, arrays: Sequence[ArraySpec], grid: RegionGrid, *, dims: int, classes: int, rule: ObjectRule
    ) -> Making:
        """Return how the objects of a result are made, of a network of so many dimensions and classes."""
        array = joined_array(arrays)
        assert array is not None
        source = stored_source({each.name for each in arrays}, rule)
        return cls(array, grid, dims, classes > 2 and not rule.core and not rule.threshold, rule, source)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the array of objects."""
        return self.array.levels[0].shape

    def box(self, index: Index) -> Box:
        """Return where a region lies in arrays of numbers, which have no channel axis."""
        return self.grid.box(index).relative_to(self.grid.whole).in_space_and_time
