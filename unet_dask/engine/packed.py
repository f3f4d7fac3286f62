"""The layers of a network in floating point, as oneDNN runs them fastest on a CPU.

Filters are put in the order of its kernels once, and a ReLU is done within its convolution; by itself torch does
neither. In 16 bits an up-convolution, whose stride is its kernel, is a convolution 1 wide that makes all corners of a
pixel: twice as fast. Where oneDNN is not there, torch's own modules do the same.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from unet_dask.engine.stream import Layers
from unet_dask.model.step import Kind

if TYPE_CHECKING:
    from unet_dask.engine.stream import Convolution
    from unet_dask.model.network import Network

#: Side of the feature maps for whose size oneDNN is asked for the best order of filters; those of a strip have hundreds
#: of pixels. If it is told none it takes an order that its kernels for AMX put right again for every strip: at width 24
#: that was two thirds of the time.
USUAL_SIDE = 64
#: What a ReLU makes of negative values, times them: nothing, in any sum. oneDNN's own ReLU makes 0 of what is not a
#: number too, so that a broken network, or grey values that overflow, would look like background.
_NOTHING = 1e-30


class TorchLayer:
    """A convolution that torch runs as it is, or that somebody put in the place of one.

    Parameters
    ----------
    module : with the `weight` of a convolution, or of an up-convolution
    relu : whether a ReLU follows
    """

    def __init__(self, module: nn.Module, *, relu: bool) -> None:
        weight = module.weight
        assert isinstance(weight, Tensor)
        self.outgoing, self.incoming = weight.shape[:2]
        if isinstance(module, nn.ConvTranspose2d | nn.ConvTranspose3d):
            self.incoming, self.outgoing = len(weight), weight[0].numel()
        self.filter_bytes = weight.nbytes
        self._module, self._relu = module, relu

    def __call__(self, features: Tensor) -> Tensor:
        """Return (1, f, y - 2, x - 2), or (1, f, 2 y, 2 x), for (1, incoming, y, x)."""
        made: Tensor = self._module(features)
        return made.relu_() if self._relu else made


class PackedConvolution:
    """A convolution of oneDNN.

    Parameters
    ----------
    weight : (outgoing, incoming, *kernel)
    bias : (outgoing); None for zeros
    relu : whether a ReLU follows
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, *, relu: bool) -> None:
        self.outgoing, self.incoming = weight.shape[:2]
        self.filter_bytes = weight.nbytes
        dims = weight.dim() - 2
        none, one = [0] * dims, [1] * dims
        self._weight = torch.ops.mkldnn._reorder_convolution_weight(  # noqa: SLF001 # its only name
            weight, none, one, one, 1, [1, self.incoming, *(USUAL_SIDE,) * dims]
        )
        after, scalars = ("leaky_relu", [_NOTHING]) if relu else ("none", [])
        self._arguments: tuple[object, ...] = (bias, none, one, one, 1, after, scalars, "")

    def __call__(self, features: Tensor) -> Tensor:
        """Return (1, outgoing, y - 2, x - 2) for (1, incoming, y, x)."""
        made: Tensor = torch.ops.mkldnn._convolution_pointwise(features, self._weight, *self._arguments)  # noqa: SLF001 # its only name
        return made


class PackedUpConvolution:
    """An up-convolution (N2) of oneDNN.

    Parameters
    ----------
    module : whose stride is its width
    """

    def __init__(self, module: nn.ConvTranspose2d | nn.ConvTranspose3d) -> None:
        self.incoming, self.outgoing = len(module.weight), module.weight[0].numel()
        self.filter_bytes = module.weight.nbytes
        dims = module.weight.dim() - 2
        none, one, wide = [0] * dims, [1] * dims, list(module.weight.shape[2:])
        self._weight = torch.ops.mkldnn._reorder_convolution_transpose_weight(  # noqa: SLF001 # its only name
            module.weight, none, none, wide, one, 1, [1, self.incoming, *(USUAL_SIDE,) * dims]
        )
        self._arguments: tuple[object, ...] = (module.bias, none, none, wide, one, 1, "none", [], "")

    def __call__(self, features: Tensor) -> Tensor:
        """Return (1, incoming / 2, 2 y, 2 x) for (1, incoming, y, x)."""
        run = torch.ops.mkldnn._convolution_transpose_pointwise  # noqa: SLF001 # its only name
        made: Tensor = run(features, self._weight, *self._arguments)
        return made


def packed(network: Network) -> Layers:
    """Return the layers of a network on the CPU, batch normalisation folded, in evaluation mode."""
    convolutions = [
        _up(module) if step.kind is Kind.UP else _convolution(module, relu=step.kind is Kind.CONVOLVE)
        for step, module in network.filters()
    ]
    dtype = next(network.parameters()).dtype
    return Layers(network.spec, dtype, dtype, convolutions)


def as_corners(module: nn.ConvTranspose2d | nn.ConvTranspose3d) -> tuple[Tensor, Tensor | None]:
    """Return an up-convolution (N2) as filters and biases of a convolution 1 wide that makes all corners of a pixel.

    Returns
    -------
    (4 f, incoming, 1, 1) and (4 f) for a factor of 2 in 2-D, channels within corners
    """
    channels, made, *kernel = module.weight.shape
    corners = math.prod(kernel)
    weight = module.weight.permute(*range(2, 2 + len(kernel)), 1, 0)
    weight = weight.reshape(corners * made, channels, *(1,) * len(kernel))
    return weight, None if module.bias is None else module.bias.repeat(corners)


def _convolution(module: nn.Module, *, relu: bool) -> Convolution:
    if isinstance(module, nn.Conv2d | nn.Conv3d) and _onednn():
        return PackedConvolution(module.weight, module.bias, relu=relu)
    return TorchLayer(module, relu=relu)


def _up(module: nn.Module) -> Convolution:
    assert isinstance(module, nn.ConvTranspose2d | nn.ConvTranspose3d)
    if not _onednn():
        return TorchLayer(module, relu=False)
    # In float32 the best order of filters that are 1 wide depends on every map's size, and it is no faster.
    if module.weight.dtype == torch.float32:
        return PackedUpConvolution(module)
    return PackedConvolution(*as_corners(module), relu=False)


def _onednn() -> bool:
    """Return whether oneDNN is there, with the convolutions whose weights are put in order beforehand."""
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_convolution_pointwise")  # type: ignore[no-untyped-call] # torch has no type for it
