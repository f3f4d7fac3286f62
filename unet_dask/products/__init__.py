"""Products: what a run makes of the network's output, and everything that somebody has to know of it.

A product is one class (`products.product`) and one line here. Whoever computes, stores, coarsens, verifies, draws or
reads products asks the class, and compares no names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from unet_dask.products.classes import Classes
from unet_dask.products.instances import Instances
from unet_dask.products.probabilities import Probabilities

if TYPE_CHECKING:
    from collections.abc import Iterable

    from unet_dask.products.product import Product as Product

#: Every product that a run can make, by its name, in the order in which people are told of them. A line here is known
#: to every process, and to the commands and their help; what a program puts into it while it runs is known to that
#: process alone, and not to the workers of a run unless they are its threads.
PRODUCTS: dict[str, type[Product]] = {
    Classes.name: Classes,
    Probabilities.name: Probabilities,
    Instances.name: Instances,
}


def in_order(products: Iterable[Product]) -> list[Product]:
    """Return products as pictures show them: numbers before amounts."""
    order = list(PRODUCTS)
    return sorted(products, key=lambda product: (product.amounts, order.index(product.name)))


def by_information() -> list[type[Product]]:
    """Return the products by how much a prediction of them tells, most first: amounts before numbers."""
    return sorted(PRODUCTS.values(), key=lambda kind: not kind.amounts)


def product_of(name: str, dtype: str) -> Product:
    """Return a product whose values have a type.

    Examples
    --------
    >>> product_of("classes", "uint8").unwritten
    255
    """
    return PRODUCTS[name](dtype)
