"""What a tile costs that goes through the network in strips (`engine.stream`), by arithmetic alone.

The strip engine knows U-Nets. Every other architecture is run in whole tiles.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeGuard

import numpy as np

from unet_dask.errors import OptionError
from unet_dask.model.cost import core_sides
from unet_dask.model.layers import margins, steps
from unet_dask.model.step import Kind, Sides, product, walk

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from unet_dask.model.header import NetworkSpec
    from unet_dask.model.spec import Spec
    from unet_dask.model.step import Step

#: Bytes of the largest feature map of a strip, and the least and most periods of the lattice that it has: with fewer
#: lines kernels start too often, with more nothing of a strip is left in the cache (decision 14).
STREAM_STRIP = 32 << 20
PERIODS = (1, 16)
#: What the strip engine knows to do: at the bottom, on the way down, and on the way up.
_BOTTOM = (Kind.CONVOLVE, Kind.CONVOLVE)
_DOWN = (*_BOTTOM, Kind.KEEP, Kind.POOL)
_UP = (Kind.UP, Kind.JOIN, *_BOTTOM)


def streams(spec: Spec) -> TypeGuard[NetworkSpec]:
    """Return whether the strip engine knows the network: a U-Net whose poolings along the first axis are of 2 or 1.

    Examples
    --------
    >>> from unet_dask.model.header import NetworkSpec
    >>> streams(NetworkSpec()), streams(NetworkSpec(depth=1, factors=((3, 3),)))
    (True, False)
    """
    of = [step for step in spec.steps if step.kind is not Kind.DROP]
    poolings = [step.size[0] for step in of if step.kind is Kind.POOL]
    known = (*_DOWN * len(poolings), *_BOTTOM, *_UP * len(poolings), Kind.HEAD)
    widths = {size for step in of if step.kind is Kind.CONVOLVE for size in step.size}
    return tuple(step.kind for step in of) == known and widths == {3} and max(poolings, default=0) <= 2


def require_streamed(spec: Spec) -> None:
    """Raise unless the strip engine knows the network: int8 networks have no other.

    Raises
    ------
    OptionError
        If it does not.
    """
    if not streams(spec):
        raise OptionError(
            f"Eight-bit integers are for U-Nets that pool by 2, and this network is not one: {spec}. Use --precision "
            "float32 or bfloat16."
        )


def strip_lines(spec: NetworkSpec, sides: Sequence[Sides], *, item: int) -> Sides:
    """Return the lines along the first axis of a strip of a tile that is streamed, a multiple of the stride.

    Parameters
    ----------
    spec : of the network
    sides : input size per spatial axis
    item : bytes of a number, 4 for float32
    """
    stride = spec.stride[0]
    period = 2 * spec.width * stride * item * product(sides[1:])
    lines: Sides = stride * np.clip(STREAM_STRIP // period, *PERIODS)
    return lines


def tile_bytes(spec: NetworkSpec, sides: Sequence[Sides], *, averaged: bool = False) -> Sides:
    """Return the bytes of a tile that is streamed, and of what becomes of it, beside the feature maps.

    Parameters
    ----------
    spec : of the network
    sides : input size per spatial axis
    averaged : whether a turned copy of the tile and the sum over passes are kept meanwhile
    """
    core = product(core_sides(spec, sides))
    images, made = (2, 2) if averaged else (1, 1)
    # After the last strip: which of the logits are finite; or the soft-max's largest and sum.
    return 4 * spec.channels * images * product(sides) + (4 * spec.classes * made + spec.classes + 8) * core


def strip_bytes(spec: NetworkSpec, sides: Sequence[Sides], *, item: int) -> tuple[Sides, Sides]:
    """Return the most bytes of feature maps that are alive at once while a tile is streamed.

    Parameters
    ----------
    spec : of a network that the strip engine knows
    sides : input size per spatial axis
    item : bytes of a number within the network, 4 for float32; of 1 the first convolution makes float32 all the same

    Returns
    -------
    what convolutions and skip connections keep from strip to strip, and the maps of one strip
    """
    strip = strip_lines(spec, sides, item=item)
    alive = _Alive(spec, strip)
    # What the first convolution saw last need not be kept: the tile is there as a whole.
    lines = list(_lines(spec, sides[1:]))
    first, read, made = lines[0]
    image = (4 if item == 1 else item) * first.incoming * (strip + 2) * read
    of_image = image + (5 if item == 1 else item) * first.outgoing * strip * made
    for step, before, after in lines[1:]:
        alive.go(step, before, after)
    # The logits of a strip, and once more in the float32 of those of the tile.
    head, pixels, _ = lines[-1]
    alive.have((head.incoming + 2 * 4 // item * head.outgoing) * strip * pixels)
    return item * alive.kept, np.maximum(item * alive.peak, of_image)


def _lines(spec: NetworkSpec, across: Sequence[Sides]) -> Iterator[tuple[Step, Sides, Sides]]:
    """Yield every step with the pixels of a line before and after it, given the other sides of the image."""
    sides: list[Sides] = [0 * across[0]]
    sides.extend(across)
    for step, before, after in walk(steps(spec), sides):
        yield step, product(before[1:]), product(after[1:])


class _Alive(Generic[Sides]):
    """Counts the numbers that are alive while a strip goes through the steps of a network.

    Attributes
    ----------
    kept : from strip to strip
    peak : the most of a strip

    Parameters
    ----------
    spec : of the network
    strip : lines along the first axis
    """

    def __init__(self, spec: NetworkSpec, strip: Sides) -> None:
        none: Sides = 0 * strip
        self.kept: Sides = none
        self.peak: Sides = none
        self._waiting: Sides = none
        self._below: Sides = none
        self._lines: Sides = strip
        self._waits: list[Sides] = []
        self._margins = iter(margins(spec))
        self._window = False

    def have(self, numbers: Sides) -> None:
        """Note what is alive beside what waits."""
        self.peak = np.maximum(self.peak, self._waiting + numbers)

    def go(self, step: Step, before: Sides, after: Sides) -> None:
        """Do a step, of maps with so many pixels a line."""
        if step.kind is Kind.CONVOLVE:
            self._convolve(step, before, after)
        elif step.kind is Kind.KEEP:
            earlier = -(-next(self._margins)[0] // self._lines) * self._lines  # whole strips
            self.kept = self.kept + step.outgoing * after * earlier
            self._waits.append(step.outgoing * after * self._lines)
            self._waiting = self._waiting + self._waits[-1]
        elif step.kind is Kind.POOL:
            self._lines = self._lines // step.size[0]
            self.have(self._opened(step, after) + beside_pooling(self._waits[-1], step.size))
        elif step.kind is Kind.UP:
            self._below = step.incoming * self._lines * before
            self._lines = self._lines * step.size[0]
        elif step.kind is Kind.JOIN:
            self._join(step, after)

    def _opened(self, step: Step, pixels: Sides) -> Sides:
        """Return the window of the next convolution, into which a step writes."""
        self._window = True
        return step.outgoing * (self._lines + 2) * pixels

    def _join(self, step: Step, pixels: Sides) -> None:
        """Note the window, into which first goes what has waited, and then what comes from below."""
        window = self._opened(step, pixels)
        self.have(self._below + window)
        self._waiting = self._waiting - self._waits.pop()
        self.have(self._below + step.incoming * self._lines * pixels + window)

    def _convolve(self, step: Step, before: Sides, after: Sides) -> None:
        """Note a window, what is made of it, and what is kept of it."""
        if not self._window:  # it may be put together beside what the convolution before made
            self.have(step.incoming * (2 * self._lines + 2) * before)
        window = step.incoming * (self._lines + 2) * before
        self.kept = self.kept + 2 * step.incoming * before
        self.have(window + step.outgoing * self._lines * after)
        self._window = False


def beside_pooling(numbers: Sides, factors: Sequence[int]) -> Sides:
    """Return the numbers that a pooling of so many holds beside what it reads and makes: it goes axis by axis."""
    made: list[Sides] = []
    for factor in [factor for factor in factors if factor > 1][:-1]:
        numbers = numbers // factor
        made.append(numbers)
    return sum(made[:2], start=0 * numbers)
