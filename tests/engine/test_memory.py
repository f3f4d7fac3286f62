"""What becomes of the logits stays within the memory that is planned for it, however many classes there are."""

from __future__ import annotations

import tracemalloc
from typing import TYPE_CHECKING

import numpy as np
import pytest

from unet_dask.engine.infer import Pass, infer
from unet_dask.model.cost import pass_bytes
from unet_dask.model.header import NetworkSpec, Normalisation
from unet_dask.products import product_of
from unet_dask.tiling.region import AxisGrid
from unet_dask.tiling.valid import Context

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIDE = 256


class Logits:
    """A backend that has no feature maps: only its output takes memory, channels last, as torch leaves it."""

    def __init__(self, spec: NetworkSpec) -> None:
        self.spec = spec

    def logits(self, tile: NDArray[np.float32]) -> NDArray[np.float32]:
        core = [side - 2 * halo for side, halo in zip(tile.shape[1:], self.spec.halo, strict=True)]
        made = np.zeros((*core, self.spec.classes), np.float32)
        made[..., 0] = 1
        return np.moveaxis(made, -1, 0)


@pytest.mark.parametrize("tta", ["none", "rotations"])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("classes", [2, 10, 100])
def test_probabilities_fit_the_memory_that_is_planned(classes: int, dtype: str, tta: str) -> None:
    spec = NetworkSpec(width=1, depth=1, classes=classes)
    context = Context(spec.halo[0], spec.stride[0], spec.slack[0])
    grid = AxisGrid(SIDE - 3, 0, SIDE - 3, SIDE, SIDE, context)
    window = np.zeros((1, *(grid.read(0)[1] - grid.read(0)[0],) * 2), np.uint8)
    outputs = (product_of("classes", "uint8"), product_of("probabilities", dtype))
    through = Pass(Logits(spec), Normalisation("constant", (0.0,), (1.0,)), spec, tta)
    tracemalloc.start()
    try:
        made = infer(window, grids=(grid, grid), write=(grid.write(0),) * 2, through=through, outputs=outputs)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    turned = 2 * 4 * grid.tile**2
    planned = pass_bytes(spec, (grid.tile,) * 2, item=4, averaged=tta != "none")
    assert peak <= planned + turned + sum(each.nbytes for each in made) + (1 << 16)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_background_is_written_within_the_memory_of_a_mask(dtype: str) -> None:
    """Made of the places of voxels, it took 24 bytes for each of them, three times what is planned for a mask."""
    values = np.full((2, 3, 300, 400), 7, dtype)
    outside = np.random.default_rng(0).random((2, 300, 400)) < 0.9
    output = product_of("probabilities", dtype)
    tracemalloc.start()
    try:
        output.clear(values, outside)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * outside.size
    assert (values[:, 1:][np.stack([outside] * 2, 1)] == 0).all()
    assert (values[:, 0][outside] == output.background(3)[0]).all()
    assert (np.moveaxis(values, 1, -1)[~outside] == 7).all()


@pytest.mark.parametrize("channels", [2, 16, 64])
def test_the_image_is_in_the_plan_all_the_while(channels: int) -> None:
    """It is held by whoever normalised it and, as the kernels want it, by the network."""
    sides = (604, 604)
    few, many = (NetworkSpec(width=8, channels=each) for each in (1, channels))
    held = 2 * 4 * channels * sides[0] * sides[1]
    assert pass_bytes(many, sides, item=4) >= pass_bytes(few, sides, item=4) + held
