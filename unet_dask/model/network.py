"""A list of steps as a torch module, in two and three dimensions.

Shapes are written (b, f, y, x); in three dimensions read (b, f, z, y, x).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from unet_dask.errors import ModelError
from unet_dask.model.convolution import Conv3d
from unet_dask.model.layers import steps
from unet_dask.model.step import Kind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from unet_dask.model.header import NetworkSpec
    from unet_dask.model.step import Step

#: Weights of one layer, of 8 GiB in float32; the paper's largest has 9 437 184.
_MOST_WEIGHTS = 1 << 31

_CONVOLUTION: dict[int, type[nn.Conv2d | nn.Conv3d]] = {2: nn.Conv2d, 3: Conv3d}
_UP_CONVOLUTION: dict[int, type[nn.ConvTranspose2d | nn.ConvTranspose3d]] = {
    2: nn.ConvTranspose2d,
    3: nn.ConvTranspose3d,
}
_POOLING = {2: functional.max_pool2d, 3: functional.max_pool3d}
_BATCH_NORM: dict[int, type[nn.BatchNorm2d | nn.BatchNorm3d]] = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
_DROPOUT: dict[int, type[nn.Dropout2d | nn.Dropout3d]] = {2: nn.Dropout2d, 3: nn.Dropout3d}
#: What stands in a block beside its convolutions, before batch normalisation is folded and after.
_BESIDE = (nn.BatchNorm2d, nn.BatchNorm3d, nn.ReLU, nn.Identity)


class Network(nn.Module):
    """A network of valid convolutions: normalised image in, logits out.

    Parameters
    ----------
    spec : architecture, width, depth, channels, classes, dimensions

    Attributes
    ----------
    spec : the same
    steps : that it goes through

    Notes
    -----
    An input of ``n`` pixels per side gives ``n - 2 * halo`` logits per side; `spec.halo` is 92 for the
    paper's depth of 4. Every pooling must see whole windows (N4).

    Examples
    --------
    >>> from unet_dask.model.header import NetworkSpec
    >>> network = Network(NetworkSpec(dims=2, width=2, depth=4))
    >>> network(torch.zeros(1, 1, 572, 572)).shape
    torch.Size([1, 2, 388, 388])
    """

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        self.spec, self.steps = spec, steps(spec)
        if max(step.filters for step in self.steps) > _MOST_WEIGHTS:
            raise ModelError(
                f"A network of width {spec.width} and depth {spec.depth} has a layer of more than {_MOST_WEIGHTS} "
                "weights. Use a smaller width or depth."
            )
        for step in self.steps:
            self._build(step)
        # Channels last is the faster layout, and weights that have it make torch take its kernels for any input.
        self.to(memory_format=layout(spec.dims))  # type: ignore[call-overload] # torch's stubs omit it

    def forward(self, image: Tensor) -> Tensor:
        """Return logits, (b, classes, y - 2 halo, x - 2 halo), for an image of (b, channels, y, x)."""
        kept: list[Tensor] = []
        features, block = image, ""
        for step in self.steps:
            if step.kind is Kind.KEEP:
                kept.append(features)
            elif step.kind is Kind.POOL:
                features = _POOLING[self.spec.dims](features, step.size)  # (b, f, y / 2, x / 2)
            elif step.kind is Kind.JOIN:
                features = torch.cat([centre_crop(kept.pop(), features), features], dim=1)  # (b, 2 f, y, x)
            elif step.kind is Kind.ADD:
                features = centre_crop(kept.pop(), features) + features
            elif step.kind is not Kind.CONVOLVE or step.name != block:
                # An up-convolution makes (b, f / 2, 2 y, 2 x), two convolutions (b, f, y - 4, x - 4).
                features = self.get_submodule(step.name)(features)
            block = step.name
        return features

    def filters(self) -> Iterator[tuple[Step, nn.Module]]:
        """Yield every step that multiplies, with what does it; what a convolution ends in is left out."""
        blocks: dict[str, Iterator[nn.Module]] = {}
        for step in self.steps:
            if step.kind is Kind.CONVOLVE:
                block = self.get_submodule(step.name).children()
                yield (
                    step,
                    next(
                        module
                        for module in blocks.setdefault(step.name, block)
                        if not isinstance(module, _BESIDE)
                    ),
                )
            elif step.has_filters:
                yield step, self.get_submodule(step.name)

    def _build(self, step: Step) -> None:
        """Make the module of a step, or what it adds to that of its block."""
        dims = self.spec.dims
        if step.kind is Kind.CONVOLVE:
            block = self._block(step.name)
            block.append(_CONVOLUTION[dims](step.incoming, step.outgoing, step.size))  # type: ignore[arg-type] # as many sizes as dimensions
            if self.spec.batch_norm:
                block.append(_BATCH_NORM[dims](step.outgoing))
            block.append(nn.ReLU(inplace=True))
        elif step.kind is Kind.UP:
            self._put(step.name, _UP_CONVOLUTION[dims](step.incoming, step.outgoing, step.size, step.size))  # type: ignore[arg-type] # the same
        elif step.kind is Kind.HEAD:
            self._put(step.name, _CONVOLUTION[dims](step.incoming, step.outgoing, 1))
        elif step.kind is Kind.DROP and not hasattr(self, step.name):
            self._put(step.name, _DROPOUT[dims](self.spec.dropout))

    def _block(self, name: str) -> nn.Sequential:
        """Return the block of this name; a new one if there is none."""
        try:
            block = self.get_submodule(name)
        except AttributeError:
            block = self._put(name, nn.Sequential())
        assert isinstance(block, nn.Sequential)
        return block

    def _put(self, name: str, module: nn.Module) -> nn.Module:
        """Let a module be found by its name: "classify", or "up.0" for the first of a list."""
        of_list, _, number = name.partition(".")
        if not number:
            self.add_module(name, module)
            return module
        if not hasattr(self, of_list):
            self.add_module(of_list, nn.ModuleList())
        modules = self.get_submodule(of_list)
        assert isinstance(modules, nn.ModuleList)
        modules.append(module)
        return module


def layout(dims: int) -> torch.memory_format:
    """Return the order in memory in which networks are run: channels last."""
    return torch.channels_last if dims == 2 else torch.channels_last_3d


def centre_crop(features: Tensor, like: Tensor) -> Tensor:
    """Return the central part of `features` that has the spatial size of `like` (N2)."""
    for axis in range(2, features.dim()):
        size = like.shape[axis]
        features = features.narrow(axis, (features.shape[axis] - size) // 2, size)
    return features


def initialise(network: Network, *, seed: int) -> Network:
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
