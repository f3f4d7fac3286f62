"""Averaging over symmetries: each is undone exactly, and the mean does not depend on the tiles."""

from __future__ import annotations

import numpy as np
import pytest

from unet_dask.engine.augment import symmetries
from unet_dask.engine.backend import TorchBackend
from unet_dask.engine.infer import Pass, infer, softmax
from unet_dask.errors import OptionError
from unet_dask.model.file import new_model
from unet_dask.model.header import NetworkSpec, Normalisation
from unet_dask.products import product_of
from unet_dask.tiling.mirror import extend
from unet_dask.tiling.region import AxisGrid
from unet_dask.tiling.valid import Context

MODEL = new_model(
    NetworkSpec(width=8, depth=3), seed=1, normalisation=Normalisation("constant", (128.0,), (64.0,))
)
BACKEND = TorchBackend(MODEL, device="cpu", precision="float32")
IMAGE = np.random.default_rng(0).integers(0, 256, (96, 120)).astype(np.uint8)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", ["none", "flips", "rotations"])
def test_every_symmetry_is_undone(name: str, dims: int) -> None:
    array = np.random.default_rng(0).normal(size=(2, 3, 4, 5)[: dims + 1]).astype(np.float32)
    for symmetry in symmetries(name, dims):
        assert np.array_equal(symmetry.turn_back(symmetry.turn(array)), array)


@pytest.mark.parametrize(
    ("name", "dims", "count"), [("flips", 2, 4), ("rotations", 2, 8), ("rotations", 3, 16)]
)
def test_symmetries_are_all_different(name: str, dims: int, count: int) -> None:
    array = np.arange(4**dims, dtype=np.float32).reshape(1, *(4,) * dims)
    assert len({symmetry.turn(array).tobytes() for symmetry in symmetries(name, dims)}) == count


def averaged(core: tuple[int, int]) -> np.ndarray[tuple[int, ...], np.dtype[np.generic]]:
    """Return the averaged probabilities of the image in one region, with tiles of this core."""
    spec = MODEL.header.network
    context = Context(spec.halo[0], spec.stride[0], spec.slack[0])
    grids = tuple(
        AxisGrid(size, 0, size, size, side, context) for size, side in zip(IMAGE.shape, core, strict=True)
    )
    window = extend(IMAGE, origin=(0, 0), read=[grid.read(0) for grid in grids], shape=IMAGE.shape)
    (found,) = infer(
        window[None],
        grids=grids,
        write=tuple(grid.write(0) for grid in grids),
        through=Pass(BACKEND, MODEL.header.normalisation, spec, "rotations"),
        outputs=(product_of("probabilities", "float32"),),
    )
    return found


@pytest.mark.parametrize("core", [(32, 40), (96, 24), (16, 128)], ids=str)
def test_the_mean_does_not_depend_on_the_tiles(core: tuple[int, int]) -> None:
    assert np.abs(averaged(core) - averaged((96, 120))).max() <= 1e-5  # type: ignore[operator] # floats


def test_the_mean_is_that_of_the_turned_whole() -> None:
    spec = MODEL.header.network
    pad = [(spec.halo[0], spec.halo[0] + spec.slack[0])] * 2
    padded = MODEL.normalise(np.pad(IMAGE, pad, mode="reflect")[None])
    passes = [
        each.turn_back(softmax(BACKEND.logits(each.turn(padded)))) for each in symmetries("rotations", 2)
    ]
    expected = np.mean(passes, axis=0)[:, : IMAGE.shape[0], : IMAGE.shape[1]]
    assert np.abs(averaged((32, 40)) - expected).max() <= 1e-5


def test_an_unknown_averaging_is_refused() -> None:
    with pytest.raises(OptionError, match="none, flips or rotations"):
        symmetries("all", 2)
