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
from unet_dask.objects.adjacency import within
from unet_dask.objects.basins import CERTAIN, SURE, Ground, basins, foreground, of_whole
from unet_dask.objects.hierarchy import joined
from unet_dask.objects.neurites import (
    Face,
    Part,
    finished,
    of_face,
    of_part,
    size_of,
    small,
)
from unet_dask.objects.pieces import followed
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
    pairs = np.concatenate([np.empty((0, 2), np.uint64), *(face.pairs for face in faces)])
    changes = joined([part.graph for part in parts] + [face.graph for face in faces], pairs, threshold)
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
