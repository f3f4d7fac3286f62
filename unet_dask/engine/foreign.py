"""Networks of others, run by ONNX Runtime; and their second proof, on the user's own data.

What was measured of a network was measured on images that we made. So before a run a few tiles of the user's image are
run twice, as they are and with what lies beyond them mirrored in place of the network's own padding: within the halo
nothing may change.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from unet_dask.engine.cache import network
from unet_dask.engine.heap import give_back
from unet_dask.engine.slots import computing
from unet_dask.model.file import normalise
from unet_dask.tiling.valid import aligned

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from unet_dask.engine.cache import NetworkKey
    from unet_dask.model.foreign.graph import Graph
    from unet_dask.model.header import Normalisation

#: Pixels that a tile is extended by at each end, at least.
_BEYOND = 16


class OnnxBackend:
    """A network of others on the processor, in float32.

    Parameters
    ----------
    graph : with what was measured of it
    """

    def __init__(self, graph: Graph) -> None:
        self.spec = graph.spec
        # As many threads as torch may use in this process: `engine.device.use_threads` has said it.
        self._session = graph.session(torch.get_num_threads())

    def logits(self, tile: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the output for a normalised tile, of which what lacks context is cropped."""
        spec = self.spec
        made = self._session.run(tile)
        kept = tuple(
            slice(halo - offset, halo - offset + side - 2 * halo)
            for halo, offset, side in zip(spec.halo, spec.offset, tile.shape[1:], strict=True)
        )
        return np.ascontiguousarray(made[(slice(None), *kept)])


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
