"""Convolution in three dimensions by the kernels of oneDNN, whatever the size.

torch asks oneDNN for large inputs only, and by a rule made for images: the product of the first four sizes of the
input must exceed 20,480 (``use_mkldnn`` in torch's ``Convolution.cpp``). Of a volume these are batch, channels, z and
y, and a tile of 72 x 104 x 104 with one channel falls through. What takes its place unfolds the input to 27 copies of
itself, 78 MiB for that tile. Measured on it, two cores: at widths 8, 16 and 32 the network takes 2.2, 1.3 and 1.1
times as long that way, and half as much memory again.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from unet_dask.choices import Device


class Conv3d(nn.Conv3d):
    """`torch.nn.Conv3d` for stride 1, without padding, dilation or groups."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 # torch's name
        """Return the convolution of (b, f, z, y, x)."""
        if _suits(input):
            return torch.mkldnn_convolution(input, self.weight, self.bias, (0, 0, 0), (1, 1, 1), (1, 1, 1), 1)
        return super().forward(input)


def _suits(features: Tensor) -> bool:
    """Return whether oneDNN is there and torch might not take it: 16-bit numbers go to it anyway."""
    return (
        features.device.type == Device.CPU
        and features.dtype == torch.float32
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call] # torch has no type for it
        and not torch.is_autocast_enabled("cpu")
    )
