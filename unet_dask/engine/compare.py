"""What one tile says of ways to run a network: whether two class it alike, and how far its feature maps reach."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from unet_dask.engine import gpu
from unet_dask.engine.backend import TorchBackend
from unet_dask.engine.cache import network
from unet_dask.engine.heap import give_back
from unet_dask.engine.ranges import BeyondRangesError
from unet_dask.engine.slots import computing
from unet_dask.errors import DataError
from unet_dask.model.file import normalise

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from unet_dask.engine.cache import NetworkKey
    from unet_dask.engine.ranges import Ranges
    from unet_dask.model.header import Normalisation


def agreement(
    key: NetworkKey,
    reference: NetworkKey,
    tile: NDArray[np.generic],
    normalisation: Normalisation,
    inside: NDArray[np.bool_],
) -> tuple[int, int] | None:
    """Return how many of some voxels of a tile of grey values two ways to run a network class alike, and of how many.

    None if the tile reaches beyond what bytes can say: the run would do it in float32 anyway.
    """
    normalised = normalise(tile, normalisation)
    classes = []
    with computing:
        for each in (key, reference):
            try:
                classes.append(network(each).logits(normalised).argmax(axis=0))
            except BeyondRangesError:
                return None
            finally:
                give_back()  # the other's feature maps, and those of the run, have other sizes
                gpu.give_back()
    return int(np.count_nonzero((classes[0] == classes[1]) & inside)), int(np.count_nonzero(inside))


def ranges(key: NetworkKey, tile: NDArray[np.generic], normalisation: Normalisation) -> Ranges:
    """Return how far the feature maps of a network of torch reach on a tile of grey values."""
    normalised = normalise(tile, normalisation)
    with computing:
        backend = network(key)
        assert isinstance(backend, TorchBackend)
        found = backend.ranges(normalised)
        give_back()  # feature maps of bytes would not fit into the gaps
    if not np.isfinite(found).all():
        raise DataError(
            "The network's output is not finite on a tile of the source. Use a model for such images."
        )
    return found
