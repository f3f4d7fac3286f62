"""How much neighbouring basins have in common: a graph of numbers, whose edges are sums over edges of voxels.

What an edge holds are functions of a set of pairs of voxels: the sum of their affinities, how many they are, and the
smallest place. So it does not matter in which order, and in which parts, they are added up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from unet_dask.components import adjoining
from unet_dask.objects.pieces import renumbered

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from unet_dask.objects.basins import Ground


@dataclass(frozen=True, slots=True, eq=False)
class Graph:
    """Numbers that are neighbours; each pair once, the smaller number first, in ascending order.

    Attributes
    ----------
    ends : (n, 2), numbers as uint64; or places among some names
    total : (n) int64, sum of the affinities of their voxels that are neighbours, 1 to 254 each
    count : (n) int64, pairs of voxels, at least 1
    first : (n) uint64, smallest of the pairs: the place of its lower voxel in the volume, times its axes, and the axis
    """

    ends: NDArray[np.integer]
    total: NDArray[np.int64]
    count: NDArray[np.int64]
    first: NDArray[np.uint64]

    def __len__(self) -> int:
        return len(self.total)

    @property
    def columns(self) -> tuple[NDArray[Any], ...]:
        """What is known of the edges."""
        return self.ends, self.total, self.count, self.first

    def rows(self, keep: NDArray[np.bool_]) -> Graph:
        """Return the graph of some of the edges, (n) True for those."""
        return Graph(self.ends[keep], self.total[keep], self.count[keep], self.first[keep])

    def renamed(self, old: NDArray[np.uint64], new: NDArray[np.uint64]) -> Graph:
        """Return the graph with numbers replaced; `old` ascends. Numbers that become one have no edge."""
        ends = renumbered(self.ends.astype(np.uint64), old, new)
        return grouped(ends, self.total, self.count, self.first)


def summed(parts: Sequence[Graph]) -> Graph:
    """Return the graph of all pairs of voxels of some graphs, none of which is in two.

    Examples
    --------
    >>> part = Graph(np.array([[3, 7]], "u8"), np.array([9]), np.array([2]), np.array([5], "u8"))
    >>> both = summed([part, part])
    >>> both.ends.tolist(), both.total.tolist(), both.count.tolist(), both.first.tolist()
    ([[3, 7]], [18], [4], [5])
    """
    return grouped(
        np.concatenate([np.empty((0, 2), np.uint64), *(part.ends for part in parts)]),
        np.concatenate([np.empty(0, np.int64), *(part.total for part in parts)]),
        np.concatenate([np.empty(0, np.int64), *(part.count for part in parts)]),
        np.concatenate([np.empty(0, np.uint64), *(part.first for part in parts)]),
    )


def within(ground: Ground, numbers: NDArray[np.unsignedinteger]) -> Graph:
    """Return the graph of a part of a volume.

    Parameters
    ----------
    ground : of the part
    numbers : of its voxels, 0 for those in no basin

    Examples
    --------
    >>> from unet_dask.objects.basins import of_whole
    >>> graph = within(of_whole(np.array([[9, 7, 3, 4]], "u1"), 2), np.array([[1, 1, 3, 3]], "u4"))
    >>> graph.ends.tolist(), graph.total.tolist(), graph.count.tolist(), graph.first.tolist()
    ([[1, 3]], [3], [1], [3])
    """
    values = ground.foreground[ground.own]
    sides = zip(ground.axes, adjoining(values.ndim, ground.dims), strict=True)
    return summed([_along(ground, numbers, values, axis, low, high) for axis, (low, high) in sides])


def across(ground: Ground, numbers: NDArray[np.unsignedinteger], axis: int) -> Graph:
    """Return the graph across a face: of a part that is two voxels thick along the axis across."""
    values = ground.foreground[ground.own]
    low, high = ((slice(None),) * axis + (slice(*ends),) for ends in ((0, 1), (1, 2)))
    return summed([_along(ground, numbers, values, axis, low, high)])


def _along(
    ground: Ground,
    numbers: NDArray[np.unsignedinteger],
    values: NDArray[np.uint8],
    axis: int,
    low: tuple[slice, ...],
    high: tuple[slice, ...],
) -> Graph:
    """Return all pairs of voxels along an axis, whose numbers differ."""
    before, behind = numbers[low], numbers[high]
    at = np.nonzero((before != behind) & (before > 0) & (behind > 0))
    places = np.ravel_multi_index(
        tuple(each + offset for each, offset in zip(at, ground.origin, strict=True)), ground.shape
    )
    total = np.minimum(values[low][at], values[high][at]).astype(np.int64)
    return Graph(
        np.stack([before[at], behind[at]], axis=1).astype(np.uint64),
        total,
        np.ones_like(total),
        places.astype(np.uint64) * np.uint64(numbers.ndim) + np.uint64(axis),
    )


def grouped(
    ends: NDArray[Any], total: NDArray[np.int64], count: NDArray[np.int64], first: NDArray[np.uint64]
) -> Graph:
    """Return the graph of edges that may be there several times, in any order, or have one end twice."""
    two = ends[:, 0] != ends[:, 1]
    low, high = ends[two].min(axis=1), ends[two].max(axis=1)
    order = np.lexsort((high, low))
    low, high = low[order], high[order]
    new = np.flatnonzero(np.append(True, (low[1:] != low[:-1]) | (high[1:] != high[:-1]))[: len(low)])
    total, count, first = (each[two][order] for each in (total, count, first))
    if not len(new):
        return Graph(ends[:0], total, count, first)
    return Graph(
        np.stack([low[new], high[new]], axis=1),
        np.add.reduceat(total, new),
        np.add.reduceat(count, new),
        np.minimum.reduceat(first, new),
    )
