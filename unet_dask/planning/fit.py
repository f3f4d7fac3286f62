"""Whether a source, a network and the wanted products fit each other, asked before anything is planned."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unet_dask.errors import ModelError, OptionError
from unet_dask.instances import number_type

if TYPE_CHECKING:
    from collections.abc import Sequence

    from unet_dask.io.source.volume import Source
    from unet_dask.model.header import ModelHeader


def product_types(
    names: Sequence[str], probability_dtype: str, source: Source, header: ModelHeader
) -> dict[str, str]:
    """Return the type of the values of each product.

    Raises
    ------
    OptionError
        If objects are asked for and what tells them apart is not.
    """
    classes = header.network.classes
    if "instances" in names and classes > 2 and "classes" not in names:
        raise OptionError(
            f"Objects of a network of {classes} classes are told apart by their classes. Use --products "
            f"classes,{','.join(names)}."
        )
    voxels = [size for axis, size in zip(source.axes, source.shape, strict=True) if axis != "c"]
    types = {"classes": "uint8", "probabilities": probability_dtype, "instances": number_type(voxels)}
    return {name: types[name] for name in names}


def check_fit(source: Source, header: ModelHeader) -> None:
    """Raise unless the network can be run on the source."""
    network = header.network
    channels = source.shape[source.axes.index("c")]
    if channels != network.channels:
        raise ModelError(
            f"The model takes {network.channels} channel(s), but {source.name} has {channels}. Choose with "
            f"--channels, such as --channels {','.join(map(str, range(network.channels)))}, or say with --axes which "
            "axis the channels are."
        )
    if network.dims == 3 and "z" not in source.axes:
        raise ModelError(
            f"The model is three-dimensional, but {source.name} has the axes {source.axes}, without z. Use a 2-D "
            "model, or name the axes with --axes."
        )
