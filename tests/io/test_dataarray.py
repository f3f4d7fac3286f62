from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr

from unet_dask.errors import GeometryError, InputError
from unet_dask.io.dataarray import from_dataarray, to_dataarray


def image(*dims: str, chunks: dict[str, int] | None = None) -> xr.DataArray:
    sizes = {"time": 2, "band": 3, "z": 4, "row": 5, "x": 6}
    values = np.arange(np.prod([sizes[d] for d in dims])).reshape([sizes[d] for d in dims])
    array = xr.DataArray(
        values,
        dims=dims,
        coords={"x": np.linspace(0, 1, 6), "band": ["r", "g", "b"]}
        if "band" in dims
        else {"x": np.arange(6.0)},
        attrs={"units": "counts", "long_name": "intensity", "microscope": "SEM"},
        name="cells",
    )
    return array if chunks is None else array.chunk(chunks)


@pytest.mark.parametrize(
    ("dims", "axes"),
    [
        pytest.param(("row", "x"), "cyx", id="2d"),
        pytest.param(("row", "x", "band"), "cyx", id="channels-last"),
        pytest.param(("x", "row", "z", "time", "band"), "tczyx", id="reversed"),
    ],
)
def test_from_dataarray_is_canonical(dims: tuple[str, ...], axes: str) -> None:
    source = image(*dims, chunks={"x": 2})
    lazy, found = from_dataarray(source)
    order = [d for d in ("time", "band", "z", "row", "x") if d in dims]
    assert found == axes
    assert np.array_equal(np.asarray(lazy).ravel(), source.transpose(*order).to_numpy().ravel())


def test_from_dataarray_computes_nothing() -> None:
    assert from_dataarray(image("row", "x", chunks={"x": 2}))[0].chunks == ((1,), (5,), (2, 2, 2))


def test_from_dataarray_makes_memory_lazy() -> None:
    assert from_dataarray(image("row", "x"))[0].chunks == ((1,), (5,), (6,))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        pytest.param(
            xr.DataArray(np.zeros((2, 3)), dims=("a", "x")), r"'a'.*x\.rename\(\{'a': 'y'\}\)", id="name"
        ),
        pytest.param(xr.DataArray(np.zeros((2, 3)), dims=("z", "x")), "have no 'y'", id="no-y"),
        pytest.param(xr.DataArray(np.zeros((2, 3), "c8"), dims=("y", "x")), "complex64", id="complex"),
    ],
)
def test_from_dataarray_says_what_to_do(array: xr.DataArray, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        from_dataarray(array)
    assert "\n" not in str(caught.value)


def classes(like: xr.DataArray) -> xr.DataArray:
    return to_dataarray(np.ones((4, 5, 6), np.uint8), like, "zyx")


def test_classes_keep_name_coordinates_and_other_attributes() -> None:
    result = classes(image("z", "row", "x", "band"))
    expected = xr.DataArray(
        np.ones((4, 5, 6), np.uint8),
        dims=("z", "row", "x"),
        coords={"x": np.linspace(0, 1, 6)},
        attrs={"microscope": "SEM"},
        name="cells",
    )
    xr.testing.assert_identical(result, expected)


def test_source_is_left_as_it_was() -> None:
    like = image("z", "row", "x", "band")
    before = like.copy(deep=True)
    classes(like)
    xr.testing.assert_identical(like, before)


def test_channel_left_over_from_selection_is_dropped() -> None:
    assert "band" not in classes(image("z", "row", "x", "band").isel(band=0)).coords


@pytest.mark.parametrize(
    ("dims", "expected"),
    [
        pytest.param(("row", "x"), ("c", "row", "x"), id="no-channels"),
        pytest.param(("row", "x", "band"), ("row", "x", "c"), id="channels-last"),
        pytest.param(("band", "x", "row"), ("c", "x", "row"), id="transposed"),
    ],
)
def test_probabilities_put_classes_where_channels_were(
    dims: tuple[str, ...], expected: tuple[str, ...]
) -> None:
    values = np.random.default_rng(0).random((2, 5, 6))
    result = to_dataarray(values, image(*dims), "cyx", ["background", "cell"])
    assert result.dims == expected
    assert list(result["c"].to_numpy()) == ["background", "cell"]
    assert np.array_equal(result.transpose("c", "row", "x").to_numpy(), values)


@pytest.mark.parametrize(
    ("shape", "axes", "names", "message"),
    [
        pytest.param((5, 7), "yx", None, "7 along x does not fit an image of 6", id="size"),
        pytest.param((2, 5, 6), "cyx", ["a"], "1 class names for 2 classes", id="names"),
        pytest.param((4, 5, 6), "zyx", None, "axes zyx does not fit an image with the axes yx", id="axes"),
    ],
)
def test_results_that_do_not_fit_are_refused(
    shape: tuple[int, ...], axes: str, names: list[str] | None, message: str
) -> None:
    values: Any = np.zeros(shape)
    with pytest.raises(GeometryError, match=message):
        to_dataarray(values, image("row", "x"), axes, names)
