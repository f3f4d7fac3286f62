from __future__ import annotations

import numpy as np
import pytest

from unet_dask.training.augment import vary_grey


@pytest.fixture
def patch() -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.random.default_rng(0).normal(size=(2, 16, 16)).astype(np.float32)


def test_no_variation_is_identity(patch: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> None:
    varied = vary_grey(patch, np.random.default_rng(1), gain=0, offset=0, gamma=0)
    np.testing.assert_array_equal(varied, patch)


def test_variation_keeps_the_order_of_grey_values(
    patch: np.ndarray[tuple[int, ...], np.dtype[np.float32]],
) -> None:
    varied = vary_grey(patch, np.random.default_rng(1), gain=0.5, offset=0.5, gamma=0.5)
    assert not np.array_equal(varied, patch)
    np.testing.assert_array_equal(np.argsort(varied[0].ravel()), np.argsort(patch[0].ravel()))


def test_gamma_keeps_darkest_and_brightest(
    patch: np.ndarray[tuple[int, ...], np.dtype[np.float32]],
) -> None:
    varied = vary_grey(patch, np.random.default_rng(1), gain=0, offset=0, gamma=0.5)
    assert varied.min() == pytest.approx(patch.min())
    assert varied.max() == pytest.approx(patch.max())


def test_constant_image_stays_finite() -> None:
    assert np.isfinite(vary_grey(np.zeros((1, 4, 4), np.float32), np.random.default_rng(0))).all()


def test_noise_is_drawn_from_the_generator(
    patch: np.ndarray[tuple[int, ...], np.dtype[np.float32]],
) -> None:
    first = vary_grey(patch, np.random.default_rng(5), noise=0.5)
    np.testing.assert_array_equal(first, vary_grey(patch, np.random.default_rng(5), noise=0.5))
    assert not np.array_equal(first, vary_grey(patch, np.random.default_rng(6), noise=0.5))
