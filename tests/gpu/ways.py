"""Ways to run a network, and how far they may be apart."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import torch

from unet_dask.engine.backend import load_backend
from unet_dask.engine.infer import Pass, infer
from unet_dask.model.file import load_model, new_model
from unet_dask.model.header import Normalisation
from unet_dask.products import product_of
from unet_dask.tiling.mirror import extend
from unet_dask.tiling.region import AxisGrid
from unet_dask.tiling.valid import Context, aligned

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from unet_dask.model.file import Model
    from unet_dask.model.header import NetworkSpec

#: Largest difference of logits in float32, as a share of the largest, and of probabilities. Sums in another order
#: differ by 1e-6; the transforms of fast convolutions cost another digit. Multiplied by 10 bits of mantissa, as cuDNN
#: does unless it is told not to, logits are 8e-4 to 2.5e-3 apart (emulated on a CPU), and a seam is beyond 1e-3.
BOUND = 1e-4
#: Share of voxels of a trained network that 16 bits must class like float32: what a run asks for.
AGREEMENT = 0.999


def model_of(spec: NetworkSpec) -> Model:
    """Return a network whose biases, and statistics of batch normalisation, matter too."""
    channels = spec.channels
    model = new_model(
        spec, seed=1, normalisation=Normalisation("constant", (128.0,) * channels, (64.0,) * channels)
    )
    generator = torch.Generator().manual_seed(1)
    for name, value in model.network.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(value, std=0.1, generator=generator)
    for name, buffer in model.network.named_buffers():
        if name.endswith("running_var"):
            buffer.fill_(1.7)
    return model


def trained(image: NDArray[np.uint16]) -> Model:
    """Return the bundled network, with the statistics of an image as its constants."""
    return load_model("nuclei").with_statistics(mean=[float(image.mean())], std=[float(image.std())])


def noise(channels: int, sides: tuple[int, ...]) -> NDArray[np.float32]:
    """Return a normalised tile of (c, *space)."""
    return np.random.default_rng(0).standard_normal((channels, *sides), np.float32)


def logits(
    model: Model, tile: NDArray[np.float32], device: str, precision: str = "float32"
) -> NDArray[np.float32]:
    """Return what the engine makes of a normalised tile."""
    return load_backend("torch", model, device=device, precision=precision).logits(tile)


def mirrored_tile(model: Model, image: NDArray[np.generic]) -> NDArray[np.float32]:
    """Return the tile whose core is the whole of an image of (*space), normalised."""
    spec = model.header.network
    read = [
        (-halo, aligned(size, stride) + slack + halo)
        for size, halo, stride, slack in zip(image.shape, spec.halo, spec.stride, spec.slack, strict=True)
    ]
    origin = (0,) * image.ndim
    return model.normalise(extend(image, origin=origin, read=read, shape=image.shape)[None])


def tiled(
    model: Model,
    image: NDArray[np.generic],
    *,
    region: tuple[int, ...],
    core: tuple[int, ...],
    device: str,
    precision: str = "float32",
) -> NDArray[np.float32]:
    """Return probabilities of (classes, *space), computed region by region, tile by tile."""
    spec = model.header.network
    backend = load_backend("torch", model, device=device, precision=precision)
    grids = tuple(
        AxisGrid(size, 0, size, step, side, Context(*context))
        for size, step, side, *context in zip(
            image.shape, region, core, spec.halo, spec.stride, spec.slack, strict=True
        )
    )
    result = np.empty((spec.classes, *image.shape), np.float32)
    for index in product(*(range(grid.count) for grid in grids)):
        write = tuple(grid.write(at) for grid, at in zip(grids, index, strict=True))
        read = [grid.read(at) for grid, at in zip(grids, index, strict=True)]
        (made,) = infer(
            extend(image, origin=(0,) * image.ndim, read=read, shape=image.shape)[None],
            grids=grids,
            write=write,
            through=Pass(backend, model.header.normalisation, spec),
            outputs=(product_of("probabilities", "float32"),),
        )
        result[(slice(None), *(slice(*each) for each in write))] = made
    return result
