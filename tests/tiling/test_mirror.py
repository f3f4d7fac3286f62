"""The mirror against numpy's reflect padding of the whole volume."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unet_dask.errors import GeometryError
from unet_dask.tiling.mirror import extend, mirrored


@given(st.integers(1, 200), st.integers(0, 500), st.integers(0, 500))
def test_positions_equal_numpy_reflect(size: int, before: int, after: int) -> None:
    expected = np.pad(np.arange(size), (before, after), mode="reflect")
    assert np.array_equal(mirrored(-before, size + after, size), expected)


@given(st.tuples(st.integers(1, 9), st.integers(1, 9)), st.integers(0, 30))
def test_a_whole_volume_is_extended_as_numpy_pads_it(shape: tuple[int, int], pad: int) -> None:
    volume = np.arange(shape[0] * shape[1]).reshape(shape)
    read = tuple((-pad, size + pad) for size in shape)
    assert np.array_equal(
        extend(volume, origin=(0, 0), read=read, shape=shape), np.pad(volume, pad, mode="reflect")
    )


@given(st.integers(40, 200), st.integers(0, 30), st.data())
def test_a_clipped_window_is_extended_like_the_whole(size: int, halo: int, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, size - 40))
    stop = data.draw(st.integers(start + 40, size))
    volume = np.arange(size)
    clipped = volume[max(start - halo, 0) : min(stop + halo, size)]
    window = extend(
        clipped, origin=(max(start - halo, 0),), read=((start - halo, stop + halo),), shape=(size,)
    )
    assert np.array_equal(window, np.pad(volume, halo, mode="reflect")[start : stop + 2 * halo])


def test_nothing_to_mirror_copies_nothing() -> None:
    window = np.arange(5)
    assert extend(window, origin=(3,), read=((3, 8),), shape=(20,)) is window


def test_a_plan_that_read_too_little_is_noticed() -> None:
    with pytest.raises(GeometryError, match="error of the plan"):
        extend(np.arange(3), origin=(0,), read=((-5, 3),), shape=(20,))


def test_dask_reflect_is_another_mirror() -> None:
    theirs = da.overlap.overlap(da.arange(6, chunks=6), depth=2, boundary="reflect").compute()
    assert not np.array_equal(theirs, mirrored(-2, 8, 6))
