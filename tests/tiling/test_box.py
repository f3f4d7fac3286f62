"""Boxes become each other without a voxel more or less: the same as counting them one by one."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unet_dask.tiling.box import Box, hull

if TYPE_CHECKING:
    from collections.abc import Callable

SPANS = st.tuples(st.integers(0, 9), st.integers(1, 9)).map(lambda pair: (pair[0], pair[0] + pair[1]))
BOXES = st.tuples(SPANS, SPANS).map(lambda spans: Box("yx", spans))
SIDES = st.tuples(st.integers(1, 5), st.integers(1, 5))


def voxels(box: Box) -> set[tuple[int, ...]]:
    return set(product(*(range(*span) for span in box.spans)))


@given(BOXES, SIDES)
def test_parts_hold_every_voxel_once(box: Box, sides: tuple[int, int]) -> None:
    parts = [voxels(part) for part in box.cut(sides)]
    assert set.union(*parts) == voxels(box)
    assert sum(map(len, parts)) == len(voxels(box))


@given(BOXES, SIDES)
def test_units_are_those_of_the_voxels(box: Box, sides: tuple[int, int]) -> None:
    expected = {tuple(at // side for at, side in zip(voxel, sides, strict=True)) for voxel in voxels(box)}
    assert set(product(*box.units(sides))) == expected


@given(BOXES, BOXES)
def test_boxes_meet_where_they_share_a_voxel(one: Box, other: Box) -> None:
    assert one.meets(other) == bool(voxels(one) & voxels(other))
    assert voxels(hull([one, other])) >= voxels(one) | voxels(other)


@given(BOXES, BOXES)
def test_counted_from_elsewhere_it_has_the_same_shape(box: Box, outer: Box) -> None:
    moved = box.relative_to(outer)
    assert moved.shape == box.shape
    assert moved.start == tuple(a - b for a, b in zip(box.start, outer.start, strict=True))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda box: box, "c 0:2, y 3:5, x 0:9"),
        (lambda box: box.in_space_and_time, "y 3:5, x 0:9"),
        (lambda box: box.over("xy"), "x 0:9, y 3:5"),
        (lambda box: box.along("x", (4, 6)), "c 0:2, y 3:5, x 4:6"),
        (lambda box: box.in_space_and_time.along("c", (0, 1)).over("cyx"), "c 0:1, y 3:5, x 0:9"),
    ],
)
def test_axes_are_taken_by_name(change: Callable[[Box], Box], text: str) -> None:
    assert change(Box("cyx", ((0, 2), (3, 5), (0, 9)))).text == text
