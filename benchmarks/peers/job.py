"""What every peer is given: image, sink, network and the sizes of its blocks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import zarr
from torch import nn

from unet_dask import load_model

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from unet_dask.model.file import Model

#: Side of a peer's blocks, by dimensions: the size at which torch-em was fastest.
BLOCK = {2: 1024, 3: 128}
#: Chunks of a sink, those of `segment`; smaller where a block is, since two blocks may be written at a time.
CHUNKS = {2: (512, 512), 3: (128, 128, 128)}


@dataclass(frozen=True)
class Job:
    """One image to segment.

    Attributes
    ----------
    image : Zarr array of grey values
    result : Zarr array of classes, empty
    loaded : the model, with torch's own convolutions
    side : of a block's core, a multiple of the pooling lattice's period; every axis has at least two blocks
    halo : context that the network consumes per side
    context : context that a peer must add per side, a multiple of the lattice's period, at least the halo
    """

    image: zarr.Array[Any]
    result: zarr.Array[Any]
    loaded: Model
    side: int
    halo: int
    context: int

    @property
    def dims(self) -> int:
        return self.image.ndim

    @property
    def inner(self) -> tuple[slice, ...]:
        """The image within an image that was extended by the context."""
        return tuple(slice(self.context, self.context + size) for size in self.image.shape)

    def normalise(self, block: NDArray[np.generic]) -> NDArray[np.float32]:
        """Return network input for grey values without a channel axis."""
        return self.loaded.normalise(block[None])[0]

    def filled(self, step: int) -> list[tuple[int, int]]:
        """Return what to mirror at each end of each axis: the context, and what fills the last step."""
        return [(self.context, self.context + -size % step) for size in self.image.shape]


def open_job(source: str, sink: str, model: str) -> Job:
    """Open the image, load the model and create the sink."""
    loaded = load_model(model)
    plain(loaded.network)
    spec = loaded.header.network
    image = zarr.open_array(source, mode="r")
    side = BLOCK[spec.dims]
    while side >= min(image.shape) and side > 2 * spec.stride[0]:
        side //= 2
    chunks = tuple(min(chunk, side) for chunk in CHUNKS[spec.dims])
    result = zarr.create_array(
        sink, shape=image.shape, chunks=chunks, dtype="uint8", overwrite=True,
        compressors=zarr.codecs.ZstdCodec(level=1, checksum=True),
    )  # fmt: skip
    return Job(image, result, loaded, side, spec.halo[0], spec.halo[0] + spec.slack[0])


class SameSize(nn.Module):
    """The valid network for tools that want scores as large as the block: those of the block's context are zero.

    The block begins on the pooling lattice and has the context on every side.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, block: torch.Tensor) -> torch.Tensor:
        spec = self.network.spec
        context, slack = spec.halo[0] + spec.slack[0], spec.slack[0]
        made = self.network(block[(..., *(slice(slack, None),) * spec.dims)])
        cores = [size - 2 * context for size in block.shape[2:]]
        whole = block.new_zeros((*made.shape[:2], *block.shape[2:]))
        inner = tuple(slice(context, context + core) for core in cores)
        whole[(..., *inner)] = made[(..., *(slice(core) for core in cores))]
        return whole


def same_size(model: str) -> SameSize:
    """Return the network of a model file for tools that want scores as large as the block."""
    return SameSize(plain(load_model(model).network))


def plain(network: nn.Module) -> nn.Module:
    """Return the network with torch's own convolutions, in place."""
    for module in network.modules():
        if isinstance(module, nn.Conv3d):
            module.__class__ = nn.Conv3d
    return network


def zero_padded(network: nn.Module) -> nn.Module:
    """Return the network with padded convolutions, in place: the same weights, scores as large as the image."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d) and module.kernel_size[0] == 3:
            module.padding = (1,) * len(module.kernel_size)
    return network


def classes(scores: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Return the class of each voxel for scores of (classes, *spatial)."""
    return scores.argmax(axis=0).astype(np.uint8)
