"""Components of equal value, against scikit-image, in one to three dimensions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from skimage.measure import label

from unet_dask.components import labelled

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Few values, so that neighbours are often alike; of one byte and of more, which are looked at in another way.
values = st.sampled_from([np.bool_, np.uint8, np.int8, np.uint16, np.int64]).flatmap(
    lambda kind: hnp.arrays(
        kind,
        hnp.array_shapes(max_dims=3, max_side=7),
        elements=st.booleans() if kind is np.bool_ else st.integers(0, 3),
    )
)


@settings(max_examples=300, deadline=None)
@given(values)
def test_components_are_those_of_scikit_image(found: NDArray[np.integer]) -> None:
    labels = labelled(found)
    expected = label(found, background=0, connectivity=1)
    assert labels.dtype == np.int32
    assert np.array_equal(labels > 0, expected > 0)
    pairs = np.unique(np.stack([labels.ravel(), np.asarray(expected).ravel()]), axis=1)
    assert all(len(np.unique(side)) == len(side) for side in pairs)  # one to one
    numbers, first = np.unique(labels[labels > 0], return_index=True)
    assert numbers.tolist() == list(range(1, len(numbers) + 1))
    assert (np.diff(first) > 0).all()  # in the order of their first voxels


@settings(max_examples=100, deadline=None)
@given(hnp.arrays(np.uint8, hnp.array_shapes(min_dims=3, max_dims=3, max_side=6), elements=st.integers(0, 2)))
def test_planes_are_labelled_apart_where_nothing_connects_them(volume: NDArray[np.uint8]) -> None:
    count, planes = 0, labelled(volume, dims=2)
    for plane, found in zip(volume, planes, strict=True):
        alone = labelled(plane)
        np.testing.assert_array_equal(found, np.where(alone > 0, alone + count, 0))
        count += int(alone.max())


def test_objects_of_one_number_that_do_not_touch_become_two() -> None:
    assert labelled(np.array([[7, 0, 7, 7], [7, 7, 0, 9]])).tolist() == [[1, 0, 2, 2], [1, 1, 0, 3]]


@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0, 2)])
@pytest.mark.parametrize("kind", [np.bool_, np.uint8, np.int32])
def test_nothing_has_no_components(shape: tuple[int, ...], kind: type) -> None:
    assert labelled(np.zeros(shape, kind)).shape == shape
