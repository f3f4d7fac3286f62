"""Neurites of a volume are those of the whole, whatever it was cut into."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise, product
from typing import TYPE_CHECKING, Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from unet_dask.objects.adjacency import within
from unet_dask.objects.basins import CERTAIN, FLOOR, SURE, Ground, basins, of_whole
from unet_dask.objects.neurites import Face, Part, joined, of_face, of_part
from unet_dask.objects.pieces import renumbered

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
                if less >= FLOOR:
                    found.append(Edge(place, there, less, more, number * values.ndim + axis))
    return found


class Groups:
    """Sets of places that grow together, each known by its first place."""

    def __init__(self, values: NDArray[np.uint8]) -> None:
        self.of = {place: {place} for place in np.ndindex(values.shape) if values[place] >= FLOOR}

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


def cut(values: NDArray[np.uint8], threshold: float, dims: int, ends: list[list[int]]) -> NDArray[Any]:
    """Make the neurites of a volume in parts."""
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
    return renumbered(numbers, *joined(faces, [part.graph for part in parts], threshold))


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
