"""What becomes of the logits stays within the memory that is planned for it, however many classes there are."""

from __future__ import annotations

import tracemalloc
from typing import TYPE_CHECKING

import numpy as np
import pytest

from unet_dask.engine.infer import OutputSpec, Pass, infer
from unet_dask.model.cost import pass_bytes
from unet_dask.model.header import NetworkSpec, Normalisation
from unet_dask.tiling.region import AxisGrid, Context

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
    outputs = (OutputSpec("classes", "uint8"), OutputSpec("probabilities", dtype))
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
