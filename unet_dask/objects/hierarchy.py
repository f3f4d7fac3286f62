"""Agglomeration of many parts, neighbours first: what the whole graph comes to, in the memory of what is still open.

Two neighbouring parts know all edges of whatever lies within both. They merge that, and pass on what goes on elsewhere;
so do two such pairs, until one is left. That the result is that of the whole graph, whoever merges what, is why regions
may merge by themselves [1]_: what has edges elsewhere is frozen, and so is what waits for it.

References
----------
.. [1] Lu, Zlateski, Seung: "Large-scale image segmentation based on distributed clustering algorithms",
   arXiv 2106.10795, 2021.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from unet_dask.objects.adjacency import summed
from unet_dask.objects.agglomeration import agglomerated
from unet_dask.objects.pieces import followed, merged, renumbered

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from unet_dask.objects.adjacency import Graph
    from unet_dask.objects.pieces import Changes


def joined(
    parts: Sequence[Graph],
    pairs: NDArray[np.uint64],
    threshold: float,
    ask: Callable[[int], object] = lambda edges: None,
) -> Changes:
    """Return the numbers that change once parts know each other, ascending, and what each becomes.

    Parameters
    ----------
    parts : graphs, in an order in which neighbours are near; an edge between two parts is in one of them
    pairs : (n, 2), numbers of two parts that are one basin
    threshold : mean affinity from which on two are one, as a share of the highest
    ask : called with the number of edges before so many are merged at a time; raises if they are too many

    Examples
    --------
    >>> from unet_dask.objects.adjacency import Graph
    >>> def edge(low, high, total):
    ...     return Graph(np.array([[low, high]], "u8"), np.array([total]), np.array([1]), np.array([low], "u8"))
    >>> old, new = joined([edge(1, 2, 250), edge(4, 5, 240)], np.array([[2, 4]], "u8"), 0.5)
    >>> old.tolist(), new.tolist()
    ([2, 4, 5], [1, 1, 1])
    """
    basin = merged(pairs)
    if not parts:
        return basin
    tree = _Tree(parts, basin, _mentions(parts, basin), threshold, ask)
    tree.merge(0, len(parts))
    return followed(basin, merged(np.concatenate(tree.pairs)))


@dataclass(frozen=True, slots=True, eq=False)
class _Mentions:
    """Numbers, ascending, and the first and the last part that knows an edge of each."""

    names: NDArray[np.uint64]
    first: NDArray[np.intp]
    last: NDArray[np.intp]

    def open(self, names: NDArray[np.uint64], begin: int, end: int) -> NDArray[np.uint64]:
        """Return those of some numbers that parts know which are not among these."""
        at = np.searchsorted(self.names, names)
        return names[(self.first[at] < begin) | (self.last[at] >= end)]


def _mentions(parts: Sequence[Graph], basin: Changes) -> _Mentions:
    """Return which parts know which numbers, once basins have one each."""
    known = [np.unique(renumbered(np.unique(part.ends), *basin)) for part in parts]
    names = np.unique(np.concatenate(known))
    first, last = np.full(len(names), len(parts)), np.zeros(len(names), np.intp)
    for place, those in enumerate(known):
        at = np.searchsorted(names, those)
        first[at] = np.minimum(first[at], place)
        last[at] = place
    return _Mentions(names, first, last)


@dataclass(frozen=True, slots=True, eq=False)
class _Tree:
    """Parts that are merged by halves.

    Attributes
    ----------
    parts : graphs of numbers as parts have them
    basin : changes of those that are one basin
    mentions : of numbers
    threshold, ask : see :func:`joined`
    pairs : (n, 2) each, numbers that have become one
    """

    parts: Sequence[Graph]
    basin: Changes
    mentions: _Mentions
    threshold: float
    ask: Callable[[int], object]
    pairs: list[NDArray[np.uint64]] = field(default_factory=list)

    def merge(self, begin: int, end: int) -> Graph:
        """Merge what only these parts know, and return the edges that are left."""
        if end - begin == 1:
            graph = self.parts[begin].renamed(*self.basin)
            self.ask(len(graph))
        else:
            middle = (begin + end) // 2
            halves = self.merge(begin, middle), self.merge(middle, end)
            self.ask(sum(len(half) for half in halves))
            graph = summed(halves)
            del halves
        made = agglomerated(graph, self.threshold, self.mentions.open(np.unique(graph.ends), begin, end))
        self.pairs.append(np.stack([made.old, made.new], axis=1))
        return made.graph
