"""Boxes around what a mask wants: all of it, none too large, none that could be shrunk or cut for less."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tiling.test_region import context
from unet_dask.tiling.cover import _cheapest_cut, cover, fitted
from unet_dask.tiling.region import AxisGrid

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from unet_dask.tiling.cover import Spans


def price(sides: Sequence[Any]) -> Any:
    """Return the volume of boxes with three cells of context along each axis."""
    total = np.float64(1)
    for side in sides:
        total = total * (side + 3)
    return total


@st.composite
def masks(draw: st.DrawFn) -> NDArray[np.bool_]:
    shape = draw(st.lists(st.integers(1, 12), min_size=1, max_size=3))
    random = np.random.default_rng(draw(st.integers(0, 1000)))
    return random.random(shape) < draw(st.sampled_from([0.0, 0.02, 0.2, 0.7, 1.0]))


def shrunk(wanted: NDArray[np.bool_], box: Spans) -> Spans:
    """Return the bounding box of what is wanted in a box, slowly."""
    cells = np.argwhere(wanted[tuple(slice(*each) for each in box)])
    low, high = cells.min(axis=0), cells.max(axis=0) + 1
    return tuple((start + int(a), start + int(b)) for (start, _), a, b in zip(box, low, high, strict=True))


def cost(box: Spans, longest: Sequence[int]) -> float:
    """Return the price of a box, in equal parts where it is too long."""
    sides, count = [], 1
    for (start, stop), most in zip(box, longest, strict=True):
        parts = -(-(stop - start) // most)
        sides.append(-(-(stop - start) // parts))
        count *= parts
    return count * float(price(sides))


def cuts(wanted: NDArray[np.bool_], box: Spans) -> list[tuple[Spans, Spans]]:
    """Return both parts of every cut through a box, shrunk."""
    found = []
    for axis, (start, stop) in enumerate(box):
        for at in range(start + 1, stop):
            near, far = list(box), list(box)
            near[axis], far[axis] = (start, at), (at, stop)
            found.append((shrunk(wanted, tuple(near)), shrunk(wanted, tuple(far))))
    return found


@settings(deadline=None)
@given(masks(), st.lists(st.integers(1, 9), min_size=3, max_size=3))
def test_a_cover_holds_all_that_is_wanted_once_and_no_cut_makes_it_cheaper(
    wanted: NDArray[np.bool_], most: list[int]
) -> None:
    longest = most[: wanted.ndim]
    boxes = cover(wanted, longest, price)
    times = np.zeros(wanted.shape, int)
    for box in boxes:
        times[tuple(slice(*each) for each in box)] += 1
        assert box == shrunk(wanted, box)
        assert all(stop - start <= length for (start, stop), length in zip(box, longest, strict=True))
        assert all(cost(a, longest) + cost(b, longest) >= cost(box, longest) for a, b in cuts(wanted, box))
    assert times.max(initial=0) <= 1
    assert times[wanted].all()
    assert boxes == cover(wanted, longest, price)


@settings(deadline=None)
@given(masks(), st.lists(st.integers(1, 9), min_size=3, max_size=3))
def test_the_cheapest_cut_is_that_of_a_slow_search(wanted: NDArray[np.bool_], most: list[int]) -> None:
    if not wanted.any():
        return
    longest = most[: wanted.ndim]
    whole = shrunk(wanted, tuple((0, length) for length in wanted.shape))
    view = wanted[tuple(slice(*each) for each in whole)]
    every = [cost(a, longest) + cost(b, longest) for a, b in cuts(wanted, whole)]
    assert _cheapest_cut(view, longest, price)[2] == pytest.approx(min(every, default=np.inf))


@settings(deadline=None)
@given(st.integers(1, 90), st.integers(0, 15), st.integers(1, 8), st.integers(1, 3), st.integers(0, 1000))
def test_fitted_tiles_hold_the_wanted_voxels_and_look_at_nothing_that_is_not_read(
    length: int, start: int, core: int, depth: int, seed: int
) -> None:
    looked = context(depth)
    grid = AxisGrid(start + length, start, start + length, looked.stride * 8, looked.stride * core, looked)
    for index in range(grid.count):
        (begin, end), read = grid.write(index), grid.read(index)
        cells = grid.cells(end - begin)
        assert [a for a, _ in cells[1:]] == [b for _, b in cells[:-1]]
        assert (cells[0][0], cells[-1][1]) == (0, end - begin)
        wanted = np.random.default_rng(seed).random(len(cells)) < 0.4
        held = np.zeros(end - begin, int)
        for ((first, stop),) in fitted(wanted, [grid], [end - begin], price):
            assert first % looked.stride == (stop - first) % looked.stride == 0
            assert stop - first <= grid.core
            assert first >= 0
            assert first + stop - first + grid.tile - grid.core <= read[1] - read[0]
            held[slice(*grid.kept((first, stop), end - begin))] += 1
        for (a, b), want in zip(cells, wanted, strict=True):
            assert (held[a:b] == 1).all() or not want
        assert held.max() <= 1


def test_corners_that_nobody_wants_are_cut_off() -> None:
    y, x = np.indices((100, 100))
    disk = np.hypot(y - 50, x - 50) < 48
    boxes = cover(
        disk, (100, 100), lambda sides: np.prod([side + 3.0 for side in np.broadcast_arrays(*sides)], axis=0)
    )
    area = sum((b - a) * (d - c) for (a, b), (c, d) in boxes)
    assert area < 0.9 * 95**2  # the square around it; the disk is 0.79 of that
    assert all(any(disk[slice(*box[0]), slice(*box[1])].ravel()) for box in boxes)
    assert len(list(product(boxes, boxes))) > 1
