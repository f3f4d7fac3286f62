from __future__ import annotations

import numpy as np
import pytest

from unet_dask.training.augment import blurred, emptied, vary_grey, vary_objects


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


def test_blur_keeps_the_mean_and_takes_the_contrast(
    patch: np.ndarray[tuple[int, ...], np.dtype[np.float32]],
) -> None:
    soft = blurred(patch, 1.5)
    assert soft.dtype == np.float32
    assert soft.mean() == pytest.approx(patch.mean(), abs=0.02)
    assert soft.std() < patch.std() / 3
    np.testing.assert_array_equal(blurred(patch, 0.0), patch)


def test_what_is_left_of_an_emptied_patch_is_background_normalised_by_itself() -> None:
    rng = np.random.default_rng(5)
    image = rng.normal(0.0, 0.01, (1, 64, 64)).astype(np.float32)
    objects = np.zeros((64, 64), bool)
    objects[20:40, 20:40] = True
    image[0, objects] += 5
    empty = emptied(image, objects, np.random.default_rng(6))
    assert empty.mean() == pytest.approx(0, abs=1e-5)
    assert empty.std() == pytest.approx(1, abs=1e-5)
    # Nothing is left of the object: it is as bright as the rest, and neither is any pixel of it.
    assert abs(empty[0, objects].mean()) < 0.2
    assert empty.max() < 6
    everything = np.ones((64, 64), bool)
    np.testing.assert_array_equal(emptied(image, everything, rng), image)


def test_objects_vary_by_themselves_and_background_stays() -> None:
    image = np.full((2, 40, 60), 3.0, np.float32)
    classes = np.zeros((40, 60), np.uint8)
    for start in (5, 35):
        classes[10:30, start : start + 20] = 1
        classes[14:26, start + 4 : start + 16] = 2
    image[:, classes > 0] += 10
    varied = vary_objects(image, classes, np.random.default_rng(3), deviation=0.5)
    assert varied.dtype == np.float32
    np.testing.assert_array_equal(varied[:, classes == 0], image[:, classes == 0])
    one, other = varied[0, 20, 15] - 3, varied[0, 20, 45] - 3
    assert one != pytest.approx(other, rel=0.05)
    np.testing.assert_allclose(varied[:, 18:22, 12:18], 3 + one, rtol=1e-4)  # of one factor, in all channels
    empty = np.zeros((40, 60), np.uint8)
    np.testing.assert_array_equal(vary_objects(image, empty, np.random.default_rng(0), deviation=1.0), image)
