"""A tile that goes through the network strip by strip: the logits of the whole pass, in the memory of a strip."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from tests.conftest import requires_onednn_bfloat16
from unet_dask.engine.backend import TorchBackend
from unet_dask.engine.packed import as_corners
from unet_dask.engine.stream import _place
from unet_dask.model import strips
from unet_dask.model.file import new_model
from unet_dask.model.folding import fold_batch_norm
from unet_dask.model.header import NetworkSpec, Normalisation
from unet_dask.model.strips import strip_bytes, strip_lines

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from unet_dask.model.file import Model


def model_of(spec: NetworkSpec) -> Model:
    """Return a model whose biases matter too."""
    channels = spec.channels
    model = new_model(spec, normalisation=Normalisation("constant", (0.0,) * channels, (1.0,) * channels))
    generator = torch.Generator().manual_seed(1)
    for name, value in model.network.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(value, std=0.1, generator=generator)
    return model


def noise(channels: int, sides: tuple[int, ...]) -> NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal((channels, *sides), np.float32)


def whole(model: Model, tile: NDArray[np.float32], dtype: torch.dtype = torch.float32) -> NDArray[np.float32]:
    """Return the logits of one pass of the plain network over a whole tile: the oracle."""
    network = fold_batch_norm(model.network).eval().to(dtype)
    with torch.inference_mode():
        logits: NDArray[np.float32] = network(torch.from_numpy(tile)[None].to(dtype))[0].float().numpy()
    return logits


@pytest.fixture
def thin(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make strips of one period of the lattice."""
    monkeypatch.setattr(strips, "PERIODS", (1, 1))


@pytest.mark.usefixtures("thin")
@pytest.mark.parametrize(
    ("spec", "sides"),
    [
        (NetworkSpec(width=2, depth=1), (18, 20)),  # the smallest: 2 lines come out
        (NetworkSpec(width=2, depth=1), (100, 20)),
        (NetworkSpec(width=4, depth=2, channels=3, classes=5), (44, 60)),
        (NetworkSpec(width=4, depth=2, channels=3, classes=5, batch_norm=True), (160, 44)),
        (NetworkSpec(width=2, depth=3), (92, 100)),
        (NetworkSpec(width=2, depth=3), (300, 92)),
        (NetworkSpec(width=2, depth=4), (572, 188)),
        (NetworkSpec(width=1, depth=5), (412, 444)),
        (NetworkSpec(dims=3, width=2, depth=1), (40, 18, 24)),
        (NetworkSpec(dims=3, width=3, depth=2, channels=2, classes=3), (44, 52, 60)),
        (NetworkSpec(dims=3, width=2, depth=3), (132, 92, 100)),
        # Slices that are far apart: pooled late, early, or never; and windows of three across the strips.
        (NetworkSpec(dims=3, width=3, depth=2, factors=((1, 2, 2), (2, 2, 2))), (40, 44, 52)),
        (NetworkSpec(dims=3, width=2, depth=2, channels=2, factors=((2, 1, 2), (1, 2, 2))), (42, 36, 52)),
        (NetworkSpec(dims=3, width=2, depth=2, factors=((1, 2, 2), (1, 2, 2))), (37, 44, 52)),
        (NetworkSpec(dims=3, width=2, depth=1, factors=((2, 2, 1),)), (40, 24, 23)),
        (NetworkSpec(width=2, depth=2, factors=((2, 3), (2, 1))), (76, 46)),
        (NetworkSpec(width=2, depth=2, factors=((2, 1), (1, 4))), (62, 60)),
    ],
)
def test_strips_make_the_logits_of_the_whole(spec: NetworkSpec, sides: tuple[int, ...]) -> None:
    model, tile = model_of(spec), noise(spec.channels, sides)
    made = TorchBackend(model, device="cpu", precision="float32").logits(tile)
    expected = whole(model, tile)
    assert made.shape == expected.shape
    assert int(strip_lines(spec, sides, item=4)) == spec.stride[0]
    np.testing.assert_allclose(made, expected, atol=4e-6 * float(abs(expected).max()), rtol=0)


@pytest.mark.parametrize("periods", [1, 2, 3, 7, 16])
def test_logits_do_not_depend_on_the_strips(periods: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strips, "PERIODS", (periods, periods))
    spec = NetworkSpec(width=4, depth=3)
    model, tile = model_of(spec), noise(1, (404, 108))
    made = TorchBackend(model, device="cpu", precision="float32").logits(tile)
    expected = whole(model, tile)
    np.testing.assert_allclose(made, expected, atol=2e-6 * float(abs(expected).max()), rtol=0)


@requires_onednn_bfloat16
@pytest.mark.usefixtures("thin")
def test_numbers_of_16_bits_are_streamed_too() -> None:
    spec = NetworkSpec(width=4, depth=2)
    model, tile = model_of(spec), noise(1, (76, 60))
    made = TorchBackend(model, device="cpu", precision="bfloat16").logits(tile)
    expected = whole(model, tile, torch.bfloat16)
    assert np.abs(made - expected).max() <= 0.03 * np.abs(expected).max()


@pytest.mark.usefixtures("thin")
def test_without_onednn_torch_convolves_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    spec = NetworkSpec(width=4, depth=2)
    model, tile = model_of(spec), noise(1, (76, 60))
    made = TorchBackend(model, device="cpu", precision="float32").logits(tile)
    expected = whole(model, tile)
    np.testing.assert_allclose(made, expected, atol=2e-6 * float(abs(expected).max()), rtol=0)


@pytest.mark.parametrize("precision", ["float32", pytest.param("bfloat16", marks=requires_onednn_bfloat16)])
@pytest.mark.parametrize("where", ["tile", "weight"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_stays_so(precision: str, where: str, value: float) -> None:
    """A ReLU of oneDNN makes 0 of NaN: a network that has diverged, or an overflow, would look like background."""
    spec = NetworkSpec(width=4, depth=2)
    model, tile = model_of(spec), noise(1, (76, 60))
    if where == "tile":
        tile[0, 38, 30] = value
    else:
        with torch.no_grad():
            model.network.get_parameter("contracting.1.0.weight")[1, 2, 0, 0] = value
    logits = TorchBackend(model, device="cpu", precision=precision).logits(tile)
    assert not np.isfinite(logits).all()


def test_a_tile_is_left_as_it_is() -> None:
    spec = NetworkSpec(width=2, depth=1)
    tile = noise(1, (40, 40))
    before = tile.copy()
    backend = TorchBackend(model_of(spec), device="cpu", precision="float32")
    first = backend.logits(tile)
    np.testing.assert_array_equal(tile, before)
    np.testing.assert_array_equal(backend.logits(tile), first)  # nothing is left of the first


#: What the first large tile takes besides, of code that is compiled for it.
KERNELS = 6 << 20

ALIVE = """
import json, re, sys
import numpy as np
from unet_dask.engine.backend import load_backend
from unet_dask.model.strips import strip_bytes
from unet_dask.model.file import new_model
from unet_dask.model.header import NetworkSpec, Normalisation

def kilobytes(which):
    return int(re.search(which + ":\\\\s+(\\\\d+)", open("/proc/self/status").read())[1])

factors, *numbers = sys.argv[1:]
dims, width, depth, *sides = map(int, numbers)
spec = NetworkSpec(dims=dims, width=width, depth=depth, factors=json.loads(factors))
backend = load_backend("torch", new_model(spec, normalisation=Normalisation("constant", (0.0,), (1.0,))),
                       device="cpu", precision="float32")
backend.logits(np.zeros((1, *(each.input_size(each.stride) for each in spec.contexts)), np.float32))
tile = np.ones((1, *sides), np.float32)
before = kilobytes("VmRSS")
made = backend.logits(tile)
print((kilobytes("VmHWM") - before) * 1024 - made.nbytes)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads what Linux tells of a process")
@pytest.mark.parametrize(
    ("spec", "sides"),
    [
        (NetworkSpec(width=16, depth=4), (1404, 1404)),
        (NetworkSpec(width=16, depth=2), (1404, 1404)),
        (NetworkSpec(dims=3, width=8, depth=3), (196, 196, 196)),
        (NetworkSpec(dims=3, width=8, depth=2), (140, 196, 140)),
        (NetworkSpec(dims=3, width=8, depth=2, factors=((1, 2, 2), (2, 2, 2))), (104, 196, 140)),
    ],
)
def test_what_is_alive_is_what_was_computed(spec: NetworkSpec, sides: tuple[int, ...]) -> None:
    """Measured on a heap that keeps nothing: what is resident is what is alive."""
    heap = {
        "MALLOC_MMAP_MAX_": "65536",  # workers set it to 0
        "MALLOC_MMAP_THRESHOLD_": "100000",
        "MALLOC_TRIM_THRESHOLD_": "0",
        "OMP_NUM_THREADS": "1",
    }
    numbers = map(str, (spec.dims, spec.width, spec.depth, *sides))
    command = [sys.executable, "-c", ALIVE, json.dumps(spec.factors), *numbers]
    done = subprocess.run(command, env=os.environ | heap, capture_output=True, text=True, check=True)
    computed = sum(strip_bytes(spec, sides, item=4))
    assert 0.8 * computed <= int(done.stdout) <= 1.05 * computed + KERNELS


@pytest.mark.parametrize("factors", [(2, 2), (2, 2, 2), (1, 2, 2), (2, 3), (4, 1)], ids=str)
def test_corners_are_put_where_an_up_convolution_makes_them(factors: tuple[int, ...]) -> None:
    dims = len(factors)
    torch.manual_seed(0)
    kind = torch.nn.ConvTranspose2d if dims == 2 else torch.nn.ConvTranspose3d
    module = kind(6, 3, factors, factors).requires_grad_(requires_grad=False)  # type: ignore[arg-type] # as many as dims
    features = torch.randn(1, 6, *(3, 4, 5)[:dims])
    expected = module(features)
    weight, bias = as_corners(module)
    convolve = torch.nn.functional.conv2d if dims == 2 else torch.nn.functional.conv3d
    room = torch.full_like(expected, torch.nan)
    _place(convolve(features, weight, bias), room, factors)
    torch.testing.assert_close(room, expected)
