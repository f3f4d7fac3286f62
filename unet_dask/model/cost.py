"""What one pass over a whole tile costs: multiplications and memory, by arithmetic alone.

Of a network of ours each figure is a fold over its steps (`model.layers`): operations, numbers that are alive, the
largest map. What a pass takes beside these holds for those of others as well, whose figures were measured. The plan
chooses tiles by them, thousands of candidates at a time, so every function takes arrays of sizes as well as numbers.
The memory of a tile that goes through in strips is in `model.strips`.
"""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from unet_dask.model.layers import steps
from unet_dask.model.step import Kind, product, walk

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from unet_dask.model.header import NetworkSpec
    from unet_dask.model.spec import Spec
    from unet_dask.model.step import Sides

Candidates = TypeVar("Candidates", "NDArray[np.int64]", "NDArray[np.float64]")

#: Bytes of the transforms that NNPACK is given at a time.
NNPACK_STRIP = 16 << 20

#: Fixed price of a pass, in FLOP that the network could have done meanwhile.
_PASS = 1e9


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
    flop = (
        2 * step.products * product(after) for step, _, after in walk(steps(spec), sides) if step.products
    )
    return sum(flop, start=0 * sides[0])


def pass_price(spec: Spec, sides: Sequence[Candidates]) -> NDArray[np.float64]:
    """Return what one pass costs by the clock, in FLOP: its own, and a fixed price.

    Parameters
    ----------
    spec : of the network
    sides : input sizes per spatial axis
    """
    return np.add(spec.flop(sides), _PASS)


def pass_bytes(spec: Spec, sides: Sequence[Sides], *, item: int, averaged: bool = False) -> Sides:
    """Return the most bytes that are alive at once while a tile becomes probabilities.

    With few classes that is within the network. With many it is after it: the logits, in float32 too, where they are
    not; or these, which of them are finite, and the soft-max's largest and sum.

    Parameters
    ----------
    spec : of the network
    sides : input size per spatial axis
    item : bytes of a number within the network, 4 for float32
    averaged : whether the tile, a turned copy of it and the sum over passes are kept meanwhile
    """
    core = product(core_sides(spec, sides))
    earlier = 4 * (spec.classes * core + 2 * spec.channels * product(sides)) if averaged else 0
    if spec.channels > 1:  # the tile, and as the kernels want it, meanwhile; of one channel they are the same
        earlier = earlier + (4 + item) * spec.channels * product(sides)
    in_float32 = (4 + (item if item != 4 else 1)) * spec.classes + 8
    most: Sides = np.maximum(spec.alive(sides) * item, core * in_float32) + earlier
    return most


def activation_bytes(spec: NetworkSpec, sides: Sequence[Sides], *, item: int) -> Sides:
    """Return the most bytes of feature maps that are alive at once during one pass.

    Parameters
    ----------
    spec : of the network
    sides : input size per spatial axis
    item : bytes of a number, 4 for float32
    """
    return numbers_alive(spec, sides) * item


def numbers_alive(spec: NetworkSpec, sides: Sequence[Sides]) -> Sides:
    """Return the most numbers of feature maps that are alive at once during one pass."""
    most: Sides = reduce(np.maximum, _alive(spec, sides))
    return most


def _alive(spec: NetworkSpec, sides: Sequence[Sides]) -> Iterator[Sides]:
    """Yield the numbers that are alive while a step makes something: what it reads and makes, and what waits.

    Whoever runs a block of convolutions holds what the first of them reads until the last is done.
    """
    none = 0 * sides[0]
    features, read, block = spec.channels * product(sides), none, ""
    kept: list[Sides] = []
    for step, _, after in walk(steps(spec), sides):
        if step.kind is Kind.KEEP:
            kept.append(features)
            features = none  # it is alive, and counted among what waits
        elif step.kind is not Kind.DROP:
            begins = step.kind is not Kind.CONVOLVE or step.name != block
            made = step.outgoing * product(after)
            yield sum(kept, start=none) + (0 if begins else read) + features + made
            block, read = step.name, features if begins else read
            features = made
            if step.takes_back:
                kept.pop()


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
    maps = (step.outgoing * product(after) for step, _, after in walk(steps(spec), sides))
    return reduce(np.maximum, maps, spec.channels * product(sides))


def core_sides(spec: Spec, sides: Sequence[Sides]) -> list[Sides]:
    """Return the size of the output per spatial axis."""
    return [side - 2 * halo for side, halo in zip(sides, spec.halo, strict=True)]


def nnpack_bytes(spec: Spec) -> int:
    """Return the bytes that NNPACK needs beside feature maps: two copies of a strip, and its largest filters.

    It transforms each 3x3 filter to 8x8 numbers, all of a layer at once.
    """
    largest = max(step.incoming * step.outgoing for step in spec.steps if step.kind is Kind.CONVOLVE)
    return 2 * NNPACK_STRIP + 8 * 8 * 4 * largest
