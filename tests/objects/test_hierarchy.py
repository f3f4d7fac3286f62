"""Graphs of parts, merged neighbours first: what the whole graph comes to, and never much of it at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unet_dask.objects.adjacency import Graph, grouped, summed
from unet_dask.objects.agglomeration import agglomerated
from unet_dask.objects.hierarchy import joined
from unet_dask.objects.pieces import followed, merged

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from unet_dask.objects.pieces import Changes


@st.composite
def worlds(draw: st.DrawFn) -> tuple[list[Graph], NDArray[np.uint64], float]:
    """Return edges of some numbers, said by some parts, numbers that are one, and a threshold."""
    numbers, edges, parts = draw(st.integers(2, 12)), draw(st.integers(0, 40)), draw(st.integers(1, 7))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    ends = rng.integers(1, numbers + 1, (edges, 2)).astype(np.uint64)
    count = rng.integers(1, 4, edges)
    total = count * rng.integers(1, 5, edges) * 60
    first = rng.permutation(edges).astype(np.uint64)
    owner = rng.integers(0, parts, edges)
    said = [grouped(*(each[owner == part] for each in (ends, total, count, first))) for part in range(parts)]
    pairs = rng.integers(1, numbers + 1, (draw(st.integers(0, 3)), 2)).astype(np.uint64)
    return said, pairs, draw(st.sampled_from([0.1, 0.3, 0.5, 0.7]))


def at_once(parts: list[Graph], pairs: NDArray[np.uint64], threshold: float) -> Changes:
    """Put everything into one graph."""
    basin = merged(pairs)
    made = agglomerated(summed(parts).renamed(*basin), threshold)
    return followed(basin, (made.old, made.new))


@given(worlds())
@settings(max_examples=500, deadline=None)
def test_parts_come_to_what_the_whole_graph_comes_to(
    world: tuple[list[Graph], NDArray[np.uint64], float],
) -> None:
    for found, wanted in zip(joined(*world), at_once(*world), strict=True):
        np.testing.assert_array_equal(found, wanted)


def strip(length: int, across: int) -> list[Graph]:
    """Return the graphs of the rows of a noisy sheet of basins: each with what lies between it and the next."""
    rng = np.random.default_rng(3)
    names = np.arange(1, length * across + 1, dtype=np.uint64).reshape(length, across)
    parts = []
    for row in range(length):
        beside = [np.stack([names[row, :-1], names[row, 1:]], axis=1)]
        if row + 1 < length:
            beside.append(np.stack([names[row], names[row + 1]], axis=1))
        ends = np.concatenate(beside)
        count = rng.integers(1, 50, len(ends))
        total = np.maximum((count * rng.beta(2, 2, len(ends)) * 254).astype(np.int64), 1)
        first = names[row, 0] * 4 + np.arange(len(ends), dtype=np.uint64)
        parts.append(grouped(ends, total, count, first))
    return parts


def test_no_more_is_merged_at_a_time_than_is_open_between_neighbours() -> None:
    parts, asked = strip(256, 40), list[int]()
    pairs = np.empty((0, 2), np.uint64)
    found = joined(parts, pairs, 0.5, asked.append)
    for mine, wanted in zip(found, at_once(parts, pairs, 0.5), strict=True):
        np.testing.assert_array_equal(mine, wanted)
    assert max(asked) < sum(len(part) for part in parts) / 10


def test_who_is_asked_may_refuse() -> None:
    def refuse(edges: int) -> None:
        raise MemoryError(f"{edges} edges")

    with pytest.raises(MemoryError, match="79 edges"):
        joined(strip(2, 40), np.empty((0, 2), np.uint64), 0.5, refuse)


def test_nothing_comes_to_nothing() -> None:
    old, new = joined([], np.empty((0, 2), np.uint64), 0.5)
    assert old.tolist() == new.tolist() == []
