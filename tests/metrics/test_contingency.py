from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from tests.metrics.shapes import label_pair, many_seeds
from unet_dask.errors import DataError, GeometryError
from unet_dask.metrics.contingency import Contingency, contingency, empty


def entries(table: Contingency) -> dict[tuple[int, int], int]:
    return {
        (int(true), int(found)): int(count)
        for true, found, count in zip(table.truth, table.found, table.count, strict=True)
    }


@many_seeds
def test_counts_every_pair(seed: int) -> None:
    truth, found = label_pair(seed)
    pairs = Counter(zip(truth.ravel().tolist(), found.ravel().tolist(), strict=True))
    assert entries(contingency(truth, found)) == dict(pairs)


@many_seeds
def test_regions_add_up_to_the_whole(seed: int) -> None:
    truth, found = label_pair(seed)
    cut = 1 + seed % 8
    parts = contingency(truth[:cut], found[:cut]) + contingency(truth[cut:], found[cut:])
    whole = contingency(truth, found)
    assert entries(parts + empty()) == entries(whole)
    assert parts.truth.tolist() == whole.truth.tolist()
    assert parts.total == truth.size


@many_seeds
def test_large_planes_are_counted_in_blocks(seed: int) -> None:
    truth, found = label_pair(seed)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("unet_dask.metrics.contingency._BLOCK", 1 + seed % 40)
        blocks = contingency(truth, found, mask=truth != 2)
    assert entries(blocks) == entries(contingency(truth, found, mask=truth != 2))


def test_labels_of_64_bits_are_kept_apart() -> None:
    top = np.iinfo(np.uint64).max
    truth = np.array([top, top, top - 1, 0], np.uint64)
    found = np.array([1 << 40, 1 << 40, top, 0], np.uint64)
    assert entries(contingency(truth, found)) == {
        (0, 0): 1,
        (top - 1, top): 1,
        (top, 1 << 40): 2,
    }


def test_large_labels_need_no_dense_matrix() -> None:
    truth = np.array([0, (1 << 31) - 1], np.int64)
    assert entries(contingency(truth, truth)) == {(0, 0): 1, ((1 << 31) - 1, (1 << 31) - 1): 1}


def test_masked_pixels_are_not_counted() -> None:
    labels = np.array([1, 2, 3])
    table = contingency(labels, labels, mask=np.array([True, False, True]))
    assert entries(table) == {(1, 1): 1, (3, 3): 1}


def test_sizes_are_sums_of_rows_and_columns() -> None:
    table = contingency(np.array([4, 4, 9, 9]), np.array([0, 1, 1, 1]))
    assert [each.tolist() for each in table.truth_sizes()] == [[4, 9], [2, 2]]
    assert [each.tolist() for each in table.found_sizes()] == [[0, 1], [1, 3]]


def test_an_image_without_pixels_has_an_empty_table() -> None:
    assert contingency(np.zeros((0, 4), np.uint8), np.zeros((0, 4), np.uint8)).total == 0


def test_refuses_what_is_no_label() -> None:
    zeros = np.zeros(3, np.uint8)
    with pytest.raises(DataError, match="negative label -2"):
        contingency(np.array([0, 1, -2]), zeros)
    with pytest.raises(DataError, match="float64"):
        contingency(np.zeros(3), zeros)  # type: ignore[arg-type] # what is refused
    with pytest.raises(GeometryError, match="of one size"):
        contingency(zeros, zeros[:2])
