"""Polygons of objects: valid, whatever the objects look like, and the label image again once they are filled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from unet_dask.measuring.spill import Spill
from unet_dask.outlines.corners import corners_of, merged_corners
from unet_dask.outlines.rings import outlines
from unet_dask.tiling.box import Box

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from unet_dask.outlines.rings import Outline, Ring


def filled(ring: Ring, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return the pixels whose centres lie within a ring, by counting the upright edges on their left."""
    inside = np.zeros(shape, bool)
    for (y, x), (other, at) in zip(ring, ring[1:] + ring[:1], strict=True):
        assert (x == at) != (y == other)
        if x == at:
            inside[min(y, other) : max(y, other), x:] ^= True
    return inside


def flipped(ring: Ring) -> list[tuple[int, int]]:
    """Return the corners as x, y."""
    return [(x, y) for y, x in ring]


def shape_of(outline: Outline) -> Any:
    """Return the geometry of an object, by shapely."""
    return shapely.MultiPolygon(
        [(flipped(each.ring), [flipped(hole) for hole in each.holes]) for each in outline.polygons]
    )


def require_right(labels: NDArray[Any], found: Sequence[Outline]) -> None:
    """Raise unless outlines are valid and fill to the label image (planes, y, x)."""
    again = np.zeros_like(labels)
    for each in found:
        geometry = shape_of(each)
        assert geometry.is_valid, shapely.is_valid_reason(geometry)
        object_ = labels[each.plane] == each.label
        assert geometry.area == object_.sum()
        _, count = ndimage.label(object_)  # neighbours share an edge
        assert len(each.polygons) == count
        for polygon in each.polygons:
            assert shapely.Polygon(flipped(polygon.ring)).exterior.is_ccw
            pixels = filled(polygon.ring, labels.shape[1:])
            assert polygon.area == pixels.sum()
            for hole in polygon.holes:
                inner = filled(hole, labels.shape[1:])
                assert not (inner & ~pixels).any()
                pixels &= ~inner
            again[each.plane][pixels] = each.label
    assert np.array_equal(again, labels)


@st.composite
def images(draw: st.DrawFn) -> NDArray[np.uint32]:
    shape = (draw(st.integers(1, 3)), draw(st.integers(1, 14)), draw(st.integers(1, 14)))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    labels = random.integers(1, draw(st.integers(1, 5)) + 1, shape)
    return (labels * (random.random(shape) < draw(st.sampled_from([0.3, 0.5, 0.7, 0.95])))).astype(np.uint32)


@settings(max_examples=400, deadline=None)
@given(images(), st.data())
def test_polygons_of_any_objects_are_valid_and_the_pixels_again(
    labels: NDArray[np.uint32], data: st.DataObject
) -> None:
    whole = Box("zyx", tuple((0, size) for size in labels.shape))
    sides = [data.draw(st.integers(1, size)) for size in labels.shape]
    with Spill(merged_corners, limit=data.draw(st.sampled_from([1, 4000, 1 << 20]))) as spill:
        for box in whole.cut(sides):
            spill.put(corners_of(labels[box.slices], box.start, labels.shape))
        batches = list(spill.batches())
    found = [each for batch in batches for each in outlines(batch)]
    keys = [(each.label, each.plane) for each in found]
    assert keys == sorted(set(keys))
    require_right(labels, found)


@pytest.mark.parametrize(
    "rows",
    [
        ["110", "101", "111"],  # a hole that touches the ring
        ["01", "10"],  # two pieces that touch
        ["11111", "10101", "11011", "10101", "11111"],  # holes that touch each other
        ["11111", "10001", "10101", "10001", "11111"],  # a piece within a hole
        ["1111", "1001", "1011", "1101"],  # a piece in a hole that touches it
        ["11101", "10111", "11011", "01101", "11111"],
    ],
)
def test_objects_that_touch_themselves(rows: list[str]) -> None:
    labels = np.array([[int(pixel) for pixel in row] for row in rows], np.uint32)[None]
    corners = merged_corners(corners_of(labels, (0, 0, 0), labels.shape))
    require_right(labels, list(outlines(corners)))


def test_every_object_of_four_by_four_pixels() -> None:
    labels = np.arange(1 << 16, dtype=np.uint32)[:, None] >> np.arange(16, dtype=np.uint32) & 1
    tried = labels.reshape(-1, 4, 4)[::17].astype(np.uint32)
    corners = merged_corners(corners_of(tried, (0, 0, 0), tried.shape))
    require_right(tried, list(outlines(corners)))


def test_no_objects_have_no_outlines() -> None:
    labels = np.zeros((1, 5, 5), np.uint32)
    assert list(outlines(merged_corners(corners_of(labels, (0, 0, 0), labels.shape)))) == []


def test_planes_are_counted_over_all_stacks() -> None:
    labels = np.zeros((2, 3, 4, 4), np.uint32)
    labels[1, 2, 1, 1] = 5
    (found,) = outlines(merged_corners(corners_of(labels, (4, 1, 8, 9), (6, 5, 20, 20))))
    assert found.plane == 5 * 5 + 3
    assert found.polygons[0].ring == [(9, 10), (9, 11), (10, 11), (10, 10)]
