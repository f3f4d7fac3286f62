"""The network in eight-bit integers, for processors that multiply bytes: about three times as fast as float32.

Feature maps are bytes. One of them stands for ``(byte - zero_point) * scale``; both numbers of each feature map come
from its range on the user's own data in float32, and after a ReLU the zero point is 0. Filters are rounded to 8 bits
with a scale for each channel that they make; sums are exact in 32 bits [1]_. What is not a convolution moves bytes or
takes the largest.

Two things make this simpler than in other networks. The scales of the channels of a concatenation go into the filters
that read it. And no convolution pads, so what a zero point adds is one number per channel, which goes into its bias,
exactly.

The first convolution stays in float32: grey values may have 16 bits, and it is cheap. What the others lose is more than
rounding, so a run compares them with float32 on the user's own data first (decision 13).

References
----------
.. [1] Jacob et al.: "Quantization and training of neural networks for efficient integer-arithmetic-only inference",
   CVPR 2018, sections 2.1 and 2.2.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np
import torch
from torch import Tensor, nn

from unet_dask.engine.packed import USUAL_SIDE, as_corners
from unet_dask.engine.ranges import BeyondRangesError, count
from unet_dask.engine.stream import Layers, streamed
from unet_dask.errors import DataError, OptionError
from unet_dask.model.folding import for_inference
from unet_dask.model.layers import steps
from unet_dask.model.network import layout
from unet_dask.model.step import Kind
from unet_dask.model.strips import require_streamed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from unet_dask.engine.ranges import Ranges
    from unet_dask.engine.stream import Convolution
    from unet_dask.model.file import Model
    from unet_dask.model.header import NetworkSpec
    from unet_dask.model.network import Network
    from unet_dask.model.step import Step

#: The largest byte, and the largest of a filter, which is symmetric.
_LARGEST, _LARGEST_WEIGHT = 255, 127
#: Share of a feature map that may be cut off. On images like those that were measured it is at most a few in 100,000.
_MOST_CUT_OFF = 1e-4
#: And so few besides, of what is looked at: rounding lifts the largest value of a small map, now and then.
_FEW = 4
#: One of so many pixels is looked at for it, in every line and in every column, in runs of as many.
_EVERY = 8
#: Grey values beyond it, once they are normalised, could overflow in the first convolution, whose clamp would hide it.
_FINITE = 1e30
#: Sums of bytes are exact up to this many products, in 32 bits.
_MOST_PRODUCTS = (2**31 - 1) // (_LARGEST * _LARGEST_WEIGHT)
#: A scale of nothing would be divided by.
_LEAST = 1e-9


@dataclass(frozen=True, slots=True)
class Quantization:
    """What the bytes of feature maps stand for: ``(byte - zero_point) * scale``.

    Attributes
    ----------
    scale, zero_point : one of each for every channel
    """

    scale: Tensor
    zero_point: Tensor

    @classmethod
    def of(cls, span: tuple[float, float], channels: int, *, signed: bool) -> Self:
        """Return the quantization of maps whose smallest and largest value was measured; it can write 0.

        What is beyond, elsewhere, becomes the smallest or largest byte. Room for it is not worth a coarser scale
        (decision 13); where it is much, the tile is not for bytes, see :class:`Cuts`.

        Parameters
        ----------
        span : smallest and largest value
        channels : of the maps
        signed : whether there may be negative values: where no ReLU follows
        """
        low, high = min(span[0], 0.0) if signed else 0.0, max(span[1], 0.0)
        scale = max((high - low) / (_LARGEST - 1 - 2 * signed), _LEAST)  # the ends are for what is beyond
        zero_point = float(round(-low / scale) + signed)
        return cls(torch.full((channels,), scale), torch.full((channels,), zero_point))

    def joined(self, other: Quantization) -> Quantization:
        """Return the quantization of a concatenation."""
        return Quantization(
            torch.cat([self.scale, other.scale]), torch.cat([self.zero_point, other.zero_point])
        )

    def repeated(self, times: int) -> Quantization:
        """Return the quantization of so many copies of the channels."""
        return Quantization(self.scale.repeat(times), self.zero_point.repeat(times))


class IntegerConvolution:
    """A convolution of bytes, without padding.

    Parameters
    ----------
    weight, bias : float32, (o, c, *kernel) and (o)
    incoming : quantization of what it reads
    outgoing : quantization of what it makes, None for float32; where its zero point is 0, it has no negative values:
        that is a ReLU
    """

    def __init__(
        self, weight: Tensor, bias: Tensor, incoming: Quantization, outgoing: Quantization | None
    ) -> None:
        dims = weight.dim() - 2
        per_output, per_input = (-1, *(1,) * (dims + 1)), (1, -1, *(1,) * dims)
        made_in = torch.ones(len(weight)) if outgoing is None else outgoing.scale
        # In units of what goes in and what comes out, so that the operator itself has nothing to scale.
        wanted = weight * incoming.scale.view(per_input) / made_in.view(per_output)
        scale = (wanted.abs().flatten(1).amax(1) / _LARGEST_WEIGHT).clamp(min=torch.finfo(torch.float32).tiny)
        whole = (wanted / scale.view(per_output)).round().to(torch.int8)
        kept = whole.float() * scale.view(per_output)
        total = bias / made_in - (kept * incoming.zero_point.view(per_input)).flatten(1).sum(1)
        if outgoing is not None:
            total += outgoing.zero_point
        self.outgoing, self.incoming = weight.shape[:2]
        self.filter_bytes = whole.nbytes
        self.signed = outgoing is not None and bool(outgoing.zero_point.any())
        one, none = [1] * dims, [0] * dims
        sides = [1, self.incoming, *(USUAL_SIDE,) * dims]
        prepacked = torch.ops.onednn.qconv_prepack(whole, scale, 1.0, 0, one, none, one, 1, sides)
        self._run = torch.ops.onednn.qconv2d_pointwise if dims == 2 else torch.ops.onednn.qconv3d_pointwise
        no_zero = torch.zeros(len(weight), dtype=torch.int64)
        self._filters = (1.0, 0, prepacked, scale, no_zero, total, one, none, one, 1)
        self._type = torch.float32 if outgoing is None else torch.uint8

    def __call__(self, features: Tensor) -> Tensor:
        """Return (1, o, y - 2, x - 2) bytes, or float32, for (1, c, y, x) bytes; channels last."""
        made: Tensor = self._run(features, *self._filters, 1.0, 0, self._type, "none", [], "")
        return made


class FirstConvolution:
    """The first convolution with its ReLU: float32 in, bytes out.

    Parameters
    ----------
    weight, bias : float32, (o, c, *kernel) and (o)
    outgoing : quantization of what it makes
    """

    incoming: int
    outgoing: int
    signed = False

    def __init__(self, weight: Tensor, bias: Tensor, outgoing: Quantization) -> None:
        dims = weight.dim() - 2
        none, one = [0] * dims, [1] * dims
        self.outgoing, self.incoming = weight.shape[:2]
        self.filter_bytes = weight.nbytes
        scaled = weight / outgoing.scale.view(-1, *(1,) * (dims + 1))
        self._weight = torch.ops.mkldnn._reorder_convolution_weight(  # noqa: SLF001 # its only name
            scaled.contiguous(memory_format=layout(dims)),
            none,
            one,
            one,
            1,
            [1, self.incoming, *(USUAL_SIDE,) * dims],
        )
        half = bias / outgoing.scale + 0.5  # what follows cuts off fractions
        self._arguments = (half, none, one, one, 1, "hardtanh", [0.0, float(_LARGEST)], "")

    def __call__(self, features: Tensor) -> Tensor:
        """Return (1, o, y - 2, x - 2) bytes for a float32 image of (1, c, y, x); channels last."""
        made: Tensor = torch.ops.mkldnn._convolution_pointwise(features, self._weight, *self._arguments)  # noqa: SLF001 # its only name
        # numpy does it in half of torch's time.
        return torch.from_numpy(made.movedim(1, -1).numpy().astype(np.uint8)).movedim(-1, 1)


class Cuts:
    """Counts what of the feature maps of one tile was cut off."""

    def __init__(self) -> None:
        self._cut: Counter[int] = Counter()
        self._seen: Counter[int] = Counter()

    def look(self, convolution: Convolution, made: Tensor) -> None:
        """Count the values that are the largest byte, or the smallest where there are negative values."""
        if made.dtype != torch.uint8:
            return
        assert isinstance(convolution, IntegerConvolution | FirstConvolution)
        for seen in _seen(made.movedim(1, -1)[0].numpy()):  # numpy counts ten times as fast as torch
            self._cut[id(convolution)] += int(np.count_nonzero(seen == _LARGEST))
            if convolution.signed:
                self._cut[id(convolution)] += int(np.count_nonzero(seen == 0))
            self._seen[id(convolution)] += seen.size

    def require_few(self) -> None:
        """Raise if it is more than a few of any feature map.

        Raises
        ------
        BeyondRangesError
            If it is.
        """
        if any(cut > _FEW + _MOST_CUT_OFF * self._seen[which] for which, cut in self._cut.items()):
            raise BeyondRangesError


def _seen(pixels: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
    """Yield what is looked at of feature maps of (*space, channels): one run in eight, another in every line.

    Every eighth line alone would not see a bright one between. Runs of pixels are read as fast as they lie in memory.
    """
    width = pixels.shape[-2]
    whole = width - width % _EVERY**2
    for row in range(min(_EVERY, pixels.shape[-3])):
        lines = pixels[..., row::_EVERY, :, :]
        if whole:
            runs = lines[..., :whole, :].reshape(*lines.shape[:-2], -1, _EVERY, _EVERY, lines.shape[-1])
            yield runs[..., 3 * row % _EVERY, :, :]
        yield lines[..., whole:, :]


class IntegerBackend:
    """The network in eight-bit integers.

    Parameters
    ----------
    model : to run; it is not changed
    ranges : of its feature maps

    Raises
    ------
    OptionError
        If the sums of so wide a network could overflow, or nothing was measured.
    """

    def __init__(self, model: Model, ranges: Ranges) -> None:
        spec = model.ours.spec
        require_streamed(spec)
        _require_exact_sums(spec)
        if len(ranges) != count(spec):
            raise OptionError(
                f"This network has {count(spec)} feature maps whose range int8 needs, and {len(ranges)} were measured. "
                "Use --precision float32."
            )
        network = for_inference(model.ours)
        with torch.inference_mode():
            self._layers = integers(network, ranges)

    def logits(self, tile: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return float32 logits for a normalised tile.

        Raises
        ------
        BeyondRangesError
            If too much of a feature map would be cut off.
        DataError
            If the tile holds what is not finite, or so large that it could become so.
        """
        if not (np.abs(tile) < _FINITE).all():
            raise DataError(
                "Grey values are not finite here once they are normalised, or nearly so. Mend the source, or use a "
                "model for such images."
            )
        cuts = Cuts()
        with torch.inference_mode():
            logits = streamed(self._layers, tile, cuts.look)
        cuts.require_few()
        return logits


def integers(network: Network, ranges: Ranges) -> Layers:
    """Return the layers of an int8 network.

    Parameters
    ----------
    network : float32, batch normalisation folded
    ranges : smallest and largest value of each feature map, see `engine.ranges`
    """
    spans, filters = iter(ranges), network.filters()
    convolutions: list[Convolution] = []
    kept: list[Quantization | None] = []
    quantization: Quantization | None = None  # the image is in float32
    for step in network.steps:
        if step.kind is Kind.KEEP:
            kept.append(quantization)
        elif step.kind is Kind.JOIN:
            quantization = _known(kept.pop()).joined(_known(quantization))
        elif step.has_filters:
            made, quantization = _of_bytes(next(filters), quantization, spans)
            convolutions.append(made)
    return Layers(network.spec, torch.float32, torch.uint8, convolutions)


def _of_bytes(
    filters: tuple[Step, nn.Module], incoming: Quantization | None, spans: Iterator[tuple[float, float]]
) -> tuple[Convolution, Quantization | None]:
    """Return the convolution of a step, with its ReLU, and the quantization of what it makes; None for float32."""
    step, module = filters
    if step.kind is Kind.UP:
        assert isinstance(module, nn.ConvTranspose2d | nn.ConvTranspose3d)
        quantization = Quantization.of(next(spans), step.outgoing, signed=True)
        corners, biases = as_corners(module)
        assert biases is not None
        outgoing = quantization.repeated(len(corners) // step.outgoing)
        return IntegerConvolution(corners, biases, _known(incoming), outgoing), quantization
    weight, bias = _parameters(module)
    if step.kind is Kind.HEAD:
        return IntegerConvolution(weight, bias, _known(incoming), None), None
    quantization = Quantization.of(next(spans), step.outgoing, signed=False)
    if incoming is None:
        return FirstConvolution(weight, bias, quantization), quantization
    return IntegerConvolution(weight, bias, incoming, quantization), quantization


def _parameters(module: nn.Module) -> tuple[Tensor, Tensor]:
    """Return weights and biases of a convolution."""
    assert isinstance(module.weight, Tensor)
    assert isinstance(module.bias, Tensor)
    return module.weight, module.bias


def _known(quantization: Quantization | None) -> Quantization:
    """Return the quantization of maps that are bytes."""
    assert quantization is not None
    return quantization


def _require_exact_sums(spec: NetworkSpec) -> None:
    """Raise if the sums of the widest convolution could pass 32 bits; the first is in float32."""
    of_bytes = [step for step in steps(spec) if step.has_filters][1:]
    widest = max(of_bytes, key=lambda step: step.products // step.outgoing)
    products = widest.products // widest.outgoing
    if products > _MOST_PRODUCTS:
        raise OptionError(
            f"A network of {widest.incoming} channels sums {products:,} products, and int8 can do "
            f"{_MOST_PRODUCTS:,} exactly. Use --precision float32 or bfloat16."
        )
