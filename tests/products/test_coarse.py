"""A coarser voxel is what most of its voxels are: the same as counting them one by one."""

from __future__ import annotations

from collections import Counter
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unet_dask.products.coarse import averaged, first, voted


def counted(block: np.ndarray, step: tuple[int, ...]) -> np.ndarray:
    """Return the vote, one coarser voxel at a time; a ragged end is repeated."""
    shape = [-(-size // by) for size, by in zip(block.shape, step, strict=True)]
    result = np.empty(shape, block.dtype)
    for index in np.ndindex(*shape):
        places = product(
            *(
                [min(at * by + offset, size - 1) for offset in range(by)]
                for at, by, size in zip(index, step, block.shape, strict=True)
            )
        )
        votes = Counter(int(block[place]) for place in places)
        result[index] = min(votes, key=lambda value: (-votes[value], value))
    return result


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_vote_is_that_of_a_count(data: st.DataObject) -> None:
    dims = data.draw(st.integers(1, 4))
    shape = tuple(data.draw(st.integers(1, 6)) for _ in range(dims))
    step = tuple(data.draw(st.integers(1, 2)) for _ in range(dims))
    classes = data.draw(st.sampled_from([1, 2, 3, 255]))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    block = rng.integers(0, classes, shape).astype(np.uint8)
    np.testing.assert_array_equal(voted(block, step), counted(block, step))


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_mean_and_first_are_those_of_the_voxels(dtype: str) -> None:
    block = np.arange(16, dtype=dtype).reshape(4, 4)
    assert first(block, (2, 1)).tolist() == block[::2].tolist()
    # Of a mean of 2.5 in whole numbers the even neighbour.
    mean = averaged(block, (2, 2))
    assert mean.tolist() == ([[2.5, 4.5], [10.5, 12.5]] if dtype == "float32" else [[2, 4], [10, 12]])
    assert mean.dtype == block.dtype
