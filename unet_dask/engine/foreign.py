"""Networks of others, run by ONNX Runtime."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from unet_dask.model.foreign.graph import Graph


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
