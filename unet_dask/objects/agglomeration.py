"""Mean-affinity agglomeration: the pair that has most in common becomes one, until none has enough.

The rank of an edge is the mean affinity of its pairs of voxels and, of equal means, the smallest of these pairs. When
two ends become one, their edges to a third are added up: the mean of the sum lies between the two means, and its
smallest pair is the smaller one. So no edge ever rises above both that it came of. A pair, each of which is the best
that the other has, stays so whatever becomes of the rest, and may be merged at once: the outcome is that of merging the
best pair of all again and again (Lu, Zlateski, Seung, arXiv:2106.10795; `docs/decisions/0028-neurites.md`).

That is why a part of a volume may merge what it knows all edges of (the rest is `frozen`), and leave the rest to who
knows more; and why pairs are merged here in rounds, all at a time, until so few are left that one by one is faster.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from unet_dask.objects.adjacency import Graph, grouped, summed
from unet_dask.objects.basins import CERTAIN
from unet_dask.objects.greedy import PLACES, merged_greedily
from unet_dask.objects.pieces import merged

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Edges that a round has to have per pair that it merges before pairs are merged one by one.
_FEW = 256


@dataclass(frozen=True, slots=True, eq=False)
class Merged:
    """What agglomeration comes to.

    Attributes
    ----------
    old, new : numbers that change, ascending, and what they become: the smallest of their object
    graph : edges between objects that may become one yet, because one of them is frozen, or waits for one that is
    """

    old: NDArray[np.uint64]
    new: NDArray[np.uint64]
    graph: Graph


def agglomerated(graph: Graph, threshold: float, frozen: NDArray[np.uint64] | None = None) -> Merged:
    """Merge pairs of the highest rank while their mean affinity reaches a threshold.

    Parameters
    ----------
    graph : of all edges of numbers that are not frozen
    threshold : mean affinity, as a share of the highest: 0 to 1
    frozen : numbers that have edges elsewhere; they stay as they are, and so does what has most in common with them

    Examples
    --------
    >>> graph = Graph(
    ...     np.array([[1, 2], [2, 3]], "u8"), np.array([500, 300]), np.array([2, 2]), np.array([7, 9], "u8")
    ... )
    >>> agglomerated(graph, 0.8).new.tolist(), agglomerated(graph, 0.5).new.tolist()
    ([1], [1, 1])
    >>> agglomerated(graph, 0.5, np.array([3], "u8")).new.tolist()
    [1]
    """
    names, ends = np.unique(graph.ends, return_inverse=True)
    state = _State(
        replace(graph, ends=ends.reshape(-1, 2)),
        means(graph.total, graph.count),
        np.zeros(len(names), np.bool_) if frozen is None else np.isin(names, frozen),
        least(threshold),
    )
    pairs, settled = [np.empty((0, 2), np.int64)], list[Graph]()
    while True:
        state, both = state.open()
        settled.append(both)
        found, waiting = state.best()
        if (len(found) + len(waiting)) * _FEW <= len(state.edges):
            break
        state.frozen[waiting] = True
        pairs.append(found)
        state = state.merged(found)
    found, left = merged_greedily(state.edges, state.frozen, int(state.limit))
    old, new = merged(names[np.concatenate([*pairs, found])])
    rest = summed([replace(each, ends=names[each.ends]) for each in (*settled, left)])
    return Merged(old, new, rest.renamed(old, new))


def means(total: NDArray[np.int64], count: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Return means as whole numbers of 2**-56, rounded down; means that differ do so here while counts are below 2**28.

    Rounding keeps the order; and what is merged of two equal means has that mean. In float64 means of 7 million pairs
    and more could be taken for equal that are not, and then an edge could rise by being merged.

    Examples
    --------
    >>> [int(mean) for mean in means(np.array([508, 1]), np.array([2, 3]))]
    [18302628885633695744, 24019198012642645]
    """
    found = np.zeros(total.shape, np.uint64)
    rest = total
    for shift in (0, PLACES // 2, PLACES // 2):
        whole, rest = np.divmod(rest << shift, count)
        found = (found << np.uint64(shift)) + whole.astype(np.uint64)
    return found


def least(threshold: float) -> np.uint64:
    """Return the smallest of the :func:`means` that reach a threshold, a share of the highest affinity."""
    scaled = math.ceil(Fraction(threshold) * CERTAIN * (1 << PLACES))
    return np.uint64(min(scaled, (1 << 64) - 1))


@dataclass(frozen=True, slots=True, eq=False)
class _State:
    """Edges between places among the names, in any order, with their means."""

    edges: Graph
    mean: NDArray[np.uint64]
    frozen: NDArray[np.bool_]
    limit: np.uint64

    def open(self) -> tuple[_State, Graph]:
        """Return the edges that may matter yet, and those of two frozen ends, which are settled here.

        What has no edge that reaches the limit, and is not frozen, will never have one: its edges are dropped.
        """
        going = self.frozen.copy()
        going[self.edges.ends[self.mean >= self.limit]] = True
        settled: NDArray[np.bool_] = np.all(self.frozen[self.edges.ends], axis=1)
        keep: NDArray[np.bool_] = np.all(going[self.edges.ends], axis=1) & ~settled
        left = self if keep.all() else replace(self, edges=self.edges.rows(keep), mean=self.mean[keep])
        return left, self.edges.rows(settled)

    def best(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return pairs, (n, 2), each of which is the best that the other has, and what waits for something frozen.

        No place is in two of the pairs. What has most in common with something frozen will never have more with
        anything else: what edges become when others merge lies between what they were.
        """
        at = np.flatnonzero(self.mean >= self.limit)
        ends, mean, first = self.edges.ends[at], self.mean[at], self.edges.first[at]
        best = np.zeros(len(self.frozen), np.uint64)
        earliest = np.full(len(self.frozen), np.iinfo(np.uint64).max)
        for side in ends.T:
            np.maximum.at(best, side, mean)
        equal = mean[:, None] == best[ends]
        for side, same in zip(ends.T, equal.T, strict=True):
            np.minimum.at(earliest, side[same], first[same])
        chosen = equal & (first[:, None] == earliest[ends])
        frozen = self.frozen[ends]
        found = ends[chosen.all(axis=1) & ~frozen.any(axis=1)]
        return np.asarray(found, np.int64), np.asarray(ends[chosen & frozen[:, ::-1] & ~frozen], np.int64)

    def merged(self, pairs: NDArray[np.int64]) -> _State:
        """Return what is left once pairs have become one, by the name of the first of each."""
        to = np.arange(len(self.frozen))
        to[pairs[:, 1]] = pairs[:, 0]
        joined = np.zeros(len(self.frozen), np.bool_)
        joined[pairs] = True
        changes: NDArray[np.bool_] = np.any(joined[self.edges.ends], axis=1)
        changed, same = self.edges.rows(changes), self.edges.rows(~changes)
        changed = grouped(to[changed.ends], changed.total, changed.count, changed.first)
        return replace(
            self,
            edges=Graph(*(np.concatenate(each) for each in zip(same.columns, changed.columns, strict=True))),
            mean=np.concatenate([self.mean[~changes], means(changed.total, changed.count)]),
        )
