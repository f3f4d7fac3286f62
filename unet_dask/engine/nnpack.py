"""Convolutions of NNPACK, which torch carries along: Winograd's, in tiles of 8 x 8 pixels, F(6x6, 3x3) of [1]_.

A 3x3 filter takes 64 multiplications for 36 pixels instead of 324. What the transforms lose is small, about 1e-4 of a
probability, but more than float32 promises; a run therefore compares it on the user's own data first. For processors
without native bfloat16.

References
----------
.. [1] Lavin, Gray: "Fast algorithms for convolutional neural networks", CVPR 2016.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from unet_dask.errors import OptionError
from unet_dask.model.cost import NNPACK_STRIP

if TYPE_CHECKING:
    from unet_dask.model.network import Network

#: Channels in and out from which on it is faster than torch's own convolution, by measurement.
_LEAST = 64
#: Side of a tile of the output, and bytes of its transform per channel.
_TILE, _TRANSFORMED = 6, 8 * 8 * 4


class NnpackConvolution(nn.Module):
    """A 3x3 convolution of stride 1 without padding.

    Parameters
    ----------
    convolution : to replace, float32, on the CPU
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.register_buffer(
            "weight", convolution.weight.detach().clone(memory_format=torch.contiguous_format)
        )
        bias = convolution.bias
        self.register_buffer("bias", torch.zeros(len(self.weight)) if bias is None else bias.detach().clone())

    def forward(self, features: Tensor) -> Tensor:
        """Return (b, o, y - 2, x - 2), channels last, for (b, c, y, x)."""
        batch, _, high, wide = features.shape
        outgoing, incoming = self.weight.shape[:2]
        convolved = torch.empty(
            (batch, outgoing, high - 2, wide - 2), memory_format=torch.channels_last, dtype=features.dtype
        )
        # It keeps the transforms of all tiles that it is given, so it is given a strip of rows at a time.
        strip = _TILE * max(NNPACK_STRIP // (_TRANSFORMED * (incoming + outgoing) * -(-wide // _TILE)), 1)
        for first in range(0, high - 2, strip):
            convolved[:, :, first : first + strip] = torch.ops.aten._nnpack_spatial_convolution(  # noqa: SLF001 # its only name
                features[:, :, first : first + strip + 2].contiguous(), self.weight, self.bias, [0, 0], [1, 1]
            )
        return convolved


def with_nnpack(network: Network) -> Network:
    """Replace the 3x3 convolutions that gain by it, in place.

    Parameters
    ----------
    network : 2-D, float32, on the CPU, batch normalisation folded

    Raises
    ------
    OptionError
        If this torch was built without NNPACK, or it does not know this processor.
    """
    if not torch.backends.nnpack.is_available():  # type: ignore[no-untyped-call] # torch's own
        raise OptionError("NNPACK is not there, or does not know this processor. Use --backend torch.")
    for sequence in [module for module in network.modules() if isinstance(module, nn.Sequential)]:
        for index, module in enumerate(sequence):
            if isinstance(module, nn.Conv2d) and _gains(module):
                sequence[index] = NnpackConvolution(module)
    return network


def _gains(convolution: nn.Conv2d) -> bool:
    """Return whether NNPACK can do a convolution, and faster."""
    least = min(convolution.in_channels, convolution.out_channels)
    return convolution.kernel_size == (3, 3) and least >= _LEAST
