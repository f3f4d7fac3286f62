"""Labels of every type are judged alike, and what is unknown is taken out first; PNG keeps all of its bits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import imagecodecs
import numpy as np
import pytest

from unet_dask.errors import InputError
from unet_dask.io.images.labels import annotate
from unet_dask.io.images.picture import read_picture

if TYPE_CHECKING:
    from pathlib import Path

SIGNED = ["int8", "int16", "int32", "int64", "float16", "float32", "float64"]


@pytest.mark.parametrize("dtype", SIGNED)
def test_a_named_value_is_taken_out_before_all_is_checked(dtype: str) -> None:
    values = np.array([[[-2, 0, 7]]], dtype)
    found = annotate(values, "a", ignore=-2)
    assert found.known.tolist() == [[False, True, True]]
    assert found.target.tolist() == [[0, 0, 7]]
    with pytest.raises(InputError, match="a has the negative value -2"):
        annotate(values, "a")
    with pytest.raises(InputError, match="a has the negative value -2"):
        annotate(values, "a", ignore=7)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.array([0, np.nan]), "NaN"),
        (np.array([0, np.inf], np.float32), "the value inf"),
        (np.array([0, -np.inf]), "negative value -inf"),
        (np.array([0, 1.25], np.float16), "fractions, such as 1.25"),
        (np.array([0, 2.0**25], np.float32), "not told apart in float32"),
        (np.array([0, 2**63], np.uint64), "too large"),
        (np.array([0, 1j]), "of type complex128"),
        (np.array(["a", "b"]), "of type <U1"),
    ],
)
def test_what_are_no_labels_is_one_line(values: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        annotate(values[np.newaxis, np.newaxis], "a")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("samples", [1, 2, 3, 4])
def test_sixteen_bits_stay(samples: int, tmp_path: Path) -> None:
    values = np.random.default_rng(samples).integers(0, 1 << 16, (9, 11, samples)).astype(np.uint16)
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(values if samples > 1 else values[..., 0]))
    kept = values[..., : samples - 1 + samples % 2]
    np.testing.assert_array_equal(
        read_picture(str(tmp_path / "a.png")).images(2)[0], np.moveaxis(kept, -1, 0)
    )
