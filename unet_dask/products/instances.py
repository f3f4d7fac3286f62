"""The product `instances`: of every voxel the number of its object, 0 for background.

A region keeps its classes; objects are numbered once it is whole, and joined across regions once all are: see
:mod:`unet_dask.objects.pieces` and :mod:`unet_dask.run.join`.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from unet_dask.errors import OptionError
from unet_dask.products.classes import Classes, keep_classes
from unet_dask.products.coarse import first
from unet_dask.products.colour import in_own_colours
from unet_dask.products.product import Product

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from numpy.typing import NDArray

    from unet_dask.products.colour import Veil


class Instances(Product):
    """A label image of objects."""

    __slots__ = ()

    name = "instances"
    types = ("uint32", "uint64", "uint16")
    of_classes = True
    joined = True

    @classmethod
    def type_for(cls, shape: Sequence[int], *, probability: str) -> str:
        """Return the smallest type that has a number for every voxel."""
        del probability
        return number_type(shape)

    @classmethod
    def require(cls, products: Collection[str], classes: int) -> None:
        """Raise unless what tells objects of several classes apart is kept."""
        if classes > 2 and Classes.name not in products:
            raise OptionError(
                f"Objects of a network of {classes} classes are told apart by their classes. Use --products "
                f"{','.join((Classes.name, *products))}."
            )

    def keep(self, probabilities: NDArray[np.float32], values: NDArray[np.generic]) -> None:
        """Write the most probable classes: they are numbered later."""
        keep_classes(probabilities, values)

    def coarser(self, block: NDArray[np.generic], step: Sequence[int]) -> NDArray[np.generic]:
        """Return the number of the first voxel."""
        return first(block, step)

    def described(self, class_names: Sequence[str]) -> dict[str, Any]:
        """Return that it is a label image, whose numbers have no colours of their own."""
        del class_names
        return {"image-label": {}}

    def painted(self, plane: NDArray[Any], choice: str) -> Veil:
        """Return every object in a colour of its own."""
        del choice
        return in_own_colours(plane)


def number_type(shape: Sequence[int]) -> str:
    """Return the smallest type that numbers every voxel, with background below, room to grow and the sentinel above.

    Examples
    --------
    >>> number_type((1000, 1000)), number_type((100_000, 100_000))
    ('uint32', 'uint64')
    """
    return "uint32" if prod(map(int, shape)) < np.iinfo(np.uint32).max - 1 else "uint64"
