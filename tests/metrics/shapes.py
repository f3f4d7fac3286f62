"""Random planes of objects for the tests of the scores."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray


def many_seeds(test: Callable[[int], None]) -> Callable[[], None]:
    """Run a test with 200 seeds."""
    given_seed = given(seed=st.integers(0, 2**32 - 1))(test)
    drawn: Callable[[], None] = settings(max_examples=200, deadline=None)(given_seed)
    return drawn


def blobs(
    generator: np.random.Generator, shape: tuple[int, int], *, smooth: float, share: float = 0.6
) -> NDArray[np.bool_]:
    """Return a random mask; `share` of it is foreground, in pieces the larger the smoother."""
    noise = ndimage.gaussian_filter(generator.normal(size=shape), smooth)
    mask: NDArray[np.bool_] = noise < np.quantile(noise, share)
    return mask


def label_pair(seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return a truth and what was found, related so that they agree in part, of (9, 11) in 0 to 5."""
    generator = np.random.default_rng(seed)
    truth = generator.integers(0, 6, (3, 4)).repeat(3, axis=0).repeat(3, axis=1)[:, :11]
    noise = generator.integers(0, 6, truth.shape)
    found = np.where(generator.random(truth.shape) < generator.choice([0, 0.1, 0.5]), noise, truth)
    return truth, np.where(generator.random() < 0.5, found, (found + 1) % 6)
