"""Graphs of what neighbours have in common, and what agglomeration makes of them."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest

from unet_dask.objects.adjacency import Graph, summed
from unet_dask.objects.agglomeration import agglomerated, least, means
from unet_dask.objects.basins import CERTAIN


def chain(*edges: tuple[int, int, int, int, int]) -> Graph:
    """Return a graph of (low, high, total, count, first)."""
    table = np.array(edges)
    return Graph(
        table[:, :2].astype(np.uint64), table[:, 2].copy(), table[:, 3].copy(), table[:, 4].astype(np.uint64)
    )


def test_of_equal_edges_the_first_place_is_merged_and_not_the_smallest_number() -> None:
    # By numbers 1 and 2 were merged first, and 2 would keep 3 off: (100 + 10) / 2 < 80.
    graph = chain((1, 2, 100, 1, 9), (2, 3, 100, 1, 4), (1, 3, 10, 1, 1))
    merged = agglomerated(graph, 80 / CERTAIN)
    assert (merged.old.tolist(), merged.new.tolist()) == ([3], [2])


def test_what_has_most_in_common_with_what_is_frozen_waits_for_it() -> None:
    graph = chain((1, 2, 90, 1, 1), (2, 3, 80, 1, 2), (3, 4, 70, 1, 3), (5, 6, 60, 1, 4), (6, 7, 10, 1, 5))
    merged = agglomerated(graph, 50 / CERTAIN, np.array([1], np.uint64))
    # 2 waits for 1, and 3 for 2, and 4 for 3; 5 and 6 have nobody to wait for, and 7 is done.
    assert (merged.old.tolist(), merged.new.tolist()) == ([6], [5])
    assert merged.graph.ends.tolist() == [[1, 2], [2, 3], [3, 4]]


def test_means_are_in_the_order_of_the_fractions() -> None:
    random = np.random.default_rng(0)
    count = random.integers(1, 1 << 28, 500)
    total = (count * random.random(500) * CERTAIN).astype(np.int64)
    near = np.concatenate([total, total + 1, total])
    counts = np.concatenate([count, count, np.maximum(count - 1, 1)])
    found = means(near, counts).tolist()
    fractions = [Fraction(int(a), int(b)) for a, b in zip(near, counts, strict=True)]
    order = sorted(range(len(found)), key=lambda at: fractions[at])
    for one, other in pairwise(order):
        assert (found[one] < found[other]) == (fractions[one] < fractions[other])
    assert found == [(int(a) << 56) // int(b) for a, b in zip(near, counts, strict=True)]


@pytest.mark.parametrize("threshold", [0.1, 1 / 3, 0.5, 100 / 254, 1.0])
def test_a_threshold_is_reached_by_the_mean_that_it_is(threshold: float) -> None:
    limit, count = int(least(threshold)), np.arange(1, 300)
    total = np.array([int(threshold * CERTAIN * each) for each in count.tolist()])
    for add in (0, 1):
        reached = means(total + add, count) >= np.uint64(limit)
        exact = [
            Fraction(int(a), int(b)) >= Fraction(threshold) * CERTAIN
            for a, b in zip(total + add, count, strict=True)
        ]
        assert reached.tolist() == exact


def test_an_object_with_thousands_of_neighbours_takes_them_all() -> None:
    """Each round of pairs would take one: it is the heap that ends this."""
    leaves = np.arange(2, 20_002, dtype=np.uint64)
    ends = np.stack([np.ones_like(leaves), leaves], axis=1)
    graph = Graph(ends, np.full(len(leaves), 200), np.ones(len(leaves), np.int64), leaves * np.uint64(2))
    merged = agglomerated(graph, 0.5)
    assert len(merged.old) == len(leaves)
    assert set(merged.new.tolist()) == {1}
    assert not len(merged.graph)


def test_graphs_of_parts_add_up_in_any_order() -> None:
    parts = [chain((1, 2, 5, 2, 7)), chain((2, 3, 1, 1, 3)), chain((1, 2, 6, 1, 4))]
    for order in ([0, 1, 2], [2, 1, 0]):
        found = summed([parts[at] for at in order])
        assert found.ends.tolist() == [[1, 2], [2, 3]]
        assert (found.total.tolist(), found.count.tolist(), found.first.tolist()) == ([11, 1], [3, 1], [4, 3])
    assert not len(summed([]))
    one = summed(parts).renamed(np.array([2, 3], np.uint64), np.array([1, 1], np.uint64))
    assert not len(one)
