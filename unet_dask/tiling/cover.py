"""Boxes that together hold all that a mask wants, cheaper than a lattice of equal ones.

A box pays for its context, so one that is wanted in a corner alone should be shrunk to it, and one with two blots far
apart be cut between them; but every cut is context that is paid twice. The cheapest cover is not sought, only one that
no further cut makes cheaper::

      . . . . . . . .         +-----+
      . # # . . . . .         | # # |
      . # # # . . . .         | # # #--+--+
      . . . # # # . .   ->    +-----| # # # |
      . . . # # # # .               | # # # #|
      . . . . . . . .               +--------+

It is found by halving: the box around everything is cut where its two parts, each shrunk to what it holds, cost least;
then each part, as long as that is cheaper than the whole. What is too large for one tile is cut in any case.

It is sought in cells of some lattice points: coarse ones are found fast, fine ones fit tightly.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from unet_dask.tiling.valid import aligned

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from unet_dask.tiling.box import Interval
    from unet_dask.tiling.region import AxisGrid

    #: Returns what boxes cost, given their lengths per axis: one number, or one for each of an array of boxes.
    Price = Callable[[Sequence[NDArray[np.int64]]], NDArray[np.float64]]

Spans = tuple["Interval", ...]


def fitted(
    wanted: NDArray[np.bool_], grids: Sequence[AxisGrid], lengths: Sequence[int], price: Price
) -> list[Spans]:
    """Return the cores of tiles that together hold what is wanted of a region.

    Parameters
    ----------
    wanted : of each of the region's cells, see `AxisGrid.cells`
    grids : of the axes; no core is longer than theirs
    lengths : of the region
    price : of tiles, given their input sizes

    Returns
    -------
    cores, in lattice points from the region's own first
    """

    def of_cells(sides: Sequence[NDArray[np.int64]]) -> NDArray[np.float64]:
        return price(
            [side * grid.cell + grid.tile - grid.core for side, grid in zip(sides, grids, strict=True)]
        )

    ends = [
        aligned(grid.phase + length, grid.context.stride) for grid, length in zip(grids, lengths, strict=True)
    ]
    return [
        tuple(
            (start * grid.cell, min(stop * grid.cell, end))
            for (start, stop), grid, end in zip(box, grids, ends, strict=True)
        )
        for box in cover(wanted, [grid.core // grid.cell for grid in grids], of_cells)
    ]


def cover(wanted: NDArray[np.bool_], longest: Sequence[int], price: Price) -> list[Spans]:
    """Return boxes that do not overlap and together hold every wanted cell.

    Parameters
    ----------
    wanted : of any number of axes
    longest : cells that a box may have along each axis
    price : of boxes; it should grow with each length, and a box cost more than nothing

    Returns
    -------
    (start, stop) per axis for each box, in cells; the same for the same arguments

    Examples
    --------
    >>> wanted = np.zeros((4, 20), bool)
    >>> wanted[1:3, [0, 1, 17, 18]] = True
    >>> cover(wanted, (8, 32), lambda sides: (sides[0] + 2) * (sides[1] + 2.0))
    [((1, 3), (0, 2)), ((1, 3), (17, 19))]
    """
    boxes, waiting = [], [tuple((0, length) for length in wanted.shape)] if wanted.any() else []
    while waiting:
        box = _shrunk(wanted, waiting.pop())
        view = wanted[tuple(slice(*span) for span in box)]
        fits = all(length <= most for length, most in zip(view.shape, longest, strict=True))
        whole = float(_priced([np.array(length) for length in view.shape], longest, price))
        axis, at, parts = _cheapest_cut(view, longest, price)
        if fits and whole <= parts:
            boxes.append(box)
            continue
        (start, stop), before, after = box[axis], box[:axis], box[axis + 1 :]
        waiting += [(*before, (start + at, stop), *after), (*before, (start, start + at), *after)]
    return boxes


def _shrunk(wanted: NDArray[np.bool_], box: Spans) -> Spans:
    """Return the smallest box that holds what a box holds."""
    view = wanted[tuple(slice(*span) for span in box)]
    ends = []
    for axis, (start, _) in enumerate(box):
        (held,) = np.nonzero(_projected(view, (axis,)))
        ends.append((start + int(held[0]), start + int(held[-1]) + 1))
    return tuple(ends)


def _cheapest_cut(view: NDArray[np.bool_], longest: Sequence[int], price: Price) -> tuple[int, int, float]:
    """Return the axis and the place of the best cut through a shrunk box, and what its parts cost."""
    best = (0, 0, math.inf)
    for axis, length in enumerate(view.shape):
        if length == 1:
            continue
        sides = [_sides(view, axis, other) for other in range(view.ndim)]
        one, other_one = ([pair[part] for pair in sides] for part in (0, 1))
        costs = _priced(one, longest, price) + _priced(other_one, longest, price)
        at = int(np.argmin(costs))
        if costs[at] < best[2]:
            best = (axis, at + 1, float(costs[at]))
    return best


def _sides(view: NDArray[np.bool_], axis: int, other: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the lengths along `other` of both parts of a shrunk box, for every cut across `axis`."""
    length = view.shape[axis]
    if other == axis:
        place = np.arange(length)
        row = _projected(view, (axis,))
        last = np.maximum.accumulate(np.where(row, place, 0))[:-1]
        first = np.minimum.accumulate(np.where(row, place, length)[::-1])[::-1][1:]
        return last + 1, length - first
    plane = _projected(view, (axis, other))
    plane = plane if axis < other else plane.T
    held, width = plane.any(axis=1), view.shape[other]
    starts = np.where(held, plane.argmax(axis=1), width)
    stops = np.where(held, width - plane[:, ::-1].argmax(axis=1), 0)
    near = np.maximum.accumulate(stops) - np.minimum.accumulate(starts)
    far = np.maximum.accumulate(stops[::-1]) - np.minimum.accumulate(starts[::-1])
    return near[:-1], far[::-1][1:]


def _projected(view: NDArray[np.bool_], kept: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return whether anything is wanted, over all axes but some."""
    return np.asarray(view.any(axis=tuple(axis for axis in range(view.ndim) if axis not in kept)))


def _priced(sides: Sequence[NDArray[np.int64]], longest: Sequence[int], price: Price) -> NDArray[np.float64]:
    """Return what boxes cost, if what is too long is cut into equal parts."""
    parts = [-(-side // most) for side, most in zip(sides, longest, strict=True)]
    cut = [-(-side // number) for side, number in zip(sides, parts, strict=True)]
    return math.prod(parts) * price(cut)
