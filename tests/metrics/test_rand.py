"""Rand and information F-scores against counting pairs, against enumeration, and against scikit-image."""

from __future__ import annotations

import math
from collections import Counter
from itertools import product

import numpy as np
import pytest
from hypothesis import assume
from skimage.metrics import adapted_rand_error, variation_of_information

from tests.metrics.shapes import label_pair, many_seeds
from unet_dask.metrics.contingency import contingency
from unet_dask.metrics.rand import Agreement, information_agreement, rand_agreement


def foreground(seed: int) -> tuple[list[int], list[int]]:
    """Return the labels of the truth's foreground; every pixel found as background has a label of its own."""
    truth, found = label_pair(seed)
    inside = truth > 0
    alone = -np.arange(1, truth.size + 1).reshape(truth.shape)
    return truth[inside].tolist(), np.where(found > 0, found, alone)[inside].tolist()


def agreements(seed: int) -> tuple[Agreement, Agreement]:
    table = contingency(*label_pair(seed))
    return rand_agreement(table), information_agreement(table)


@many_seeds
def test_rand_counts_pairs_of_pixels(seed: int) -> None:
    truth, found = foreground(seed)
    both = true_pairs = found_pairs = 0
    for a, b in product(range(len(truth)), repeat=2):
        together, joined = truth[a] == truth[b], found[a] == found[b]
        true_pairs += together
        found_pairs += joined
        both += together and joined
    assert agreements(seed)[0] == Agreement(both, true_pairs, found_pairs)


@many_seeds
def test_information_equals_its_definition(seed: int) -> None:
    truth, found = foreground(seed)
    n = len(truth)
    joint, a, b = Counter(zip(truth, found, strict=True)), Counter(truth), Counter(found)
    mutual = sum(k / n * math.log2(k * n / (a[i] * b[j])) for (i, j), k in joint.items())
    entropies = [-sum(k / n * math.log2(k / n) for k in each.values()) for each in (a, b)]
    got = agreements(seed)[1]
    assert (got.both, got.truth, got.found) == pytest.approx((mutual, *entropies), abs=1e-12)


@many_seeds
def test_rand_agrees_with_scikit_image(seed: int) -> None:
    # scikit-image leaves out the pair of a pixel with itself, and calls precision what we call recall; its labels
    # have to be positive.
    truth, found = (np.array(each) for each in foreground(seed))
    got, n = agreements(seed)[0], truth.size
    assume(got.found > n)
    assume(got.truth > n)
    error, recall, precision = adapted_rand_error(truth, found - found.min() + 1)
    assert (got.both - n) / (got.found - n) == pytest.approx(precision)
    assert (got.both - n) / (got.truth - n) == pytest.approx(recall)
    assert 1 - 2 * (got.both - n) / (got.found + got.truth - 2 * n) == pytest.approx(error)


@many_seeds
def test_information_agrees_with_scikit_image(seed: int) -> None:
    truth, found = (np.array(each) for each in foreground(seed))
    got = agreements(seed)[1]
    split, merged = variation_of_information(truth, found - found.min(initial=0) + 1)
    assert (got.truth - got.both, got.found - got.both) == pytest.approx((merged, split), abs=1e-9)


@many_seeds
def test_new_numbers_change_nothing(seed: int) -> None:
    truth, found = label_pair(seed)
    generator = np.random.default_rng(seed)
    names = [np.concatenate([[0], 1 + generator.permutation(50)[:5]]) for _ in range(2)]
    renamed = contingency(names[0][truth], names[1][found])
    table = contingency(truth, found)
    assert rand_agreement(renamed) == rand_agreement(table)
    assert information_agreement(renamed).f_score.value == pytest.approx(
        information_agreement(table).f_score.value, nan_ok=True
    )


@many_seeds
def test_identical_is_perfect(seed: int) -> None:
    truth, _ = label_pair(seed)
    table = contingency(truth, truth)
    assert rand_agreement(table).f_score.value == 1
    assert information_agreement(table).f_score.value == pytest.approx(1)


def test_merging_costs_precision_and_splitting_recall() -> None:
    two, one = np.array([1, 1, 2, 2]), np.array([3, 3, 3, 3])
    merged, split = rand_agreement(contingency(two, one)), rand_agreement(contingency(one, two))
    assert (merged.precision, merged.recall) == (0.5, 1)
    assert (split.precision, split.recall) == (1, 0.5)
    assert merged.f_score.value == pytest.approx(2 / 3)


def test_found_background_is_not_one_object() -> None:
    # The pixel found as background stands alone: pairs with itself only.
    table = contingency(np.array([1, 1, 2]), np.array([0, 0, 0]))
    assert rand_agreement(table) == Agreement(both=3, truth=5, found=3)


def test_membrane_of_the_truth_is_left_out() -> None:
    truth = np.array([0, 0, 1, 1])
    some, other = np.array([7, 8, 5, 5]), np.array([0, 5, 5, 5])
    assert rand_agreement(contingency(truth, some)) == rand_agreement(contingency(truth, other))


def test_planes_are_pooled_by_their_pairs() -> None:
    small, large = Agreement(1, 2, 3), Agreement(10, 20, 30)
    assert (small + large).f_score.value == 2 * 11 / (22 + 33)


def test_nothing_to_score_is_not_a_number() -> None:
    table = contingency(np.zeros(3, np.uint8), np.ones(3, np.uint8))
    assert math.isnan(rand_agreement(table).f_score.value)
    assert math.isnan(information_agreement(table).f_score.value)
    assert math.isnan(rand_agreement(table).precision)
