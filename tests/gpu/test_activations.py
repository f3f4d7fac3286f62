"""What is made of logits on the GPU is what the host would make of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.gpu.ways import model_of, noise
from unet_dask.engine.gpu import GpuBackend, classes_of, probabilities_of
from unet_dask.engine.infer import softmax
from unet_dask.errors import DataError
from unet_dask.model.header import NetworkSpec

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("precision", ["float32", "float16"])
@pytest.mark.parametrize("classes", [2, 5, 100])
def test_classes_are_those_of_the_probabilities(classes: int, precision: str) -> None:
    spec = NetworkSpec(width=8, depth=2, classes=classes)
    backend, tile = GpuBackend(model_of(spec), precision=precision), noise(1, (204, 268))
    expected = softmax(backend.logits(tile).copy())
    probabilities = backend.probabilities(tile).copy()
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)
    np.testing.assert_array_equal(backend.classes(tile), probabilities.argmax(axis=0))


def test_of_equally_probable_classes_the_first_is_chosen() -> None:
    values = np.random.default_rng(0).integers(0, 3, (5, 512, 512)).astype(np.float32)
    found = classes_of(torch.from_numpy(values.copy()).to("cuda"))
    np.testing.assert_array_equal(found.cpu().numpy(), values.argmax(axis=0))


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_finite_are_seen_there(wrong: float) -> None:
    logits = torch.zeros(2, 512, 512, device="cuda")
    logits[1, 300, 300] = wrong
    with pytest.raises(DataError, match="not finite here"):
        probabilities_of(logits)


def test_tiles_go_through_memory_that_is_pinned_once() -> None:
    backend = GpuBackend(model_of(NetworkSpec(width=4, depth=2)), precision="float16")
    rooms, large, small = (backend._sent, backend._returned), noise(1, (204, 268)), noise(1, (60, 76))
    backend.classes(large)
    places = [room._bytes.data_ptr() for room in rooms]
    backend.classes(small)
    backend.classes(large)
    assert [room._bytes.data_ptr() for room in rooms] == places
    assert all(room._bytes.is_pinned() for room in rooms)
