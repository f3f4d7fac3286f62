"""What runs a network: one small protocol, and the backend that is always there.

GPUs have one of their own (`engine.gpu`), and so have int8 networks (`engine.integer`) and those of others
(`engine.foreign`).

A backend is loaded once per process and called with one tile at a time. Without a mask these have one shape, so every
tile of a run passes the same kernels, and equal tiles give equal bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import torch

from unet_dask.choices import BackendName, Device, Precision
from unet_dask.engine.device import require_backend, require_precision, torch_dtype
from unet_dask.engine.nnpack import with_nnpack
from unet_dask.engine.packed import packed
from unet_dask.engine.ranges import feature_ranges
from unet_dask.engine.stream import streamed
from unet_dask.model.folding import for_inference
from unet_dask.model.foreign.graph import Graph
from unet_dask.model.network import layout
from unet_dask.model.strips import streams

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from unet_dask.engine.ranges import Ranges
    from unet_dask.model.file import Model
    from unet_dask.model.network import Network


class Backend(Protocol):
    """Something that runs one network on one device."""

    def logits(self, tile: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return logits of (classes, *core) for a normalised tile of (c, *input); the caller's until the next call."""
        ...


class TorchBackend:
    """Plain torch, channels last, batch normalisation folded into the convolutions.

    Parameters
    ----------
    model : to run; it is not changed
    device : "cpu" or "mps"
    precision : "float32", "bfloat16" or "float16"
    convolutions : replaces some of the network's, in place
    """

    def __init__(
        self,
        model: Model,
        *,
        device: str,
        precision: str,
        convolutions: Callable[[Network], Network] | None = None,
    ) -> None:
        network = for_inference(model.ours)
        self._layout = layout(model.header.network.dims)
        self._dtype = torch_dtype(precision)
        self._device = torch.device(device)
        if convolutions:
            network = convolutions(network)
        self._network = network.to(device=self._device, dtype=self._dtype)
        self._layers = packed(self._network) if device == Device.CPU and streams(network.spec) else None

    def logits(self, tile: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return float32 logits for a normalised tile."""
        with torch.inference_mode():
            if self._layers:
                return streamed(self._layers, tile)
            image = torch.from_numpy(tile)[None].to(self._device, self._dtype)
            output = self._network(image.contiguous(memory_format=self._layout))[0]
            logits: NDArray[np.float32] = output.float().cpu().numpy()
        return logits

    def ranges(self, tile: NDArray[np.float32]) -> Ranges:
        """Return the smallest and largest value of every feature map for a normalised tile, on a CPU."""
        assert self._layers
        with torch.inference_mode():
            return feature_ranges(self._layers, tile)


def load_backend(name: str, model: Model, *, device: str, precision: str, ranges: Ranges = ()) -> Backend:
    """Return the backend of this name with a network loaded.

    Parameters
    ----------
    name : "torch" or "nnpack"
    model : to run
    device, precision : of the network, each chosen already
    ranges : of its feature maps, for "int8" alone

    Raises
    ------
    OptionError
        If there is no such backend, or not for this network, device or precision.
    """
    require_backend(name, device=device, precision=precision, network=model.header.network)
    require_precision(precision, device)
    if isinstance(model.network, Graph):
        from unet_dask.engine.foreign import OnnxBackend

        return OnnxBackend(model.network)
    if precision == Precision.INT8:
        from unet_dask.engine.integer import IntegerBackend

        return IntegerBackend(model, ranges)
    if device == Device.CUDA:
        from unet_dask.engine.gpu import GpuBackend

        return GpuBackend(model, precision=precision)
    convolutions = with_nnpack if name == BackendName.NNPACK else None
    return TorchBackend(model, device=device, precision=precision, convolutions=convolutions)
