from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from unet_dask.errors import InputError
from unet_dask.training.weight_map import class_weights, nearest_two, separation_term, weight_map

if TYPE_CHECKING:
    from numpy.typing import NDArray

few_cells = hnp.arrays(
    np.int32,
    hnp.array_shapes(min_dims=2, max_dims=3, min_side=1, max_side=7),
    elements=st.sampled_from([0, 0, 0, 1, 2, 3, 4]),
)


def brute_force_term(cells: NDArray[np.int32], w0: float, sigma: float) -> NDArray[np.float64]:
    """Return the second term of eq. 2 as the paper writes it: one list of distances per cell."""
    ids = [value for value in np.unique(cells) if value]
    term = np.zeros(cells.shape, dtype=np.float64)
    if len(ids) < 2:
        return term
    for position in np.argwhere(cells == 0):
        each = sorted(
            np.sqrt(np.square(np.argwhere(cells == value) - position).sum(axis=1).min()) for value in ids
        )
        term[tuple(position)] = w0 * np.exp(-((each[0] + each[1]) ** 2) / (2 * sigma**2))
    return term


@settings(max_examples=60, deadline=None)
@given(cells=few_cells, sigma=st.floats(0.5, 8.0))
def test_term_equals_the_papers_equation(cells: NDArray[np.int32], sigma: float) -> None:
    np.testing.assert_allclose(
        separation_term(cells, w0=10, sigma=sigma), brute_force_term(cells, 10, sigma), atol=1e-6
    )


def test_term_equals_the_papers_equation_beyond_its_reach() -> None:
    cells = np.zeros((12, 90), dtype=np.int32)
    cells[5, 3], cells[2, 40], cells[9, 44], cells[5, 88] = 1, 2, 3, 4
    np.testing.assert_allclose(separation_term(cells), brute_force_term(cells, 10, 5), atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(cells=few_cells, data=st.data())
def test_box_of_the_term_is_cut_from_the_whole(cells: NDArray[np.int32], data: st.DataObject) -> None:
    starts = [data.draw(st.integers(0, side - 1)) for side in cells.shape]
    stops = [data.draw(st.integers(start + 1, side)) for start, side in zip(starts, cells.shape, strict=True)]
    box = tuple(map(slice, starts, stops))
    expected = separation_term(cells, sigma=1.0)[box]
    np.testing.assert_array_equal(separation_term(cells, sigma=1.0, inside=box), expected)


def test_one_cell_has_nothing_to_be_separated_from() -> None:
    cells = np.zeros((9, 9), dtype=np.int32)
    cells[4, 4] = 1
    assert not separation_term(cells).any()


def test_term_is_zero_on_cells() -> None:
    cells = np.array([[1, 1, 0, 2, 2]], dtype=np.int32)
    assert (separation_term(cells) > 0).tolist() == [[False, False, True, False, False]]


def test_distances_are_to_the_nearest_pixel_of_each_cell() -> None:
    first, second = nearest_two(np.array([[1, 1, 0, 0, 0, 2]]), reach=9)
    assert first.tolist() == [[0, 0, 1, 2, 1, 0]]
    assert second.tolist() == [[5, 4, 3, 2, 3, 4]]


def test_gap_of_two_pixels_weighs_as_computed_by_hand() -> None:
    # d1 = 1, d2 = 2: 10 * exp(-9 / 50)
    term = separation_term(np.array([[1, 0, 0, 2]], dtype=np.int32))
    np.testing.assert_allclose(term, [[0, 8.352702, 8.352702, 0]], rtol=1e-6)


def test_balanced_classes_weigh_the_same_in_total() -> None:
    counts = [900, 90, 10]
    np.testing.assert_allclose(class_weights(counts) * counts, 1000 / 3, rtol=1e-6)


def test_absent_class_weighs_nothing() -> None:
    assert class_weights([3, 0, 1]).tolist() == pytest.approx([2 / 3, 0, 2])


def test_nothing_annotated_is_refused() -> None:
    with pytest.raises(InputError, match="no annotated pixel"):
        class_weights([0, 0])


def test_unknown_pixels_weigh_nothing() -> None:
    cells = np.array([[1, 0, 2, 0]], dtype=np.int32)
    known = np.array([[True, False, True, True]])
    weights = weight_map(
        (cells > 0).astype(np.uint8), cells, class_weight=np.array([1, 2], np.float32), known=known
    )
    assert weights[0, 1] == 0
    assert weights[0, 0] == 2
    assert weights[0, 3] > 1
