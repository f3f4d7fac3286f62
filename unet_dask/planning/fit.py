"""Whether a source, a network and the wanted products fit each other, asked before anything is planned."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unet_dask.axes import has_depth, without_channel
from unet_dask.errors import ModelError, OptionError
from unet_dask.products import PRODUCTS, product_of
from unet_dask.products.probabilities import Probabilities

if TYPE_CHECKING:
    from collections.abc import Sequence

    from unet_dask.io.source.volume import Source
    from unet_dask.model.header import ModelHeader
    from unet_dask.objects.rule import ObjectRule
    from unet_dask.products import Product


def wanted_products(
    names: Sequence[str], probability_dtype: str, source: Source, header: ModelHeader, rule: ObjectRule
) -> tuple[Product, ...]:
    """Return the products of a run whose objects are made by a rule.

    Raises
    ------
    OptionError
        If one cannot be made beside the others.
    """
    voxels = [source.sizes[axis] for axis in without_channel(source.axes)]
    for name in names:
        PRODUCTS[name].require(names, 2 if rule.core or rule.threshold else header.network.classes)
    if rule.threshold and any(PRODUCTS[name].joined for name in names) and Probabilities.name not in names:
        raise OptionError(
            f"Neurites are made of probabilities. Use --products {','.join((Probabilities.name, *names))}."
        )
    return tuple(
        product_of(name, PRODUCTS[name].type_for(voxels, probability=probability_dtype)) for name in names
    )


def check_fit(source: Source, header: ModelHeader) -> None:
    """Raise unless the network can be run on the source."""
    network = header.network
    channels = source.sizes["c"]
    if channels != network.channels:
        raise ModelError(
            f"The model takes {network.channels} channel(s), but {source.name} has {channels}. Choose with "
            f"--channels, such as --channels {','.join(map(str, range(network.channels)))}, or say with --axes which "
            "axis the channels are."
        )
    if network.dims == 3 and not has_depth(source.axes):
        raise ModelError(
            f"The model is three-dimensional, but {source.name} has the axes {source.axes}, without z. Use a 2-D "
            "model, or name the axes with --axes."
        )
