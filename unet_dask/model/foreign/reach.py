"""How far along an axis a network looks, and with which period, measured by one pixel at a time.

A pixel is changed, at every phase of the lattice, and the outputs that change are looked up: once in the positive twin
(`twin`), where nothing that is there can be hidden, and once in the network itself, where the pixel becomes not a
number. What is computed of that is not a number either, whatever the weights, and where a layer takes something of the
whole image, nothing else is left. The images are long along the axis and thin along the others.

The lattice is the shortest shift of the pixel that shifts all that changes with it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from unet_dask.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from unet_dask.model.foreign.graph import Session
    from unet_dask.model.foreign.sizes import Sizes

#: Pixels along an axis in which what one of them changes must end.
_LONGEST = 1024
#: The longest period that is looked for.
_LONGEST_PERIOD = 64
#: Value of the pixel: paths of twenty means over 27 taps leave something of it in 32 bits.
_BRIGHT = 1e18
#: Numbers of two responses that are the same but for rounding, relative to themselves; smaller ones are nothing.
_ALIKE, _NOTHING = 1e-3, 1e-30


@dataclass(frozen=True, slots=True)
class Reach:
    """How a network looks along an axis.

    Attributes
    ----------
    before, after : pixels that it looks at before and after a place, at most
    period : of its lattice
    """

    before: int
    after: int
    period: int


class Along:
    """Measures along one axis.

    Parameters
    ----------
    network, twin : loaded; None if it has no twin that runs
    channels : of the image
    sizes : that pass, along every axis
    axis : which
    """

    def __init__(
        self, network: Session, twin: Session | None, channels: int, sizes: Sequence[Sizes], axis: int
    ) -> None:
        self._network, self._twin = network, twin
        self._channels, self._sizes, self._axis = channels, sizes, axis
        self._offset = sizes[axis].lost // 2
        self._found: dict[int, list[NDArray[np.float32]]] = {}
        self._long = 0
        self._dark: NDArray[np.float32] = np.zeros(0, np.float32)

    def measure(self) -> Reach:
        """Return how the network looks along the axis.

        Raises
        ------
        ModelError
            If it looks at all there is, or no period is found.
        """
        before, after = self._first()
        self._stretch(before + after + 4 * _LONGEST_PERIOD)
        middle = self._long // 2
        period = self._period(middle)
        ends = [self._ends(middle + phase) for phase in range(period)]
        return Reach(max(end[0] for end in ends), max(end[1] for end in ends), period)

    def _first(self) -> tuple[int, int]:
        """Return what changes with the middle pixel of an image that is long enough to hold it."""
        long = self._sizes[self._axis].least
        while long <= _LONGEST:
            self._stretch(max(2 * long, 64))
            long = self._long
            before, after = self._ends(self._long // 2)
            if before >= 0:
                return before, after
        raise ModelError(
            f"What the network makes of a pixel depends on the whole image, or on more than {_LONGEST // 2} pixels "
            "around it"
        )

    def _period(self, middle: int) -> int:
        """Return the shortest shift of a pixel that shifts all that changes with it, at every phase."""
        step = self._sizes[self._axis].period
        for period in range(step, _LONGEST_PERIOD + 1, step):
            if all(self._alike(middle + phase, period) for phase in range(period)):
                return period
        raise ModelError(
            f"Moved by 1 to {_LONGEST_PERIOD} pixels an image gives other values: the network has no lattice, so its "
            "tiles would show"
        )

    def _alike(self, at: int, shift: int) -> bool:
        """Return whether what changes with a pixel and with one further on is the same, but for its place."""
        here, there = self._response(at), self._response(at + shift)
        same = [_same(a[:-shift], b[shift:]) for a, b in zip(here, there, strict=True)]
        return all(same)

    def _ends(self, at: int) -> tuple[int, int]:
        """Return how far before and after a place it looks, to see this pixel; -1 if the image is too short to tell."""
        before, after = 0, 0
        for changed in self._response(at):
            places = np.flatnonzero(_is_something(changed).any(axis=1))
            if not len(places):
                continue
            if places[0] == 0 or places[-1] == len(changed) - 1:
                return -1, -1
            before = max(before, int(places[-1]) + self._offset - at)
            after = max(after, at - int(places[0]) - self._offset)
        return before, after

    def _response(self, at: int) -> list[NDArray[np.float32]]:
        """Return what changes with a pixel, (along the axis, all else): of the network, and of its twin."""
        if at not in self._found:
            made = [np.isnan(self._network.run(self._image(at, np.nan, noise=True))).astype(np.float32)]
            if self._twin is not None:
                bright = self._twin.run(self._image(at, _BRIGHT))
                made.append(np.where(bright == self._dark, np.float32(0), bright))
            self._found[at] = [self._flat(each) for each in made]
        return self._found[at]

    def _image(self, at: int, value: float, *, noise: bool = False) -> NDArray[np.float32]:
        """Return an image of zeros or noise with a value at a place along the axis, in the middle of the others."""
        shape = self._shape()
        image = np.zeros((self._channels, *shape), np.float32)
        if noise:
            image += np.random.default_rng(0).standard_normal(image.shape, np.float32)
        middle: list[int | slice] = [slice(None), *(side // 2 for side in shape)]
        middle[self._axis + 1] = at
        image[tuple(middle)] = value
        return image

    def _flat(self, made: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.moveaxis(made, self._axis + 1, 0).reshape(made.shape[self._axis + 1], -1)

    def _shape(self) -> tuple[int, ...]:
        return tuple(
            self._long if axis == self._axis else each.at_least(each.lost + 8)
            for axis, each in enumerate(self._sizes)
        )

    def _stretch(self, size: int) -> None:
        """Look at images of such a length from now on."""
        sizes = self._sizes[self._axis]
        self._long = sizes.at_least(size + sizes.lost)
        self._found.clear()
        if self._twin is not None:  # what it makes of nothing
            self._dark = self._twin.run(np.zeros((self._channels, *self._shape()), np.float32))


def _is_something(values: NDArray[np.float32]) -> NDArray[np.bool_]:
    return ~(np.abs(values) <= _NOTHING)  # what is not a number is something


def _same(one: NDArray[np.float32], other: NDArray[np.float32]) -> bool:
    """Return whether two responses are the same but for rounding, number for number."""
    finite = np.isfinite(one) & np.isfinite(other)
    if not finite.all() and not np.array_equal(np.isfinite(one), np.isfinite(other)):
        return False
    one, other = one[finite], other[finite]
    return bool((np.abs(one - other) <= _ALIKE * np.maximum(np.abs(one), np.abs(other)) + _NOTHING).all())


def together(reaches: Sequence[Reach], sizes: Sequence[Sizes]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return reach and lattice per axis; sizes that pass must stay such from tile to tile."""
    reach = tuple(max(each.before, each.after, 0) for each in reaches)
    stride = tuple(math.lcm(each.period, size.period) for each, size in zip(reaches, sizes, strict=True))
    return reach, stride
