"""Windows that are not read yet: they are cut and joined as arrays are, and hold the same values when they are read."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

from unet_dask.errors import GeometryError
from unet_dask.io.source.lazy_window import LazyWindow
from unet_dask.io.source.volume import open_source

if TYPE_CHECKING:
    from pathlib import Path


def unread(*window: tuple[int, int]) -> LazyWindow:
    """Return a window of no source in particular."""
    return LazyWindow(None, window, np.dtype("u1"))  # type: ignore[arg-type] # nothing is read


@given(st.data())
def test_it_is_cut_as_an_array_is(data: st.DataObject) -> None:
    """The oracle holds the place of every voxel."""
    size = data.draw(st.integers(1, 9))
    first = data.draw(st.integers(-20, 20))
    part = slice(*(data.draw(st.one_of(st.none(), st.integers(-12, 12))) for _ in range(2)))
    places = np.arange(first, first + size)[part]
    (start, stop), *_ = unread((first, first + size))[(part,)].window
    assert list(range(start, stop)) == list(places)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.sampled_from([0, 1]))
def test_what_was_cut_is_joined_again(sizes: list[int], axis: int) -> None:
    whole = unread(*(((3, 3 + sum(sizes)), (5, 9)) if axis == 0 else ((5, 9), (3, 3 + sum(sizes)))))
    edges = np.cumsum([0, *sizes])
    parts = []
    for a, b in itertools.pairwise(edges):
        cut = [slice(None), slice(None)]
        cut[axis] = slice(int(a), int(b))
        parts.append(whole[tuple(cut)])
    assert np.concatenate(parts, axis=axis) == whole  # type: ignore[arg-type] # NEP 18


@pytest.mark.parametrize("second", [((5, 9), (0, 4)), ((4, 8), (1, 5)), ((3, 8), (0, 4))])
def test_what_does_not_follow_is_not_joined(second: tuple[tuple[int, int], ...]) -> None:
    with pytest.raises(GeometryError, match="does not continue"):
        np.concatenate([unread((0, 4), (0, 4)), unread(*second)], axis=0)


def test_nothing_else_can_be_done_with_it() -> None:
    with pytest.raises(TypeError, match="no implementation found"):
        np.sum(unread((0, 4)))  # type: ignore[call-overload]


def test_it_reads_what_its_window_says(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 255, (40, 50)).astype("u1")
    zarr.create_array(str(tmp_path / "a.zarr"), data=values)
    source = open_source(str(tmp_path / "a.zarr"), axes="yx")
    volume = LazyWindow(source.spec, tuple((0, size) for size in source.shape), source.dtype)
    place = (slice(0, 1), slice(7, 31), slice(-20, -3))
    canonical = values.reshape(source.shape)
    assert np.array_equal(volume[place].read(), canonical[place])
