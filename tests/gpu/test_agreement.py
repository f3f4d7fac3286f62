"""The network on the GPU against the network on the CPU: float32 is float32, and 16 bits class alike."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from tests.gpu.ways import AGREEMENT, BOUND, logits, mirrored_tile, model_of, noise, trained
from unet_dask.engine.device import choose_device, choose_precision
from unet_dask.model.folding import fold_batch_norm
from unet_dask.model.header import NetworkSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

pytestmark = pytest.mark.gpu

NETWORKS = {
    "2-D": (NetworkSpec(width=32, depth=4), (572, 604)),
    "2-D, several channels and classes": (NetworkSpec(width=8, depth=2, channels=3, classes=5), (108, 76)),
    "2-D, batch normalisation": (NetworkSpec(width=16, depth=3, batch_norm=True), (204, 268)),
    "3-D": (NetworkSpec(dims=3, width=8, depth=3), (100, 108, 132)),
    "3-D, batch normalisation": (NetworkSpec(dims=3, width=8, depth=2, batch_norm=True), (60, 76, 92)),
}


def apart(found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    """Return the largest difference, as a share of the largest value."""
    return float(np.abs(found - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize(("spec", "sides"), NETWORKS.values(), ids=NETWORKS.keys())
def test_float32_logits_are_those_of_the_cpu(spec: NetworkSpec, sides: tuple[int, ...]) -> None:
    model, tile = model_of(spec), noise(spec.channels, sides)
    assert apart(logits(model, tile, "cuda"), logits(model, tile, "cpu")) <= BOUND


@pytest.mark.usefixtures("_native_bfloat16")
def test_control_ten_bits_of_mantissa_are_seen() -> None:
    spec, sides = NETWORKS["2-D"]
    model, tile = model_of(spec), noise(spec.channels, sides)
    network = fold_batch_norm(copy.deepcopy(model.network)).eval().to("cuda")
    with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=True):
        short: NDArray[np.float32] = network(torch.from_numpy(tile)[None].to("cuda"))[0].cpu().numpy()
    assert apart(short, logits(model, tile, "cpu")) > BOUND


def test_float32_of_the_gpu_leaves_torch_as_it_was() -> None:
    """Whoever uses the library in her own program keeps her settings."""
    spec, sides = NETWORKS["2-D, several channels and classes"]
    flags = torch.backends.cudnn
    before = flags.allow_tf32, flags.deterministic, flags.benchmark, torch.get_float32_matmul_precision()
    logits(model_of(spec), noise(spec.channels, sides), "cuda")
    after = flags.allow_tf32, flags.deterministic, flags.benchmark, torch.get_float32_matmul_precision()
    assert after == before


def classed_alike(field: NDArray[np.uint16], precision: str) -> float:
    """Return the share of pixels of a field of nuclei that the GPU classes as float32 on the CPU does."""
    model = trained(field)
    tile = mirrored_tile(model, field)
    exact = logits(model, tile, "cpu").argmax(axis=0)
    return float(np.mean(logits(model, tile, "cuda", precision).argmax(axis=0) == exact))


@pytest.mark.usefixtures("_native_bfloat16")
def test_bfloat16_classes_like_float32_on_the_cpu(field: NDArray[np.uint16]) -> None:
    assert classed_alike(field, "bfloat16") >= AGREEMENT


def test_float16_classes_like_float32_on_the_cpu(field: NDArray[np.uint16]) -> None:
    assert classed_alike(field, "float16") >= AGREEMENT


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("name", ["2-D", "3-D"])
def test_the_same_tile_gives_the_same_bytes(name: str, precision: str) -> None:
    """A resumed run, and one that is verified, rely on it; up-convolutions have kernels that add in any order."""
    spec, sides = NETWORKS[name]
    model, tile = model_of(spec), noise(spec.channels, sides)
    first = logits(model, tile, "cuda", precision)
    again = np.stack([logits(model, tile, "cuda", precision) for _ in range(5)])
    np.testing.assert_array_equal(again, np.broadcast_to(first, again.shape))


def test_the_gpu_is_chosen_by_itself() -> None:
    assert choose_device("auto") == "cuda"


@pytest.mark.usefixtures("_native_bfloat16")
def test_bfloat16_is_chosen_where_the_gpu_multiplies_it() -> None:
    assert choose_precision("auto", "cuda") == "bfloat16"
