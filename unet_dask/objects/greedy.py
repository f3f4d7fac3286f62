"""Agglomeration pair by pair: what rounds of many pairs leave, see :mod:`unet_dask.objects.agglomeration`.

An object with thousands of small neighbours takes one of them a round. A heap of all edges costs more for each pair,
but nothing for those that stay as they are.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np

from unet_dask.objects.adjacency import Graph

if TYPE_CHECKING:
    from numpy.typing import NDArray

    #: Sum, count and smallest of the pairs of voxels of an edge.
    Sums = tuple[int, int, int]

#: Binary places of a mean.
PLACES = 56


def merged_greedily(edges: Graph, frozen: NDArray[np.bool_], limit: int) -> tuple[NDArray[np.int64], Graph]:
    """Merge the best pair of all again and again.

    Parameters
    ----------
    edges : between places among some names
    frozen : of every place, whether it stays as it is; then what has most in common with it does, too
    limit : least mean of a pair that is merged, in units of 2**-56

    Returns
    -------
    the pairs that were merged, (n, 2), and the edges that are left between one name each of what was merged
    """
    left = _Left(edges, limit)
    stays = set(np.flatnonzero(frozen).tolist())
    pairs = []
    while pair := left.best():
        if stays.isdisjoint(pair):
            pairs.append(pair)
            left.merge(*pair)
        else:
            stays.update(pair)
    return np.array(pairs, np.int64).reshape(-1, 2), left.graph()


class _Left:
    """Edges that are left, and a heap of those that may be merged, with some that are no more."""

    def __init__(self, edges: Graph, limit: int) -> None:
        self.limit = limit
        self.around: defaultdict[int, dict[int, Sums]] = defaultdict(dict)
        self.heap: list[tuple[int, int, int, int]] = []
        for (one, other), *sums in zip(*(each.tolist() for each in edges.columns), strict=True):
            self._put(one, other, tuple(sums))

    def _put(self, one: int, other: int, sums: Sums) -> None:
        self.around[one][other] = self.around[other][one] = sums
        total, count, first = sums
        mean = (total << PLACES) // count
        if mean >= self.limit:
            heapq.heappush(self.heap, (-mean, first, one, other))

    def best(self) -> tuple[int, int] | None:
        """Take the best pair off the heap; None if none is left."""
        while self.heap:
            less, first, one, other = heapq.heappop(self.heap)
            total, count, now = self.around[one].get(other, (0, 1, -1))
            if now == first and (total << PLACES) // count == -less:
                return one, other
        return None

    def merge(self, one: int, other: int) -> None:
        """Let two be one, by the name of that which has more neighbours."""
        if len(self.around[one]) < len(self.around[other]):
            one, other = other, one
        del self.around[one][other]
        for third, sums in self.around.pop(other).items():
            if third == one:
                continue
            del self.around[third][other]
            if there := self.around[one].get(third):
                sums = (sums[0] + there[0], sums[1] + there[1], min(sums[2], there[2]))
            self._put(one, third, sums)

    def graph(self) -> Graph:
        """Return the edges."""
        rows = [
            (one, other, *sums)
            for one, beside in self.around.items()
            for other, sums in beside.items()
            if one < other
        ]
        low, high, total, count, first = zip(*rows, strict=True) if rows else ((),) * 5
        return Graph(
            np.array([low, high], np.int64).T,
            np.array(total, np.int64),
            np.array(count, np.int64),
            np.array(first, np.uint64),
        )
