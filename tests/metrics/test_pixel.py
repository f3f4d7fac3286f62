from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from unet_dask.metrics.pixel import confusion, iou, mean_iou, pixel_error, wrong_pixels

if TYPE_CHECKING:
    from numpy.typing import NDArray

maps = hnp.arrays(np.uint8, (5, 6), elements=st.integers(0, 2))


@settings(deadline=None)
@given(truth=maps, found=maps)
def test_scores_equal_their_definitions(truth: NDArray[np.uint8], found: NDArray[np.uint8]) -> None:
    matrix = confusion(found, truth, count=3)
    assert pixel_error(matrix) == pytest.approx(float(np.mean(found != truth)))
    for index, value in enumerate(iou(matrix)):
        either = np.sum((found == index) | (truth == index))
        expected = np.sum((found == index) & (truth == index)) / either if either else math.nan
        assert value == pytest.approx(float(expected), nan_ok=True)


@settings(deadline=None)
@given(truth=maps)
def test_perfect_is_perfect(truth: NDArray[np.uint8]) -> None:
    matrix = confusion(truth, truth, count=3)
    assert pixel_error(matrix) == 0
    assert mean_iou(matrix) == 1


def test_unknown_pixels_are_not_counted() -> None:
    matrix = confusion(np.array([0, 1, 1]), np.array([0, 0, 1]), count=2, weight=np.array([1.0, 0.0, 1.0]))
    assert matrix.tolist() == [[1, 0], [0, 1]]


def test_nothing_counted_is_not_a_number() -> None:
    empty = np.zeros((2, 2), dtype=np.int64)
    assert math.isnan(pixel_error(empty))
    assert math.isnan(mean_iou(empty))


@settings(deadline=None)
@given(truth=maps, found=maps, known=maps)
def test_wrong_pixels_are_those_that_differ(
    truth: NDArray[np.uint8], found: NDArray[np.uint8], known: NDArray[np.uint8]
) -> None:
    ratio = wrong_pixels(found > 0, truth > 0, known=known > 0)
    pairs = [(f > 0, t > 0) for f, t, k in zip(found.flat, truth.flat, known.flat, strict=True) if k]
    assert (ratio.above, ratio.below) == (sum(f != t for f, t in pairs), len(pairs))
