"""`unet_dask.segment`: the same kind out, nothing computed, the values of the whole image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dask
import dask.array as da
import numpy as np
import pytest
import torch
import xarray

import unet_dask
from tests.oracle import disagreement, whole_image
from unet_dask.errors import InputError, ModelError
from unet_dask.model.file import load_model, new_model, save_model
from unet_dask.model.header import NetworkSpec, Normalisation

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from unet_dask.model.file import Model

BOUND = 1e-5
REFUSED = r"masked array|Give a NumPy array|no grey values|no image|are not finite"


@pytest.fixture(scope="module", params=[2, 3], ids=["2-D", "3-D"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Model:
    path = tmp_path_factory.mktemp("model") / "net.safetensors"
    spec = NetworkSpec(dims=request.param, width=8, depth=2, classes=3)
    save_model(new_model(spec, seed=1, normalisation=Normalisation("constant", (128.0,), (64.0,))), path)
    return load_model(path)


def image_for(model: Model) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    shape = {2: (150, 131), 3: (41, 52, 37)}[model.header.network.dims]
    return np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)


@pytest.mark.parametrize("side", [24, 50, 1000], ids=["small-chunks", "ragged-chunks", "one-chunk"])
def test_probabilities_equal_the_whole_image(model: Model, side: int) -> None:
    image = image_for(model)
    lazy = unet_dask.segment(da.from_array(image, chunks=side), model, output="probabilities")
    assert lazy.shape == (3, *image.shape)
    assert disagreement(lazy.compute(scheduler="threads"), whole_image(model, image[None])) <= BOUND


def test_classes_have_no_channel_axis(model: Model) -> None:
    image = image_for(model)
    lazy = unet_dask.segment(da.from_array(image, chunks=30), model)
    assert lazy.shape == image.shape
    assert lazy.dtype == np.uint8
    expected = whole_image(model, image[None]).argmax(axis=0)
    assert (lazy.compute(scheduler="threads") != expected).mean() < 1e-4


def test_nothing_is_computed(model: Model) -> None:
    def never(*_arguments: object, **_keywords: object) -> None:
        raise AssertionError("computed")

    with dask.config.set(scheduler=never):
        unet_dask.segment(da.zeros(image_for(model).shape, chunks=30, dtype=np.uint8), model)


def test_a_dataarray_keeps_its_names(model: Model) -> None:
    image = image_for(model)
    dims = ("z", "y", "x")[-image.ndim :]
    coords = {name: np.arange(size) * 0.5 for name, size in zip(dims, image.shape, strict=True)}
    labelled = xarray.DataArray(da.from_array(image, chunks=40), dims=dims, coords=coords, name="em")
    result = unet_dask.segment(labelled, model, output="probabilities")
    assert result.dims == ("c", *dims)
    assert list(result.coords["c"].values) == ["background", "class 1", "class 2"]
    assert np.array_equal(result.coords["x"], coords["x"])
    assert isinstance(result.data, da.Array)
    assert disagreement(result.compute(scheduler="threads").values, whole_image(model, image[None])) <= BOUND


def test_a_numpy_array_is_segmented_at_once(model: Model) -> None:
    result = unet_dask.segment(image_for(model), model)
    assert isinstance(result, np.ndarray)


def test_slices_of_a_volume_go_through_a_flat_network(tmp_path: Path) -> None:
    flat = new_model(
        NetworkSpec(width=8, depth=2), normalisation=Normalisation("constant", (128.0,), (64.0,))
    )
    image = np.random.default_rng(0).integers(0, 256, (3, 60, 70)).astype(np.uint8)
    found = unet_dask.segment(da.from_array(image, chunks=(2, 32, 32)), flat, output="probabilities")
    expected = np.stack([whole_image(flat, plane[None]) for plane in image], axis=1)
    assert disagreement(found.compute(scheduler="threads"), expected) <= BOUND


def test_weights_changed_in_memory_are_the_ones_that_run(tmp_path: Path) -> None:
    constants = Normalisation("constant", (128.0,), (64.0,))
    save_model(new_model(NetworkSpec(width=4, depth=1), normalisation=constants), tmp_path / "m.safetensors")
    model = unet_dask.load_model(tmp_path / "m.safetensors")
    with torch.no_grad():
        model.network.get_parameter("classify.weight").mul_(-1.0)
    image = np.random.default_rng(0).integers(0, 256, (60, 70)).astype(np.uint8)
    found = unet_dask.segment(da.from_array(image, chunks=32), model, output="probabilities")
    assert disagreement(found.compute(scheduler="threads"), whole_image(model, image[None])) <= BOUND


def test_the_model_is_no_part_of_the_graph(model: Model) -> None:
    from distributed.protocol.pickle import dumps

    lazy = unet_dask.segment(da.zeros((200,) * model.header.network.dims, chunks=100, dtype=np.uint8), model)
    largest = max(len(dumps(task)) for task in lazy.__dask_graph__().values())
    weights = sum(each.numel() for each in model.network.parameters()) * 4
    assert largest < 20_000 < weights


def test_axes_that_could_be_anything_are_asked_for() -> None:
    flat = new_model(NetworkSpec(width=2, depth=1))
    with pytest.raises(InputError, match="could mean several things"):
        unet_dask.segment(da.zeros((2, 2, 30, 30), dtype=np.uint8), flat)


def test_channels_must_fit() -> None:
    colour = new_model(NetworkSpec(width=2, depth=1, channels=3))
    with pytest.raises(ModelError, match=r"takes 3 channel\(s\), but the image has 2"):
        unet_dask.segment(da.zeros((2, 30, 30), dtype=np.uint8), colour)


def masked_without_telling(values: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> da.Array:
    array = da.from_array(values, chunks=32)
    return array.map_blocks(
        lambda block: np.ma.masked_less(block, 9), dtype=array.dtype, meta=np.zeros((0, 0), "u1")
    )


@pytest.mark.parametrize(
    "dress",
    [
        lambda values: np.ma.array(values, mask=values < 0),
        lambda values: da.ma.masked_inside(da.from_array(values, chunks=32), 3, 5),
        lambda values: xarray.DataArray(
            da.ma.masked_less(da.from_array(values, chunks=32), 3), dims=("y", "x")
        ),
        masked_without_telling,
        lambda values: values.astype(complex),
        lambda values: values.astype(object),
        lambda values: values.tolist(),
        torch.from_numpy,
        lambda values: xarray.Dataset({"a": (("y", "x"), values)}),
    ],
)
def test_arrays_with_rules_of_their_own_are_refused(dress: Callable[..., Any], tmp_path: Path) -> None:
    network = new_model(
        NetworkSpec(dims=2, width=2, depth=1), normalisation=Normalisation("constant", (9.0,), (5.0,))
    )
    image = np.random.default_rng(0).integers(0, 255, (64, 64)).astype(np.uint8)
    with pytest.raises(InputError, match=REFUSED) as caught:
        np.asarray(unet_dask.segment(dress(image), network))
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore:the matrix subclass")
def test_a_matrix_and_a_memory_map_are_plain_arrays(tmp_path: Path) -> None:
    network = new_model(
        NetworkSpec(dims=2, width=2, depth=1), normalisation=Normalisation("constant", (9.0,), (5.0,))
    )
    image = np.random.default_rng(0).integers(0, 255, (40, 48)).astype(np.uint8)
    mapped = np.memmap(tmp_path / "a.dat", np.uint8, "w+", shape=image.shape)
    mapped[...] = image
    expected = unet_dask.segment(image, network, output="probabilities")
    for each in (image.view(np.matrix), mapped):
        np.testing.assert_array_equal(unet_dask.segment(each, network, output="probabilities"), expected)
