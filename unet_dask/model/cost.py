"""What one pass through the network costs: multiplications and memory, by arithmetic alone.

The plan chooses tiles by these figures, thousands of candidates at a time, so every function takes
arrays of sizes as well as numbers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from unet_dask.tiling.valid import aligned, centre

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from unet_dask.model.header import NetworkSpec

#: Bytes of the transforms that NNPACK is given at a time.
NNPACK_STRIP = 16 << 20

#: Bytes of the largest feature map of a strip, and the least and most periods of the lattice that it has: with fewer
#: lines kernels start too often, with more nothing of a strip is left in the cache (decision 14).
STREAM_STRIP = 32 << 20
_PERIODS = (1, 16)

#: Fixed price of a pass, in FLOP that the network could have done meanwhile.
_PASS = 1e9

Sides = TypeVar("Sides", int, "NDArray[np.int64]")


def tile_flop(spec: NetworkSpec, sides: Sequence[Sides]) -> Sides:
    """Return the floating-point operations of one pass, two per multiply-add.

    Parameters
    ----------
    spec : of the network
    sides : input size per spatial axis, legal for the network

    Examples
    --------
    >>> from unet_dask.model.header import NetworkSpec
    >>> round(tile_flop(NetworkSpec(channels=1), (572, 572)) / 1e9)  # GFLOP for 572 -> 388
    301
    """
    taps = 3**spec.dims
    total, sides = 0 * sides[0], list(sides)
    before = spec.channels
    for level in range(spec.depth + 1):
        width = spec.width << level
        for incoming in (before, width):
            sides = [side - 2 for side in sides]
            total = total + 2 * taps * incoming * width * _product(sides)
        before = width
        if level < spec.depth:
            sides = [side // 2 for side in sides]
    for level in reversed(range(spec.depth)):
        width = spec.width << level
        sides = [2 * side for side in sides]
        total = total + 2 * (2 * width) * width * _product(sides)
        for incoming in (2 * width, width):
            sides = [side - 2 for side in sides]
            total = total + 2 * taps * incoming * width * _product(sides)
    return total + 2 * spec.width * spec.classes * _product(sides)


def pass_price(spec: NetworkSpec, sides: Sequence[Any]) -> Any:  # sizes may be arrays of candidates
    """Return what one pass costs by the clock, in FLOP: its own, and a fixed price.

    Parameters
    ----------
    spec : of the network
    sides : input size per spatial axis
    """
    return tile_flop(spec, sides) + _PASS


def pass_bytes(spec: NetworkSpec, sides: Sequence[Sides], *, item: int, averaged: bool = False) -> Sides:
    """Return the most bytes that are alive at once while a tile becomes probabilities.

    With few classes that is within the network. With many it is after it: the last feature maps and the logits; the
    logits in float32 too, where they are not; or these, which of them are finite, and the soft-max's largest and sum.

    Parameters
    ----------
    spec : of the network
    sides : input size per spatial axis
    item : bytes of a number within the network, 4 for float32
    averaged : whether the tile, a turned copy of it and the sum over passes are kept meanwhile
    """
    core = _product([side - 2 * halo for side, halo in zip(sides, spec.halo, strict=True)])
    earlier = 4 * (spec.classes * core + 2 * spec.channels * _product(sides)) if averaged else 0
    if spec.channels > 1:  # the tile, and as the kernels want it, meanwhile; of one channel they are the same
        earlier = earlier + (4 + item) * spec.channels * _product(sides)
    in_float32 = (4 + (item if item != 4 else 1)) * spec.classes + 8
    after = core * np.maximum((spec.width + spec.classes) * item, in_float32)
    most: Sides = np.maximum(activation_bytes(spec, sides, item=item), after) + earlier
    return most


def activation_bytes(spec: NetworkSpec, sides: Sequence[Sides], *, item: int) -> Sides:
    """Return the most bytes of feature maps that are alive at once during one pass.

    Parameters
    ----------
    spec : of the network
    sides : input size per spatial axis
    item : bytes of a number, 4 for float32
    """
    sides = list(sides)
    peak = 0 * sides[0]
    skips: list[Sides] = []
    features = spec.channels * _product(sides)
    for level in range(spec.depth + 1):
        width = spec.width << level
        first = width * _product([side - 2 for side in sides])
        sides = [side - 4 for side in sides]
        second = width * _product(sides)
        held = sum(skips, start=0 * first)
        peak = np.maximum(peak, held + features + first + second)
        if level < spec.depth:
            skips.append(second)
            sides = [side // 2 for side in sides]
            features = width * _product(sides)
            peak = np.maximum(peak, sum(skips, start=0 * first) + features)
        else:
            features = second
    for level in reversed(range(spec.depth)):
        width = spec.width << level
        sides = [2 * side for side in sides]
        joined = 2 * width * _product(sides)
        held = sum(skips, start=0 * joined)
        peak = np.maximum(peak, held + features + joined // 2)
        peak = np.maximum(peak, held + joined // 2 + joined)
        skips.pop()
        held = sum(skips, start=0 * joined)
        first = width * _product([side - 2 for side in sides])
        sides = [side - 4 for side in sides]
        features = width * _product(sides)
        peak = np.maximum(peak, held + joined + first + features)
    return peak * item


def largest_map(spec: NetworkSpec, sides: Sequence[Sides]) -> Sides:
    """Return the numbers of the largest array of one pass: a feature map, the image or the logits.

    Parameters
    ----------
    spec : of the network
    sides : input size per spatial axis

    Examples
    --------
    >>> from unet_dask.model.header import NetworkSpec
    >>> int(largest_map(NetworkSpec(), (572, 572))) == 64 * 570**2  # what the first convolution makes
    True
    """
    core = [side - 2 * halo for side, halo in zip(sides, spec.halo, strict=True)]
    most: Sides = np.maximum(spec.channels * _product(sides), spec.classes * _product(core))
    sides = list(sides)
    for level in range(spec.depth + 1):
        most = np.maximum(most, (spec.width << level) * _product([side - 2 for side in sides]))
        sides = [side - 4 if level == spec.depth else (side - 4) // 2 for side in sides]
    for level in reversed(range(spec.depth)):
        sides = [2 * side for side in sides]
        most = np.maximum(most, 2 * (spec.width << level) * _product(sides))
        sides = [side - 4 for side in sides]
    return most


def strip_lines(spec: NetworkSpec, sides: Sequence[Sides], *, item: int) -> Sides:
    """Return the lines along the first axis of a strip of a tile that is streamed, a multiple of the stride.

    Parameters
    ----------
    spec : of the network
    sides : input size per spatial axis
    item : bytes of a number, 4 for float32
    """
    stride = spec.stride[0]
    period = 2 * spec.width * stride * item * _product(sides[1:])
    lines: Sides = stride * np.clip(STREAM_STRIP // period, *_PERIODS)
    return lines


def tile_bytes(spec: NetworkSpec, sides: Sequence[Sides], *, averaged: bool = False) -> Sides:
    """Return the bytes of a tile that is streamed, and of what becomes of it, beside the feature maps.

    Parameters
    ----------
    spec : of the network
    sides : input size per spatial axis
    averaged : whether a turned copy of the tile and the sum over passes are kept meanwhile
    """
    core = _product([side - 2 * halo for side, halo in zip(sides, spec.halo, strict=True)])
    images, made = (2, 2) if averaged else (1, 1)
    # After the last strip: which of the logits are finite; or the soft-max's largest and sum.
    return 4 * spec.channels * images * _product(sides) + (4 * spec.classes * made + spec.classes + 8) * core


def strip_bytes(spec: NetworkSpec, sides: Sequence[Sides], *, item: int) -> tuple[Sides, Sides]:
    """Return the most bytes of feature maps that are alive at once while a tile is streamed.

    Parameters
    ----------
    spec : of the network
    sides : input size per spatial axis
    item : bytes of a number within the network, 4 for float32; of 1 the first convolution makes float32 all the same

    Returns
    -------
    what convolutions and skip connections keep from strip to strip, and the maps of one strip
    """
    strip = strip_lines(spec, sides, item=item)
    alive = _Alive(spec, list(sides[1:]), strip)
    first = 4 if item == 1 else item
    image = first * spec.channels * (strip + 2) * _product(sides[1:])
    of_image = image + (5 if item == 1 else item) * spec.width * strip * _product(
        [side - 2 for side in sides[1:]]
    )
    for level in range(spec.depth + 1):
        alive.contract(level)
    for level in reversed(range(spec.depth)):
        alive.expand(level)
    # The logits of a strip, and once more in the float32 of those of the tile.
    alive.have((spec.width + 2 * 4 // item * spec.classes) * strip * _product(alive.across))
    return item * alive.kept, np.maximum(item * alive.peak, of_image)


class _Alive:
    """Counts the numbers that are alive while a strip goes through the levels of a network.

    Parameters
    ----------
    spec : of the network
    across : sides of what a convolution reads next, but the first
    strip : lines along that first axis, at the highest level
    """

    def __init__(self, spec: NetworkSpec, across: list[Any], strip: Any) -> None:
        self.across, self.kept, self.peak = across, 0 * strip, 0 * strip
        self._spec, self._strip, self._waiting = spec, strip, 0 * strip
        self._waits: list[Any] = []

    def have(self, numbers: Any) -> None:
        """Note what is alive beside what waits."""
        self.peak = np.maximum(self.peak, self._waiting + numbers)

    def contract(self, level: int) -> None:
        """Go through the two convolutions of a level on the way down, and the pooling before."""
        width, lines = self._spec.width << level, self._strip // 2**level
        if level:
            self.across = [side // 2 for side in self.across]
            window = (width >> 1) * (lines + 2) * _product(self.across)
            self.have(
                window + self._waits[-1] * (3 if self._spec.dims == 3 else 2) // 4
            )  # the larger of pairs
            self._convolve(width >> 1, width, lines)
        else:
            self.across = [side - 2 for side in self.across]
        self._convolve_again(width, lines)
        if level < self._spec.depth:
            line = width * _product(self.across)
            # Of earlier strips, as a whole.
            self.kept = self.kept + line * aligned(centre(self._spec.depth, level), lines)
            self._waits.append(line * lines)
            self._waiting = self._waiting + line * lines

    def expand(self, level: int) -> None:
        """Go through the up-convolution, the concatenation and the two convolutions of a level on the way up."""
        width, lines = self._spec.width << level, self._strip // 2**level
        features = 2 * width * (lines // 2) * _product(self.across)
        self.across = [2 * side for side in self.across]
        corners = width * lines * _product(self.across)
        window = 2 * width * (lines + 2) * _product(self.across)
        self.have(features + window)
        self._waiting = self._waiting - self._waits.pop()
        self.have(features + corners + window)
        self._convolve(2 * width, width, lines)
        self._convolve_again(width, lines)

    def _convolve(self, incoming: int, outgoing: int, lines: Any) -> None:
        """Note a window, what is made of it, and what is kept of it."""
        window = incoming * (lines + 2) * _product(self.across)
        self.kept = self.kept + 2 * incoming * _product(self.across)
        self.across = [side - 2 for side in self.across]
        self.have(window + outgoing * lines * _product(self.across))

    def _convolve_again(self, width: int, lines: Any) -> None:
        """Note the same of the second of a level, whose window may be put together beside what the first made."""
        self.have(width * (2 * lines + 2) * _product(self.across))
        self._convolve(width, width, lines)


def nnpack_bytes(spec: NetworkSpec) -> int:
    """Return the bytes that NNPACK needs beside feature maps: two copies of a strip, and its largest filters.

    It transforms each 3x3 filter to 8x8 numbers, all of a layer at once; the largest layer is the lowest.
    """
    return 2 * NNPACK_STRIP + 8 * 8 * 4 * (spec.width << spec.depth) ** 2


def parameter_count(spec: NetworkSpec) -> int:
    """Return the number of weights and biases, batch normalisation left out (it is folded).

    Examples
    --------
    >>> from unet_dask.model.header import NetworkSpec
    >>> parameter_count(NetworkSpec(channels=1, classes=2))
    31030658
    """
    taps, up = 3**spec.dims, 2**spec.dims
    total, before = 0, spec.channels
    for level in range(spec.depth + 1):
        width = spec.width << level
        total += taps * (before + width) * width + 2 * width
        before = width
    for level in range(spec.depth):
        width = spec.width << level
        total += up * 2 * width * width + width + taps * 3 * width * width + 2 * width
    return total + spec.width * spec.classes + spec.classes


def _product(sides: Sequence[Sides]) -> Sides:
    product = sides[0]
    for side in sides[1:]:
        product = product * side
    return product
