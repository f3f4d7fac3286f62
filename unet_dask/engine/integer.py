"""The network in eight-bit integers, for processors that multiply bytes: about three times as fast as float32.

Feature maps are bytes. One of them stands for ``(byte - zero) * step``; step and zero of each feature map come from its
range on the user's own data in float32, and after a ReLU the zero is 0. Filters are rounded to 8 bits with a scale for
each channel that they make; sums are exact in 32 bits [1]_. What is not a convolution moves bytes or takes the largest.

Two things make this simpler than in other networks. The steps of the channels of a concatenation go into the filters
that read it. And no convolution pads, so what a zero adds is one number per channel, which goes into its bias, exactly.

The first convolution stays in float32: grey values may have 16 bits, and it is cheap. What the others lose is more than
rounding, so a run compares them with float32 on the user's own data first (decision 13).

References
----------
.. [1] Jacob et al.: "Quantization and training of neural networks for efficient integer-arithmetic-only inference",
   CVPR 2018, sections 2.1 and 2.2.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np
import torch
from torch import Tensor, nn

from unet_dask.engine.heap import make_room
from unet_dask.engine.ranges import BeyondRangesError
from unet_dask.model.cost import INTEGER_STRIP
from unet_dask.model.folding import fold_batch_norm
from unet_dask.model.unet import centre_crop, layout

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from unet_dask.engine.ranges import Ranges
    from unet_dask.model.file import Model
    from unet_dask.model.unet import UNet

#: The largest byte, and the largest of a filter, which is symmetric.
_LARGEST, _LARGEST_WEIGHT = 255, 127
#: Share of a feature map that may be cut off. On images like those that were measured it is at most a few in 100,000.
_MOST_CUT_OFF = 1e-4
#: Every so many lines are looked at for it.
_EVERY = 8
#: A step of nothing would be divided by.
_LEAST = 1e-9


@dataclass(frozen=True, slots=True)
class Code:
    """What the bytes of feature maps stand for: ``(byte - zero) * step``.

    Attributes
    ----------
    step, zero : one of each for every channel
    """

    step: Tensor
    zero: Tensor

    @classmethod
    def of(cls, span: tuple[float, float], channels: int) -> Self:
        """Return the code of maps whose smallest and largest value was measured; it can write 0.

        What is beyond, elsewhere, becomes the smallest or largest byte. Room for it is not worth coarser steps
        (decision 13); where it is much, the tile is not for bytes, see :func:`_require_within`.
        """
        low, high = min(span[0], 0.0), max(span[1], 0.0)
        signed = low < 0
        step = max((high - low) / (_LARGEST - 1 - 2 * signed), _LEAST)  # the ends are for what is beyond
        zero = float(round(-low / step) + signed)
        return cls(torch.full((channels,), step), torch.full((channels,), zero))

    def joined(self, other: Code) -> Code:
        """Return the code of a concatenation."""
        return Code(torch.cat([self.step, other.step]), torch.cat([self.zero, other.zero]))

    def repeated(self, times: int) -> Code:
        """Return the code of so many copies of the channels."""
        return Code(self.step.repeat(times), self.zero.repeat(times))


class IntegerConvolution(nn.Module):
    """A convolution of bytes, without padding.

    Parameters
    ----------
    weight, bias : float32, (o, c, *kernel) and (o)
    incoming : code of what it reads
    outgoing : code of what it makes, None for float32; where its zero is 0, it has no negative values: that is a ReLU
    """

    def __init__(self, weight: Tensor, bias: Tensor, incoming: Code, outgoing: Code | None) -> None:
        super().__init__()
        self._dims = weight.dim() - 2
        per_output, per_input = (-1, *(1,) * (self._dims + 1)), (1, -1, *(1,) * self._dims)
        step = torch.ones(len(weight)) if outgoing is None else outgoing.step
        # In units of what goes in and what comes out, so that the operator itself has nothing to scale.
        wanted = weight * incoming.step.view(per_input) / step.view(per_output)
        scale = (wanted.abs().flatten(1).amax(1) / _LARGEST_WEIGHT).clamp(min=torch.finfo(torch.float32).tiny)
        whole = (wanted / scale.view(per_output)).round().to(torch.int8)
        kept = whole.float() * scale.view(per_output)
        self._bias = bias / step - (kept * incoming.zero.view(per_input)).flatten(1).sum(1)
        if outgoing is not None:
            self._bias += outgoing.zero
        self._scale, self._no_zero = scale, torch.zeros(len(weight), dtype=torch.int64)
        one, none = [1] * self._dims, [0] * self._dims
        self._geometry = (one, none, one, 1)
        self._weight = torch.ops.onednn.qconv_prepack(whole, scale, 1.0, 0, one, none, one, 1)
        self._kernel, self._channels = weight.shape[2:], len(weight)
        self._type = torch.float32 if outgoing is None else torch.uint8
        self._signed = outgoing is not None and bool(outgoing.zero.any())

    def forward(self, features: Tensor) -> Tensor:
        """Return (1, o, y - 2, x - 2) bytes, or float32, for (1, c, y, x) bytes; channels last.

        Raises
        ------
        BeyondRangesError
            If too much of it would be cut off.
        """
        made = [side - length + 1 for side, length in zip(features.shape[2:], self._kernel, strict=True)]
        make_room(math.prod(made) * self._channels * self._type.itemsize)
        run = torch.ops.onednn.qconv2d_pointwise if self._dims == 2 else torch.ops.onednn.qconv3d_pointwise
        scales = (1.0, 0, self._weight, self._scale, self._no_zero, self._bias)
        result: Tensor = run(features, *scales, *self._geometry, 1.0, 0, self._type, "none", [], "")
        if self._type is torch.uint8:
            _require_within(result, signed=self._signed)
        return result


class FirstConvolution(nn.Module):
    """The first convolution with its ReLU: float32 in, bytes out.

    Parameters
    ----------
    convolution : float32
    outgoing : code of what it makes
    """

    def __init__(self, convolution: nn.Conv2d | nn.Conv3d, outgoing: Code) -> None:
        super().__init__()
        self._convolution = copy.deepcopy(convolution)
        per_output = (-1, *(1,) * (convolution.weight.dim() - 1))
        self._convolution.weight.data /= outgoing.step.view(per_output)
        assert self._convolution.bias is not None
        self._convolution.bias.data /= outgoing.step

    def forward(self, image: Tensor) -> Tensor:
        """Return (1, o, y - 2, x - 2) bytes for a float32 image of (1, c, y, x); channels last."""
        rows, *others = (side - 2 for side in image.shape[2:])
        channels = self._convolution.out_channels
        made = torch.empty((1, rows, *others, channels), dtype=torch.uint8)
        # In float32 it would be the largest of all maps, so it is made a strip at a time.
        strip = max(INTEGER_STRIP // (4 * channels * math.prod(others)), 1)
        for first in range(0, rows, strip):
            part = self._convolution(image[:, :, first : first + strip + 2])
            made[:, first : first + strip] = part.round_().clamp_(0, _LARGEST).movedim(1, -1)
        features = made.movedim(-1, 1)
        _require_within(features)
        return features


class IntegerUNet(nn.Module):
    """A U-Net of bytes.

    Parameters
    ----------
    network : float32, batch normalisation folded
    ranges : smallest and largest value of each feature map, see `engine.ranges`
    """

    def __init__(self, network: UNet, ranges: Ranges) -> None:
        super().__init__()
        self.spec = network.spec
        spans = iter(ranges)
        self.contracting, self.expansive = nn.ModuleList(), nn.ModuleList()
        self.up = nn.ModuleList()
        codes: list[Code] = []
        code: Code | None = None
        for double_convolution in network.contracting:
            modules, code = _double_convolution(double_convolution, code, spans)
            self.contracting.append(modules)
            codes.append(code)
        code = codes.pop()
        for up, double_convolution in zip(network.up, network.expansive, strict=True):
            assert isinstance(up, nn.ConvTranspose2d | nn.ConvTranspose3d)
            made = Code.of(next(spans), up.out_channels)
            self.up.append(_up_convolution(up, code, made))
            modules, code = _double_convolution(double_convolution, codes.pop().joined(made), spans)
            self.expansive.append(modules)
        last = network.classify
        self.classify = IntegerConvolution(last.weight, _bias(last), code, None)

    def forward(self, image: Tensor) -> Tensor:
        """Return float32 logits, (1, classes, y - 2 halo, x - 2 halo), for a float32 image of (1, channels, y, x)."""
        skips: list[Tensor] = []
        features = image
        for level, double_convolution in enumerate(self.contracting):
            features = double_convolution(features)
            if level < self.spec.depth:
                skips.append(features)
                features = _pooled(features)
        for up, double_convolution in zip(self.up, self.expansive, strict=True):
            corners = up(features)
            del features  # what follows needs the memory
            features = _concatenated(skips.pop(), corners)
            del corners
            features = double_convolution(features)
        logits: Tensor = self.classify(features)
        return logits


class IntegerBackend:
    """The network in eight-bit integers.

    Parameters
    ----------
    model : to run; it is not changed
    ranges : of its feature maps
    """

    def __init__(self, model: Model, ranges: Ranges) -> None:
        network = fold_batch_norm(copy.deepcopy(model.network)).eval().requires_grad_(requires_grad=False)
        self._layout = layout(model.header.network.dims)
        with torch.inference_mode():
            self._network = IntegerUNet(network, ranges).to(memory_format=self._layout)  # type: ignore[call-overload] # torch's stubs omit it

    def logits(self, tile: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return float32 logits for a normalised tile."""
        with torch.inference_mode():
            image = torch.from_numpy(tile)[None].contiguous(memory_format=self._layout)
            logits: NDArray[np.float32] = self._network(image)[0].numpy()
        return logits


def _double_convolution(
    modules: nn.Module, incoming: Code | None, spans: Iterator[tuple[float, float]]
) -> tuple[nn.Sequential, Code]:
    """Return two convolutions of bytes with their ReLUs, and the code of what they make."""
    made: list[nn.Module] = []
    for module in modules.children():
        if not isinstance(module, nn.Conv2d | nn.Conv3d):
            continue
        outgoing = Code.of(next(spans), module.out_channels)
        made.append(
            FirstConvolution(module, outgoing)
            if incoming is None
            else IntegerConvolution(module.weight, _bias(module), incoming, outgoing)
        )
        incoming = outgoing
    assert incoming is not None
    return nn.Sequential(*made), incoming


def _up_convolution(
    module: nn.ConvTranspose2d | nn.ConvTranspose3d, incoming: Code, outgoing: Code
) -> IntegerConvolution:
    """Return an up-convolution as one of width 1 that makes all corners of a pixel, channels within corners."""
    channels, made, *kernel = module.weight.shape
    corners = math.prod(kernel)
    weight = module.weight.permute(*range(2, 2 + len(kernel)), 1, 0)
    weight = weight.reshape(corners * made, channels, *(1,) * len(kernel))
    bias = _bias(module).repeat(corners)
    return IntegerConvolution(weight, bias, incoming, outgoing.repeated(corners))


def _concatenated(skip: Tensor, corners: Tensor) -> Tensor:
    """Return what was skipped beside the corners of every pixel, each in its place: (1, 2 f, 2 y, 2 x)."""
    dims = corners.dim() - 2
    sides = corners.shape[2:]
    channels = corners.shape[1] >> dims
    double = [2 * side for side in sides]
    make_room(2 * channels * math.prod(double))
    both = torch.empty((1, *double, 2 * channels), dtype=torch.uint8)
    both[..., :channels] = centre_crop(skip, both.movedim(-1, 1)).movedim(1, -1)
    apart = both.view(1, *(length for side in sides for length in (side, 2)), 2 * channels)
    order = [1 + axis + part * dims for axis in range(dims) for part in (0, 1)]
    placed = corners.movedim(1, -1).reshape(1, *sides, *(2,) * dims, channels)
    apart[..., channels:] = placed.permute(0, *order, 2 * dims + 1)
    return both.movedim(-1, 1)


def _pooled(features: Tensor) -> Tensor:
    """Return the largest of every 2 x 2 bytes; torch's own pooling does not take them."""
    for axis in range(2, features.dim()):
        pairs = [slice(None)] * features.dim(), [slice(None)] * features.dim()
        pairs[0][axis], pairs[1][axis] = slice(0, None, 2), slice(1, None, 2)
        features = torch.maximum(features[tuple(pairs[0])], features[tuple(pairs[1])])
    return features


def _require_within(features: Tensor, *, signed: bool = False) -> None:
    """Raise if more than a few of some bytes are the largest, or the smallest of those that have a zero."""
    lines = features.movedim(1, -1)[0, ::_EVERY].numpy()  # numpy counts ten times as fast as torch
    cut = np.count_nonzero(lines == _LARGEST)
    if signed:
        cut += np.count_nonzero(lines == 0)
    if cut > _MOST_CUT_OFF * lines.size:
        raise BeyondRangesError


def _bias(module: nn.Module) -> Tensor:
    """Return the bias of a convolution."""
    assert isinstance(module.bias, Tensor)
    return module.bias
