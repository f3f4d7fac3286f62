"""Neurites of a volume are those of the whole, whatever it was cut into."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise, product
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unet_dask.errors import OptionError
from unet_dask.objects import agglomeration
from unet_dask.objects.adjacency import Graph, summed, within
from unet_dask.objects.agglomeration import agglomerated, least, means
from unet_dask.objects.basins import CERTAIN, SURE, Ground, basins, foreground, of_whole
from unet_dask.objects.neurites import (
    Face,
    Part,
    finished,
    followed,
    joined,
    of_face,
    of_part,
    size_of,
    small,
)
from unet_dask.objects.planes import added
from unet_dask.objects.rule import METHODS, ObjectRule
from unet_dask.objects.whole import neurites_of, objects_in

if TYPE_CHECKING:
    from numpy.typing import NDArray

Place = tuple[int, ...]


@dataclass(frozen=True)
class Edge:
    """Two neighbours of a volume."""

    low: Place
    high: Place
    affinity: int
    higher: int
    number: int


def edges_of(values: NDArray[np.uint8], dims: int) -> list[Edge]:
    """Return all edges between voxels of a volume that belong to basins."""
    found = []
    for number, place in enumerate(np.ndindex(values.shape)):
        for axis in range(values.ndim - dims, values.ndim):
            there = (*place[:axis], place[axis] + 1, *place[axis + 1 :])
            if there[axis] < values.shape[axis]:
                less, more = sorted([int(values[place]), int(values[there])])
                if less:
                    found.append(Edge(place, there, less, more, number * values.ndim + axis))
    return found


class Groups:
    """Sets of places that grow together, each known by its first place."""

    def __init__(self, values: NDArray[np.uint8]) -> None:
        self.of = {place: {place} for place in np.ndindex(values.shape) if values[place]}

    def unite(self, one: Place, other: Place) -> None:
        """Let the sets of two places be one."""
        if self.of[one] is not self.of[other]:
            both = self.of[one] | self.of[other]
            for place in both:
                self.of[place] = both

    def numbers(self, shape: tuple[int, ...]) -> NDArray[np.int64]:
        """Return the number of every voxel: the place of the first of its set, and one more."""
        found = np.zeros(shape, np.int64)
        for place, group in self.of.items():
            found[place] = np.ravel_multi_index(min(group), shape) + 1
        return found


def slow_basins(values: NDArray[np.uint8], dims: int) -> tuple[Groups, list[Edge]]:
    """Bond every voxel to the best of its neighbours, one by one."""
    edges, groups = edges_of(values, dims), Groups(values)
    for place in groups.of:
        own = [edge for edge in edges if place in (edge.low, edge.high)]
        if own:
            best = max(own, key=lambda edge: (edge.affinity, edge.higher, -edge.number))
            groups.unite(best.low, best.high)
    for edge in edges:
        if edge.affinity >= SURE:
            groups.unite(edge.low, edge.high)
    return groups, edges


def slowly(values: NDArray[np.uint8], threshold: float, dims: int) -> NDArray[np.int64]:
    """Merge the best pair of a whole volume again and again, and count anew what is left each time."""
    groups, edges = slow_basins(values, dims)
    while True:
        between: dict[frozenset[int], list[Edge]] = {}
        for edge in edges:
            ends = groups.of[edge.low], groups.of[edge.high]
            if ends[0] is not ends[1]:
                between.setdefault(frozenset(map(id, ends)), []).append(edge)
        ranks = [
            (
                Fraction(sum(edge.affinity for edge in each), len(each)),
                -min(edge.number for edge in each),
                each,
            )
            for each in between.values()
        ]
        best = max(ranks, default=None, key=lambda rank: rank[:2])
        if best is None or best[0] < Fraction(threshold) * CERTAIN:
            return groups.numbers(values.shape)
        groups.unite(best[2][0].low, best[2][0].high)


PALETTES = st.sampled_from(
    [
        (0, 254),
        (0, 1, 2),
        (100, 101),
        (0, 100, 200),
        (50, 50, 51, 240),
        tuple(range(0, 255, 25)),
        tuple(range(255)),
    ]
)


@st.composite
def volumes(draw: st.DrawFn, most: int = 7) -> tuple[NDArray[np.uint8], int]:
    """Return foreground with few values, so that there are plateaus and ties, or many; and dimensions."""
    dims = draw(st.sampled_from([1, 2, 3]))
    ndim = draw(st.integers(max(dims, 2), 3))
    shape = tuple(draw(st.integers(1, most)) for _ in range(ndim))
    random = np.random.default_rng(draw(st.integers(0, 1 << 20)))
    return random.choice(np.array(draw(PALETTES), np.uint8), shape), dims


@st.composite
def cut_volumes(draw: st.DrawFn) -> tuple[NDArray[np.uint8], int, list[list[int]]]:
    """Return a volume, and along each axis where parts begin and the last ends; parts may be a voxel thick."""
    values, dims = draw(volumes())
    ends = [sorted({0, side, *draw(st.lists(st.integers(0, side), max_size=side))}) for side in values.shape]
    return values, dims, ends


def ground_of(values: NDArray[np.uint8], spans: tuple[tuple[int, int], ...], dims: int) -> Ground:
    """Return a part with a voxel around it, and nothing else."""
    around = tuple(
        (max(start - (axis >= values.ndim - dims), 0), min(stop + (axis >= values.ndim - dims), side))
        for axis, ((start, stop), side) in enumerate(zip(spans, values.shape, strict=True))
    )
    window = values[tuple(slice(*span) for span in around)].copy()
    own = tuple(slice(a - first, b - first) for (a, b), (first, _) in zip(spans, around, strict=True))
    return Ground(window, tuple(first for first, _ in around), own, values.shape, dims)


def slowly_finished(
    made: NDArray[np.int64], values: NDArray[np.uint8], rule: ObjectRule, dims: int
) -> NDArray[Any]:
    """Drop what is too small, and let the others grow over it, voxel by voxel."""
    made = made.copy()
    gone = np.zeros(made.shape, np.bool_)
    for name in np.unique(made[made > 0]):
        if np.count_nonzero((made == name) & (values > CERTAIN // 2)) < max(rule.min_size, 1):
            gone |= made == name
    made[gone] = 0
    for _ in range(rule.grow):
        before = made.copy()
        for place in zip(*np.nonzero(gone & (before == 0)), strict=True):
            beside = []
            for axis, step in product(range(values.ndim - dims, values.ndim), (-1, 1)):
                there = (*place[:axis], place[axis] + step, *place[axis + 1 :])
                if 0 <= there[axis] < values.shape[axis] and before[there]:
                    beside.append(before[there])
            made[place] = min(beside, default=0)
    return made


def cut(
    values: NDArray[np.uint8],
    threshold: float,
    dims: int,
    ends: list[list[int]],
    rule: ObjectRule | None = None,
) -> NDArray[Any]:
    """Make the neurites of a volume in parts, and finish them if there is a rule for it."""
    boxes = list(product(*(list(pairwise(each)) for each in ends)))
    numbers = np.zeros(values.shape, np.uint32)
    parts: list[Part] = []
    for box in boxes:
        parts.append(of_part(ground_of(values, box, dims), threshold, "uint32"))
        numbers[tuple(slice(*span) for span in box)] = parts[-1].numbers
    faces: list[Face] = []
    for box, axis in product(boxes, range(values.ndim - dims, values.ndim)):
        stop = box[axis][1]
        if stop < values.shape[axis]:
            two = (*box[:axis], (stop - 1, stop + 1), *box[axis + 1 :])
            beside = numbers[tuple(slice(*span) for span in two)]
            faces.append(of_face(ground_of(values, two, dims), beside, axis))
    changes = joined(faces, [part.graph for part in parts], threshold)
    if rule is None:
        return finished(numbers, changes, grow=0, dims=dims)
    size = added(
        [
            size_of(finished(numbers[own], changes, grow=0, dims=dims), values[own])
            for own in (tuple(slice(*span) for span in box) for box in boxes)
        ]
    )
    changes = followed(changes, small(size, rule.min_size))
    made = np.zeros_like(numbers)
    for box in boxes:
        around = tuple(slice(max(start - rule.grow, 0), stop + rule.grow) for start, stop in box)
        own = tuple(
            slice(start - part.start, stop - part.start)
            for (start, stop), part in zip(box, around, strict=True)
        )
        final = finished(numbers[around], changes, grow=rule.grow, dims=dims)[own]
        made[tuple(slice(*span) for span in box)] = final
    return made


@given(volume=volumes(most=6))
@settings(max_examples=150, deadline=None)
def test_basins_are_what_bonds_of_single_voxels_connect(volume: tuple[NDArray[np.uint8], int]) -> None:
    values, dims = volume
    groups, edges = slow_basins(values, dims)
    found = basins(of_whole(values, dims), "uint32")
    np.testing.assert_array_equal(found, groups.numbers(values.shape))
    graph = within(of_whole(values, dims), found)
    across = [edge for edge in edges if found[edge.low] != found[edge.high]]
    assert int(graph.count.sum()) == len(across)
    assert int(graph.total.sum()) == sum(edge.affinity for edge in across)
    assert set(graph.first.tolist()) <= {edge.number for edge in across}


@given(volume=cut_volumes(), threshold=st.sampled_from([0.0001, 0.2, 100 / 254, 0.5, 0.7, 1.0]))
@settings(max_examples=300, deadline=None)
def test_neurites_of_any_parts_are_those_of_the_whole(
    volume: tuple[NDArray[np.uint8], int, list[list[int]]], threshold: float
) -> None:
    values, dims, ends = volume
    expected = slowly(values, threshold, dims)
    np.testing.assert_array_equal(of_part(of_whole(values, dims), threshold, "uint32").numbers, expected)
    np.testing.assert_array_equal(cut(values, threshold, dims, ends), expected)


@given(
    volume=cut_volumes(),
    threshold=st.sampled_from([0.2, 0.5, 0.7]),
    size=st.integers(0, 4),
    grow=st.integers(0, 3),
)
@settings(max_examples=150, deadline=None)
def test_neurites_of_any_parts_are_finished_as_those_of_the_whole(
    volume: tuple[NDArray[np.uint8], int, list[list[int]]], threshold: float, size: int, grow: int
) -> None:
    values, dims, ends = volume
    rule = ObjectRule(threshold=threshold, min_size=size, grow=grow)
    expected = slowly_finished(slowly(values, threshold, dims), values, rule, dims)
    np.testing.assert_array_equal(neurites_of(values, rule, dims), expected)
    np.testing.assert_array_equal(cut(values, threshold, dims, ends, rule), expected)


@given(volume=cut_volumes(), threshold=st.sampled_from([0.0001, 0.2, 100 / 254, 0.5, 0.7, 1.0]))
@settings(max_examples=100, deadline=None)
def test_pairs_are_merged_alike_in_rounds_and_one_by_one(
    volume: tuple[NDArray[np.uint8], int, list[list[int]]], threshold: float
) -> None:
    values, dims, ends = volume
    ways = []
    for few in (0, 1 << 40):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(agglomeration, "_FEW", few)
            ways.append(cut(values, threshold, dims, ends))
    np.testing.assert_array_equal(ways[0], ways[1])


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


def test_bytes_and_floats_of_a_product_make_the_same_foreground() -> None:
    background = np.random.default_rng(0).random((40, 50)).astype(np.float32)
    stored = np.rint(background * np.float32(CERTAIN)).astype(np.uint8)
    np.testing.assert_array_equal(foreground(background), foreground(stored))
    both = np.stack([background, 1 - background])
    rule = ObjectRule(threshold=0.5, min_size=3, grow=1)
    found = objects_in(both, rule)
    np.testing.assert_array_equal(found, objects_in(np.stack([stored, CERTAIN - stored]), rule))
    sizes = np.bincount(found[background < 0.5])[1:]
    assert sizes[sizes > 0].min() >= 3


def test_a_gap_in_a_membrane_does_not_make_one_neurite_of_two() -> None:
    background = np.zeros((40, 40), np.float32)
    background[:, 20] = 1
    background[18:21, 20] = 0.2
    both = np.stack([background, 1 - background])
    assert len(np.unique(objects_in(both, ObjectRule()))) == 2  # with background
    assert set(np.unique(objects_in(both, METHODS["neurites"])).tolist()) == {1, 22}


@pytest.mark.parametrize(
    "fields",
    [
        {"threshold": 1.1},
        {"threshold": -0.1},
        {"threshold": True},
        {"linked": 2},
        {"threshold": 0.5, "core": 1},
        {"threshold": 0.5, "fill_holes": True},
        {"threshold": 0.5, "split": 1.0},
    ],
)
def test_what_contradicts_a_threshold_is_refused_in_one_line(fields: dict[str, Any]) -> None:
    with pytest.raises(OptionError) as refused:
        ObjectRule(**fields)
    assert "\n" not in str(refused.value)


def test_rules_say_what_they_do_and_are_written_as_before_where_they_do_not() -> None:
    rule = ObjectRule(threshold=0.35, min_size=20, linked=0.1)
    assert ObjectRule.from_json(rule.to_json()) == rule
    assert "0.35" in rule.text
    assert "10%" in rule.text
    assert set(METHODS["cells"].to_json()) == {"fill_holes", "min_size", "split"}
