"""The backend of GPUs, on a CPU: what it makes of logits, what comes back, and what it leaves behind."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from tests.gpu.ways import model_of, noise
from unet_dask.engine import gpu
from unet_dask.engine.backend import TorchBackend
from unet_dask.engine.gpu import GpuBackend, Room, classes_of, probabilities_of
from unet_dask.engine.infer import Classifier, Pass, infer, softmax
from unet_dask.errors import DataError
from unet_dask.model.header import NetworkSpec
from unet_dask.products import product_of
from unet_dask.tiling.region import AxisGrid
from unet_dask.tiling.valid import Context

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from unet_dask.products import Product

CLASSES = product_of("classes", "uint8")
INSTANCES = product_of("instances", "uint32")
PROBABILITIES = product_of("probabilities", "float32")
NETWORKS = {
    "2-D": (NetworkSpec(width=4, depth=2, classes=3), (60, 76)),
    "2-D, channels and batch normalisation": (
        NetworkSpec(width=4, depth=1, channels=3, batch_norm=True),
        (40, 44),
    ),
    "3-D": (NetworkSpec(dims=3, width=4, depth=1), (28, 32, 36)),
}


@pytest.mark.parametrize(("spec", "sides"), NETWORKS.values(), ids=NETWORKS.keys())
def test_logits_and_what_is_made_of_them_are_those_of_the_host(
    spec: NetworkSpec, sides: tuple[int, ...]
) -> None:
    model, tile = model_of(spec), noise(spec.channels, sides)
    backend = GpuBackend(model, precision="float32", device="cpu")
    expected = TorchBackend(model, device="cpu", precision="float32").logits(tile)
    np.testing.assert_allclose(backend.logits(tile), expected, atol=1e-5 * np.abs(expected).max())
    probabilities = backend.probabilities(tile).copy()
    np.testing.assert_allclose(probabilities, softmax(expected), atol=1e-5)
    np.testing.assert_array_equal(backend.classes(tile), probabilities.argmax(axis=0))


def test_it_says_what_it_can_do_and_others_do_not() -> None:
    model = model_of(NetworkSpec(width=1, depth=1))
    assert isinstance(GpuBackend(model, precision="bfloat16", device="cpu"), Classifier)
    assert not isinstance(TorchBackend(model, device="cpu", precision="float32"), Classifier)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_tiles_of_many_shapes_are_not_mixed_up(precision: str) -> None:
    spec = NetworkSpec(width=2, depth=1, channels=2)
    model = model_of(spec)
    tiles = [noise(2, sides) for sides in ((40, 44), (20, 36), (60, 24))]
    backend = GpuBackend(model, precision=precision, device="cpu")
    made = [backend.logits(tile).copy() for tile in tiles]
    for tile, each in zip(tiles, made, strict=True):
        alone = GpuBackend(model, precision=precision, device="cpu").logits(tile)
        np.testing.assert_array_equal(each, alone)


def test_room_is_kept_and_grows() -> None:
    room = Room(torch.device("cpu"))
    first = room.of((2, 3, 4), torch.float32)
    assert room.of((24,), torch.float32).data_ptr() == first.data_ptr()
    assert room.of((5, 1), torch.uint8).data_ptr() == first.data_ptr()
    assert room.of((7, 7), torch.float32).shape == (7, 7)


def test_probabilities_take_the_place_of_the_logits() -> None:
    logits = torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(0))
    expected = softmax(logits.numpy().copy())
    made = probabilities_of(logits)
    assert made.data_ptr() == logits.data_ptr()
    np.testing.assert_allclose(made.numpy(), expected, atol=1e-6)


def test_of_equally_probable_classes_the_first_is_chosen() -> None:
    values = np.random.default_rng(0).integers(0, 3, (5, 64, 64)).astype(np.float32)
    found = classes_of(torch.from_numpy(values.copy()))
    assert found.dtype == torch.uint8
    np.testing.assert_array_equal(found.numpy(), values.argmax(axis=0))


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_finite_stop_the_region(wrong: float) -> None:
    logits = torch.zeros(2, 8, 8)
    logits[1, 3, 3] = wrong
    with pytest.raises(DataError, match="not finite here"):
        classes_of(logits)


def test_it_compares_what_is_not_finite() -> None:
    """A precision that overflows must be seen by the comparison, and refused, not end it."""
    backend = GpuBackend(
        model_of(NetworkSpec(width=1, depth=1, channels=1)), precision="float32", device="cpu"
    )
    tile = np.full((1, 20, 20), np.inf, np.float32)
    assert not np.isfinite(backend.logits(tile)).all()
    with pytest.raises(DataError, match="not finite here"):
        backend.probabilities(tile)


def test_kernels_are_exact_while_it_runs_and_as_they_were_afterwards() -> None:
    flags, seen = torch.backends.cudnn, []
    backend = GpuBackend(model_of(NetworkSpec(width=1, depth=1)), precision="float32", device="cpu")
    backend._network.register_forward_hook(
        lambda *_: seen.append((flags.enabled, flags.benchmark, flags.deterministic, flags.allow_tf32))
    )
    before = flags.enabled, flags.benchmark, flags.deterministic, flags.allow_tf32
    backend.logits(noise(1, (20, 20)))
    assert seen == [(True, False, True, False)]
    assert (flags.enabled, flags.benchmark, flags.deterministic, flags.allow_tf32) == before


def test_nothing_is_given_back_where_no_gpu_was_used() -> None:
    gpu.give_back()
    assert not torch.cuda.is_initialized()  # type: ignore[no-untyped-call] # torch has no type for it


class Told:
    """A backend that has been asked for this."""

    def __init__(self, spec: NetworkSpec) -> None:
        self.asked: set[str] = set()
        self._backend = GpuBackend(model_of(spec), precision="float32", device="cpu")

    def logits(self, tile: NDArray[np.float32]) -> NDArray[np.float32]:
        self.asked.add("logits")
        return self._backend.logits(tile)

    def probabilities(self, tile: NDArray[np.float32]) -> NDArray[np.float32]:
        self.asked.add("probabilities")
        return self._backend.probabilities(tile)

    def classes(self, tile: NDArray[np.float32]) -> NDArray[np.uint8]:
        self.asked.add("classes")
        return self._backend.classes(tile)


@pytest.mark.parametrize(
    ("outputs", "tta", "asked"),
    [
        ((CLASSES,), "none", "classes"),
        ((INSTANCES,), "none", "classes"),
        ((CLASSES, INSTANCES), "none", "classes"),
        ((CLASSES, PROBABILITIES), "none", "probabilities"),
        ((CLASSES,), "flips", "probabilities"),
    ],
    ids=lambda each: each if isinstance(each, str) else "+".join(output.name for output in each),
)
@pytest.mark.parametrize("masked", [False, True], ids=["whole", "masked"])
def test_no_more_comes_back_than_is_kept(
    outputs: tuple[Product, ...], tta: str, asked: str, *, masked: bool
) -> None:
    spec = NetworkSpec(width=2, depth=1, classes=3)
    model, told = model_of(spec), Told(spec)
    grid = AxisGrid(50, 3, 47, 44, 16, Context(spec.halo[0], spec.stride[0], spec.slack[0]))
    start, stop = grid.read(0)
    window = np.random.default_rng(0).integers(0, 256, (2, 1, *(stop - start,) * 2)).astype(np.uint8)
    inside = np.random.default_rng(1).random((2, 44, 44)) < 0.01 if masked else None
    host = TorchBackend(model, device="cpu", precision="float32")
    made, expected = (
        infer(
            window,
            grids=(grid, grid),
            write=(grid.write(0),) * 2,
            through=Pass(backend, model.header.normalisation, spec, tta),
            outputs=outputs,
            inside=inside,
        )
        for backend in (told, host)
    )
    assert told.asked == {asked}
    for output, found, wanted in zip(outputs, made, expected, strict=True):
        assert found.dtype == output.dtype
        np.testing.assert_allclose(found.astype(np.float32), wanted.astype(np.float32), atol=1e-5)
