"""One step of a network, and the walk along its list that every fold takes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

#: Sizes: numbers, or arrays of candidates.
Sides = TypeVar("Sides", int, "NDArray[np.int64]", "NDArray[np.float64]")


class Kind(StrEnum):
    """What a step does."""

    CONVOLVE = "convolve"  # without padding; ends in a ReLU, after batch normalisation if the network has it
    KEEP = "keep"  # puts the feature maps aside
    POOL = "pool"  # takes the largest of each window
    DROP = "drop"  # dropout
    UP = "up"  # an up-convolution whose stride is its window
    JOIN = "join"  # concatenates what was kept last, its centre
    ADD = "add"  # adds what was kept last, its centre
    HEAD = "head"  # makes the output, a convolution 1 wide

    __repr__ = str.__repr__  # as messages show it


@dataclass(frozen=True, slots=True)
class Step:
    """What happens to the feature maps, once.

    Attributes
    ----------
    kind : what is done
    incoming, outgoing : channels of the feature maps before and after
    level : poolings between the image and them
    size : per spatial axis, in pixels: width of the filters, or the factor of a pooling or an up-convolution; else 1
    name : of the torch module that does it, "" where none does; convolutions of one name form a block
    """

    kind: Kind
    incoming: int
    outgoing: int
    level: int
    size: tuple[int, ...]
    name: str = ""

    @property
    def has_filters(self) -> bool:
        """Whether it multiplies."""
        return self.kind in (Kind.CONVOLVE, Kind.UP, Kind.HEAD)

    @property
    def takes_back(self) -> bool:
        """Whether it takes back what was kept last."""
        return self.kind in (Kind.JOIN, Kind.ADD)

    @property
    def filters(self) -> int:
        """Weights of its filters, biases left out."""
        return math.prod(self.size) * self.incoming * self.outgoing if self.has_filters else 0

    @property
    def products(self) -> int:
        """Multiplications for one pixel of what it makes: in an up-convolution that sees one pixel of what it reads."""
        return self.incoming * self.outgoing if self.kind is Kind.UP else self.filters

    def side(self, before: Sides, axis: int) -> Sides:
        """Return the side of what a step makes of feature maps, in pixels of their own level."""
        match self.kind:
            case Kind.CONVOLVE:
                return before - (self.size[axis] - 1)
            case Kind.POOL:
                return before // self.size[axis]
            case Kind.UP:
                return before * self.size[axis]
        return before


def walk(
    steps: Iterable[Step], sides: Sequence[Sides]
) -> Iterator[tuple[Step, Sequence[Sides], Sequence[Sides]]]:
    """Yield every step with the sides of the feature maps before and after it.

    Parameters
    ----------
    steps : of a network
    sides : of the image, per spatial axis; numbers, or arrays of candidates
    """
    for step in steps:
        after = [step.side(side, axis) for axis, side in enumerate(sides)]
        yield step, sides, after
        sides = after


def product(sides: Sequence[Sides]) -> Sides:
    """Return the pixels of a map with these sides."""
    pixels = sides[0]
    for side in sides[1:]:
        pixels = pixels * side
    return pixels
