"""Objects of neighbouring planes that are one: neurons, of a stack that a network looked at plane by plane.

Two objects are linked if they overlap enough, and a chain of links is one object, by the smallest of its numbers. What
decides are numbers of voxels, which any parts of the planes may add up in any order.
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
    count : (n) int64, voxels, at least 1
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


def sizes(numbers: NDArray[np.unsignedinteger]) -> Tally:
    """Return how many voxels objects have.

    Parameters
    ----------
    numbers : of voxels, 0 for those of no object

    Examples
    --------
    >>> found = sizes(np.array([[0, 7, 7], [2, 0, 7]], "u4"))
    >>> found.names.tolist(), found.count.tolist()
    ([2, 7], [1, 3])
    """
    names, count = np.unique(numbers[numbers > 0], return_counts=True)
    return Tally(names.astype(np.uint64), count.astype(np.int64))


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

    Parameters
    ----------
    overlap : of all neighbouring planes
    size : of all objects
    share : of the smaller object, from which on an overlap links the two

    Examples
    --------
    >>> plane, following = np.array([1, 1, 1, 4], "u4"), np.array([5, 5, 8, 8], "u4")
    >>> size = sizes(np.stack([plane, following]))
    >>> [found.tolist() for found in linked(overlaps(plane, following), size, 0.6)]
    [[5, 8], [1, 4]]
    """
    smaller = np.minimum(size.of(overlap.names[:, 0]), size.of(overlap.names[:, 1]))
    return merged(overlap.names[overlap.count >= share * smaller])
