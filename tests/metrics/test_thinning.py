from __future__ import annotations

import numpy as np
import pytest

from tests.metrics.shapes import blobs, many_seeds
from unet_dask.components import labelled
from unet_dask.metrics.thinning import THRESHOLDS, thinned


@many_seeds
def test_thinning_joins_and_splits_no_objects(seed: int) -> None:
    generator = np.random.default_rng(seed)
    smooth, share = generator.choice([0.5, 1, 1.5, 3, 6]), generator.choice([0.3, 0.6, 0.9])
    mask = blobs(generator, (40, 51), smooth=float(smooth), share=float(share))
    thin = thinned(mask)
    assert not (mask & ~thin).any()
    before, after = labelled(mask), labelled(thin)
    grown = [np.unique(after[before == number]) for number in range(1, before.max() + 1)]
    assert all(len(each) == 1 for each in grown)
    assert len({int(each[0]) for each in grown}) == before.max()


@pytest.mark.parametrize("width", [1, 2, 3, 6])
def test_borders_become_lines(width: int) -> None:
    mask = np.ones((12, 20), bool)
    mask[:, 7 : 7 + width] = False
    assert set((~thinned(mask)).sum(axis=1).tolist()) == {1}


@pytest.mark.parametrize("turns", range(4))
def test_a_wide_corner_of_border_keeps_its_objects_apart(turns: int) -> None:
    """Wider than the rest of the edge is long, and around a corner, whichever it is."""
    mask = np.zeros((40, 51), bool)
    mask[26:, :20] = True
    mask[:, 32:] = True
    thin = thinned(np.rot90(mask, turns))
    numbers = np.unique(labelled(thin)[np.rot90(mask, turns)])
    assert len(numbers) == 2


@pytest.mark.parametrize("shape", [(0, 4), (1, 1), (1, 9)])
@pytest.mark.parametrize("value", [False, True])
def test_planes_of_one_kind_can_be_thinned(shape: tuple[int, int], value: bool) -> None:
    assert thinned(np.full(shape, value)).shape == shape


def test_thresholds_are_those_of_the_challenge_without_its_ends() -> None:
    assert tuple(round(0.1 * step, 1) for step in range(1, 10)) == THRESHOLDS
