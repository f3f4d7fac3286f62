"""Tiled equals whole on the GPU: what comes out depends neither on regions nor on tiles, nor on how large they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from tests.gpu.ways import AGREEMENT, BOUND, logits, model_of, noise, tiled, trained
from tests.oracle import disagreement, whole_image
from unet_dask.model.header import NetworkSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

pytestmark = pytest.mark.gpu

#: network, shape of the image, regions, cores of tiles
CASES = {
    "2-D, whole": (NetworkSpec(width=16, depth=3, classes=3), (200, 264), (200, 264), (200, 264)),
    "2-D, regions": (NetworkSpec(width=16, depth=3, classes=3), (200, 264), (64, 128), (64, 128)),
    "2-D, tiles": (NetworkSpec(width=16, depth=3, classes=3), (200, 264), (96, 264), (32, 56)),
    "2-D, primes": (NetworkSpec(width=16, depth=4), (257, 331), (112, 128), (112, 64)),
    "3-D, whole": (
        NetworkSpec(dims=3, width=8, depth=2, classes=3),
        (40, 52, 64),
        (40, 52, 64),
        (40, 52, 64),
    ),
    "3-D, tiles": (
        NetworkSpec(dims=3, width=8, depth=2, classes=3),
        (40, 52, 64),
        (40, 28, 64),
        (20, 28, 24),
    ),
    "3-D, primes": (NetworkSpec(dims=3, width=8, depth=3), (13, 61, 103), (16, 64, 48), (16, 32, 24)),
}


@pytest.mark.parametrize(("spec", "shape", "region", "core"), CASES.values(), ids=CASES.keys())
def test_tiled_on_the_gpu_equals_whole_on_the_cpu(
    spec: NetworkSpec, shape: tuple[int, ...], region: tuple[int, ...], core: tuple[int, ...]
) -> None:
    model = model_of(spec)
    image = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    made = tiled(model, image, region=region, core=core, device="cuda")
    assert disagreement(made, whole_image(model, image[None])) <= BOUND


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
@pytest.mark.parametrize("core", [(512, 512), (256, 384), (128, 1024)], ids=str)
def test_classes_in_16_bits_do_not_depend_on_the_tiles(
    field: NDArray[np.uint16], core: tuple[int, int], precision: str
) -> None:
    model = trained(field)
    whole = tiled(model, field, region=field.shape, core=field.shape, device="cuda", precision=precision)
    made = tiled(model, field, region=(512, 1024), core=core, device="cuda", precision=precision)
    assert np.mean(made.argmax(axis=0) == whole.argmax(axis=0)) >= AGREEMENT


def test_feature_maps_of_more_than_2_to_the_31_numbers_are_right() -> None:
    """Beyond that, 32 bits do not count a feature map's numbers. So no plan has such tiles; if this passes, it may."""
    spec, side, corner = NetworkSpec(width=64, depth=1), 4128, 316
    assert 2 * spec.width * (side - 12) ** 2 > 1 << 31  # of the two maps that the up-convolution is joined to
    if torch.cuda.mem_get_info()[0] < 24 << 30:
        pytest.skip("the GPU has less than 24 GiB free")
    model, tile = model_of(spec), noise(1, (side, side))
    whole = logits(model, tile, "cuda", "float16")[:, -(corner - 16) :, -(corner - 16) :]
    alone = logits(model, np.ascontiguousarray(tile[:, -corner:, -corner:]), "cuda", "float16")
    np.testing.assert_allclose(whole, alone, atol=0.01 * float(np.abs(alone).max()), rtol=0)
