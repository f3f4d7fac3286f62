"""Scores of objects against looking at every pair of objects, pixel by pixel."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.metrics.shapes import label_pair, many_seeds
from unet_dask.errors import OptionError
from unet_dask.metrics import objects
from unet_dask.metrics.contingency import contingency
from unet_dask.metrics.objects import Matches
from unet_dask.metrics.ratio import Ratio

Labels = NDArray[np.int64]


def object_masks(labels: Labels) -> list[NDArray[np.bool_]]:
    return [labels == number for number in np.unique(labels) if number]


def overlap(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> Fraction:
    return Fraction(int((a & b).sum()), int((a | b).sum()))


@many_seeds
def test_seg_equals_its_definition(seed: int) -> None:
    truth, found = label_pair(seed)
    scores = []
    for true in object_masks(truth):
        found_ones = [each for each in object_masks(found) if 2 * int((true & each).sum()) > int(true.sum())]
        assert len(found_ones) <= 1
        scores.append(float(overlap(true, found_ones[0])) if found_ones else 0.0)
    got = objects.seg(contingency(truth, found))
    assert got.below == len(scores)
    assert got.above == pytest.approx(sum(scores))


@many_seeds
def test_matches_equal_looking_at_every_pair(seed: int) -> None:
    truth, found = label_pair(seed)
    true_ones, found_ones = object_masks(truth), object_masks(found)
    for percent, got in zip(range(50, 100, 5), objects.match(contingency(truth, found)), strict=True):
        pairs = [
            (i, j)
            for (i, a), (j, b) in product(enumerate(true_ones), enumerate(found_ones))
            if overlap(a, b) > Fraction(percent, 100)
        ]
        assert len({i for i, _ in pairs}) == len({j for _, j in pairs}) == len(pairs)
        assert got == Matches(len(pairs), len(true_ones) - len(pairs), len(found_ones) - len(pairs))


@many_seeds
def test_foreground_scores_equal_their_definitions(seed: int) -> None:
    truth, found = label_pair(seed)
    true, positive = truth > 0, found > 0
    both, either = int((true & positive).sum()), int((true | positive).sum())
    table = contingency(truth, found)
    assert objects.foreground_iou(table) == Ratio(both, either)
    assert objects.dice(table) == Ratio(2 * both, int(true.sum()) + int(positive.sum()))


@many_seeds
def test_new_numbers_change_nothing(seed: int) -> None:
    truth, found = label_pair(seed)
    generator = np.random.default_rng(seed)
    names = [np.concatenate([[0], 1 + generator.permutation(50)[:5]]) for _ in range(2)]
    table, renamed = contingency(truth, found), contingency(names[0][truth], names[1][found])
    assert objects.match(renamed) == objects.match(table)
    assert objects.seg(renamed).value == pytest.approx(objects.seg(table).value)


@many_seeds
def test_regions_add_up_to_the_whole(seed: int) -> None:
    truth, found = label_pair(seed)
    cut = 1 + seed % 8
    parts = contingency(truth[:cut], found[:cut]) + contingency(truth[cut:], found[cut:])
    whole = contingency(truth, found)
    assert objects.match(parts) == objects.match(whole)
    assert objects.seg(parts) == objects.seg(whole)
    assert objects.dice(parts) == objects.dice(whole)


@many_seeds
def test_identical_is_perfect(seed: int) -> None:
    truth, _ = label_pair(seed)
    table = contingency(truth, truth)
    scores = [objects.seg(table), objects.dice(table), objects.foreground_iou(table)]
    scores += [each.f1 for each in objects.match(table)]
    assert {each.value for each in scores} == {1}


def test_scores_of_matches() -> None:
    found = Matches(hits=3, missed=1, invented=2)
    assert found.precision.value == 3 / 5
    assert found.recall.value == 3 / 4
    assert found.f1.value == 6 / 9
    assert found.average_precision.value == 3 / 6
    assert found + found == Matches(6, 2, 4)


def test_half_an_overlap_is_no_match() -> None:
    # Two true objects, found as one of exactly twice their size: which of them would match?
    (got,) = objects.match(contingency(np.array([1, 2]), np.array([3, 3])), [0.5])
    assert got == Matches(hits=0, missed=2, invented=1)


def test_nothing_to_find_is_not_a_number() -> None:
    table = contingency(np.zeros(4, np.uint8), np.zeros(4, np.uint8))
    assert math.isnan(objects.seg(table).value)
    assert math.isnan(objects.match(table)[0].f1.value)
    assert math.isnan(objects.dice(table).value)


@pytest.mark.parametrize("threshold", [0.4, 1.0])
def test_refuses_thresholds_that_make_no_unique_match(threshold: float) -> None:
    with pytest.raises(OptionError, match=f"overlap of {threshold:g}"):
        objects.match(contingency(np.array([1]), np.array([1])), [threshold])


def test_object_that_is_half_found_is_no_match() -> None:
    truth, found = np.zeros((4, 8), np.int64), np.zeros((4, 8), np.int64)
    truth[:, :4], truth[:, 5:] = 70000, 4
    found[:2, :4], found[:, 5:] = 1, 2
    assert objects.match(contingency(truth, found), [0.5]) == (Matches(hits=1, missed=1, invented=1),)


def test_empty_images_hold_no_objects() -> None:
    nothing = np.zeros((3, 3), np.int64)
    assert objects.match(contingency(nothing, nothing), [0.5]) == (Matches(0, 0, 0),)
