"""The second proof of a network of others: on the user's own data.

What was measured of a network was measured on images that we made. So before a run a few tiles of the user's image are
run twice, as they are and with what lies beyond them mirrored in place of the network's own padding: within the halo
nothing may change.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from unet_dask.engine.cache import network
from unet_dask.engine.foreign import OnnxBackend
from unet_dask.engine.heap import give_back
from unet_dask.engine.slots import computing
from unet_dask.model.file import normalise
from unet_dask.tiling.valid import aligned

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from unet_dask.engine.cache import NetworkKey
    from unet_dask.model.header import Normalisation

#: Pixels that a tile is extended by at each end, at least.
_BEYOND = 16


def dependence(key: NetworkKey, tile: NDArray[np.generic], normalisation: Normalisation) -> float:
    """Return how far the core of a tile of grey values changes with what is beyond the tile, relative to the largest.

    It should not at all, but for rounding.
    """
    normalised = normalise(tile, normalisation)
    with computing:
        backend = network(key)
        assert isinstance(backend, OnnxBackend)
        beyond = [aligned(_BEYOND, stride) for stride in backend.spec.stride]
        extended = np.pad(normalised, [(0, 0), *((more, more) for more in beyond)], mode="reflect")
        alone, within = backend.logits(normalised), backend.logits(extended)
        give_back()  # the tiles of the run have other sizes
    inner = tuple(slice(more, more + side) for more, side in zip(beyond, alone.shape[1:], strict=True))
    apart = np.abs(within[(slice(None), *inner)] - alone)
    return float(apart.max()) / max(1.0, float(np.abs(alone).max()))
