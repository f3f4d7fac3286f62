from __future__ import annotations

from itertools import combinations, permutations

import numpy as np
import pytest

from unet_dask import axes
from unet_dask.errors import InputError

SUBSETS = ["".join(some) + "yx" for count in range(4) for some in combinations("tcz", count)]
ORDERS = ["".join(order) for subset in SUBSETS for order in permutations(subset)]


@pytest.mark.parametrize("stored", ORDERS)
def test_canonical_is_tczyx_with_c(stored: str) -> None:
    assert axes.canonical(stored) == "".join(a for a in "tczyx" if a in stored or a == "c")


@pytest.mark.parametrize("stored", ORDERS)
def test_to_canonical_moves_every_value_to_its_place(stored: str) -> None:
    sizes = {"t": 2, "c": 3, "z": 4, "y": 5, "x": 6}
    array = np.arange(np.prod([sizes[a] for a in stored])).reshape([sizes[a] for a in stored])
    # einsum knows nothing of our permutation; its summation over an absent c is the insertion.
    present = "".join(a for a in "tczyx" if a in stored)
    expected = np.einsum(f"{stored}->{present}", array)
    result = axes.to_canonical(array, stored)
    assert result.shape == tuple(sizes[a] if a in stored else 1 for a in axes.canonical(stored))
    assert np.array_equal(result.ravel(), expected.ravel())


def test_validate_ignores_case() -> None:
    assert axes.validate("ZYX") == "zyx"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        pytest.param("zyq", "hold 'q'.*one letter per dimension", id="unknown"),
        pytest.param("zyxx", "name 'x' more than once", id="repeated"),
        pytest.param("zx", "have no 'y'.*both y and x", id="no-y"),
        pytest.param("", "have no 'y'", id="empty"),
        pytest.param("z y x", "hold ' '", id="spaces"),
    ],
)
def test_validate_says_what_to_do(given: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        axes.validate(given)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        pytest.param(["time", "channel", "z", "y", "x"], "tczyx", id="xarray"),
        pytest.param(["band", "Y", "X"], "cyx", id="rasterio"),
        pytest.param(["row", "col"], "yx", id="scikit-image"),
        pytest.param(["dim_0", "dim_1"], None, id="xarray-defaults"),
        pytest.param([None, None], None, id="zarr-v3-nulls"),
    ],
)
def test_names_of_dimensions(names: list[str | None], expected: str | None) -> None:
    assert axes.from_names(names) == expected


def test_partly_known_names_are_not_guessed() -> None:
    with pytest.raises(InputError, match=r"'sample' among \(sample, y, x\).*--axes"):
        axes.from_names(["sample", "y", "x"])
