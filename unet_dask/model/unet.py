"""The U-Net of 2015, all of it in this file, in two and three dimensions.

References
----------
.. [1] Ronneberger, Fischer, Brox: "U-Net: Convolutional Networks for Biomedical Image Segmentation",
   MICCAI 2015, section 2 and Fig. 1.
.. [2] Cicek, Abdulkadir, Lienkamp, Brox, Ronneberger: "3D U-Net", MICCAI 2016, for the third dimension.

Shapes are written (b, f, y, x); in three dimensions read (b, f, z, y, x).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from unet_dask.errors import ModelError
from unet_dask.model.convolution import Conv3d

if TYPE_CHECKING:
    from unet_dask.model.header import NetworkSpec

#: Weights of one layer, of 8 GiB in float32; the paper's largest has 9 437 184.
_MOST_WEIGHTS = 1 << 31

_CONVOLUTION: dict[int, type[nn.Conv2d | nn.Conv3d]] = {2: nn.Conv2d, 3: Conv3d}
_UP_CONVOLUTION: dict[int, type[nn.ConvTranspose2d | nn.ConvTranspose3d]] = {
    2: nn.ConvTranspose2d,
    3: nn.ConvTranspose3d,
}
_POOLING: dict[int, type[nn.MaxPool2d | nn.MaxPool3d]] = {2: nn.MaxPool2d, 3: nn.MaxPool3d}
_BATCH_NORM: dict[int, type[nn.BatchNorm2d | nn.BatchNorm3d]] = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
_DROPOUT: dict[int, type[nn.Dropout2d | nn.Dropout3d]] = {2: nn.Dropout2d, 3: nn.Dropout3d}


class UNet(nn.Module):
    """The valid-convolution U-Net: normalised image in, logits out.

    Parameters
    ----------
    spec : width, depth, channels, classes, dimensions

    Notes
    -----
    An input of ``n`` pixels per side gives ``n - 2 * halo`` logits per side; `spec.halo` is 92 for the
    paper's depth of 4. Every pooling must see an even size (N4).

    Examples
    --------
    >>> from unet_dask.model.header import NetworkSpec
    >>> network = UNet(NetworkSpec(dims=2, width=2, depth=4))
    >>> network(torch.zeros(1, 1, 572, 572)).shape
    torch.Size([1, 2, 388, 388])
    """

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        if (spec.width << spec.depth) ** 2 * 3**spec.dims > _MOST_WEIGHTS:
            raise ModelError(
                f"A network of width {spec.width} and depth {spec.depth} has a layer of more than {_MOST_WEIGHTS} "
                "weights. Use a smaller width or depth."
            )
        self.spec = spec
        widths = [spec.width << level for level in range(spec.depth + 1)]  # 64, 128, 256, 512, 1024 (N1)
        incoming = [spec.channels, *widths[:-1]]
        self.contracting = nn.ModuleList(
            _double_convolution(spec, before, after) for before, after in zip(incoming, widths, strict=True)
        )
        self.pooling = _POOLING[spec.dims](2, stride=2)
        # Section 3.1: "Drop-out layers at the end of the contracting path": the two lowest levels.
        self.dropout = _DROPOUT[spec.dims](spec.dropout)
        self.up = nn.ModuleList(
            _UP_CONVOLUTION[spec.dims](2 * width, width, kernel_size=2, stride=2) for width in widths[-2::-1]
        )
        self.expansive = nn.ModuleList(
            _double_convolution(spec, 2 * width, width) for width in widths[-2::-1]
        )
        self.classify = _CONVOLUTION[spec.dims](spec.width, spec.classes, kernel_size=1)  # (N3)
        # Channels last is the faster layout, and weights that have it make torch take its kernels for any input.
        self.to(memory_format=layout(spec.dims))  # type: ignore[call-overload] # torch's stubs omit it

    def forward(self, image: Tensor) -> Tensor:
        """Return logits, (b, classes, y - 2 halo, x - 2 halo), for an image of (b, channels, y, x)."""
        skips: list[Tensor] = []
        features = image
        for level, double_convolution in enumerate(self.contracting):
            features = double_convolution(features)  # (b, f, y - 4, x - 4)
            if level >= self.spec.depth - 1:
                features = self.dropout(features)
            if level < self.spec.depth:
                skips.append(features)
                features = self.pooling(features)  # (b, f, y / 2, x / 2)
        for up, double_convolution in zip(self.up, self.expansive, strict=True):
            features = up(features)  # (b, f / 2, 2 y, 2 x)
            features = torch.cat([centre_crop(skips.pop(), features), features], dim=1)  # (b, f, 2 y, 2 x)
            features = double_convolution(features)  # (b, f / 2, 2 y - 4, 2 x - 4)
        logits: Tensor = self.classify(features)  # (b, classes, y, x)
        return logits


def layout(dims: int) -> torch.memory_format:
    """Return the order in memory in which networks are run: channels last."""
    return torch.channels_last if dims == 2 else torch.channels_last_3d


def centre_crop(features: Tensor, like: Tensor) -> Tensor:
    """Return the central part of `features` that has the spatial size of `like` (N2)."""
    for axis in range(2, features.dim()):
        size = like.shape[axis]
        features = features.narrow(axis, (features.shape[axis] - size) // 2, size)
    return features


def initialise(network: UNet, *, seed: int) -> UNet:
    """Draw the initial weights of the paper (section 3, N6) in place.

    Gaussian with standard deviation ``sqrt(2 / N)``, where N counts the incoming connections of one
    neuron: 9 * 64 = 576 for a 3x3 convolution on 64 channels. In an up-convolution whose stride is its
    kernel each output sees one input pixel, so N is the number of its channels. Biases start at zero.

    Parameters
    ----------
    network : to fill
    seed : of the generator; the same seed gives the same bytes

    Returns
    -------
    `network` itself
    """
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d):
            incoming = module.in_channels * math.prod(module.kernel_size)
        elif isinstance(module, nn.ConvTranspose2d | nn.ConvTranspose3d):
            incoming = module.in_channels
        else:
            continue
        nn.init.normal_(module.weight, std=math.sqrt(2 / incoming), generator=generator)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    return network


def _double_convolution(spec: NetworkSpec, before: int, after: int) -> nn.Sequential:
    """Two unpadded 3-wide convolutions, each followed by ReLU (N1)."""
    modules: list[nn.Module] = []
    for incoming in (before, after):
        modules.append(_CONVOLUTION[spec.dims](incoming, after, kernel_size=3))
        if spec.batch_norm:
            modules.append(_BATCH_NORM[spec.dims](after))
        modules.append(nn.ReLU(inplace=True))
    return nn.Sequential(*modules)
