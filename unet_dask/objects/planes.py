"""Objects of neighbouring planes that are one: neurons, of a stack that a network looked at plane by plane.

Two objects are linked if each is the one that the other overlaps most, and they overlap enough. A chain of links is one
object, by the smallest of its numbers, and goes through a plane once: links that let it branch make one object of a
whole stack, wherever a neurite moves by its own width from plane to plane. What decides are numbers of voxels, which
any parts of the planes may add up in any order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from unet_dask.objects.pieces import merged, renumbered

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Tally:
    """How many voxels each of some names has; each once, in ascending order.

    Attributes
    ----------
    names : (n) numbers of objects, or (n, 2) of one in a plane and one over it in the next
    count : (n) int64, voxels
    """

    names: NDArray[np.uint64]
    count: NDArray[np.int64]

    def of(self, names: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Return the counts of single names, all of which there are."""
        return self.count[np.searchsorted(self.names, names)]

    def renamed(self, old: NDArray[np.uint64], new: NDArray[np.uint64]) -> Tally:
        """Return the counts by the names that single names become; `old` ascends."""
        names, which = np.unique(renumbered(self.names, old, new), return_inverse=True)
        count = np.zeros(len(names), np.int64)
        np.add.at(count, which, self.count)
        return Tally(names.astype(np.uint64), count)


def sizes(numbers: NDArray[np.unsignedinteger], counted: NDArray[np.bool_] | None = None) -> Tally:
    """Return how many voxels objects have.

    Parameters
    ----------
    numbers : of voxels, 0 for those of no object
    counted : which voxels count; all by default. An object may have none

    Examples
    --------
    >>> found = sizes(np.array([[0, 7, 7], [2, 0, 7]], "u4"))
    >>> found.names.tolist(), found.count.tolist()
    ([2, 7], [1, 3])
    """
    inside = numbers > 0
    names, which = np.unique(numbers[inside], return_inverse=True)
    counted = which if counted is None else which[counted[inside]]
    return Tally(names.astype(np.uint64), np.bincount(counted, minlength=len(names)))


def overlaps(plane: NDArray[np.unsignedinteger], following: NDArray[np.unsignedinteger]) -> Tally:
    """Return how many voxels of objects lie over each other in two neighbouring planes.

    Parameters
    ----------
    plane, following : numbers of objects in the same part of both

    Examples
    --------
    >>> found = overlaps(np.array([1, 1, 2, 0], "u4"), np.array([5, 5, 5, 5], "u4"))
    >>> found.names.tolist(), found.count.tolist()
    ([[1, 5], [2, 5]], [2, 1])
    """
    both = (plane > 0) & (following > 0)
    low, lows = np.unique(plane[both], return_inverse=True)
    high, highs = np.unique(following[both], return_inverse=True)
    width = max(len(high), 1)
    keys, count = np.unique(lows * width + highs, return_counts=True)
    names = np.stack([low[keys // width], high[keys % width]], axis=1)
    return Tally(names.astype(np.uint64), count.astype(np.int64))


def added(parts: Sequence[Tally]) -> Tally:
    """Return what some parts have together; all of single names, or all of pairs.

    Examples
    --------
    >>> found = added([sizes(np.array([7, 7, 2], "u4")), sizes(np.array([7], "u4"))])
    >>> found.names.tolist(), found.count.tolist()
    ([2, 7], [1, 3])
    """
    names, which = np.unique(np.concatenate([part.names for part in parts]), axis=0, return_inverse=True)
    count = np.zeros(len(names), np.int64)
    np.add.at(count, which.reshape(-1), np.concatenate([part.count for part in parts]))
    return Tally(names, count)


def linked(overlap: Tally, size: Tally, share: float) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Return the numbers that change once planes are linked, ascending, and what each becomes.

    Two objects are linked if none in the other's plane has more voxels in common with either, and these are enough.

    Parameters
    ----------
    overlap : of all neighbouring planes
    size : of all objects
    share : of the voxels that either has, that both have to have

    Examples
    --------
    >>> plane, following = np.array([1, 1, 1, 4], "u4"), np.array([5, 5, 8, 8], "u4")
    >>> size = sizes(np.stack([plane, following]))
    >>> [found.tolist() for found in linked(overlaps(plane, following), size, 0.5)]
    [[5], [1]]
    """
    either = size.of(overlap.names[:, 0]) + size.of(overlap.names[:, 1]) - overlap.count
    enough = overlap.count >= share * either
    return merged(overlap.names[_most(overlap, 0) & _most(overlap, 1) & enough])


def _most(overlap: Tally, side: int) -> NDArray[np.bool_]:
    """Return which overlaps are the largest of their object on one side; of equal ones the smallest number."""
    own, other = overlap.names[:, side], overlap.names[:, 1 - side]
    order = np.lexsort((other, -overlap.count, own))
    most = np.zeros(len(order), np.bool_)
    most[order[np.flatnonzero(np.diff(own[order], prepend=0))]] = True
    return most
