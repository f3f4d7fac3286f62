"""A network on a GPU: a tile goes there, and no more than what is kept of it comes back.

A GPU multiplies hundreds of times as fast as a core, and what was nothing beside the network is a good part of the
time there. So a tile is copied from pinned memory, which the GPU reads by itself, and becomes numbers of 16 bits on
the GPU. Soft-max and arg-max are made there too: of a run that keeps classes one byte a voxel comes back, not four
for each class.

float32 is float32: by itself cuDNN multiplies it by 10 bits of mantissa. And only kernels run that add in the same
order every time, since a resumed run must give the same bytes. Both are settings of the whole process, which are given
back after each tile.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from unet_dask.choices import Device
from unet_dask.engine.device import torch_dtype
from unet_dask.engine.finite import require_finite_logits
from unet_dask.model.folding import for_inference
from unet_dask.model.network import layout

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from unet_dask.model.file import Model


class GpuBackend:
    """A network in the memory of a GPU, with what it takes to reach it.

    What a method returns is the caller's, to be changed too, until a method is called again.

    Parameters
    ----------
    model : to run; it is not changed
    precision : "float32", "bfloat16" or "float16"
    device : of torch
    """

    def __init__(self, model: Model, *, precision: str, device: str = "cuda") -> None:
        self._layout, self._head = layout(model.header.network.dims), model.header.network.head
        self._dtype = torch_dtype(precision)
        self._device = torch.device(device)
        self._network = for_inference(model.ours).to(device=self._device, dtype=self._dtype)
        self._sent, self._returned = Room(self._device), Room(self._device)

    def logits(self, tile: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return float32 logits of (classes, *core) for a normalised tile, finite or not."""
        made: NDArray[np.float32] = self._made(tile, lambda logits: logits).numpy()
        return made

    def probabilities(self, tile: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return float32 probabilities of (classes, *core) for a normalised tile.

        Raises
        ------
        DataError
            If the logits are not finite.
        """
        made: NDArray[np.float32] = self._made(tile, _ACTIVATIONS[self._head]).numpy()
        return made

    def classes(self, tile: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Return the most probable class of each voxel, (*core), for a normalised tile; the first of equal ones.

        Raises
        ------
        DataError
            If the logits are not finite.
        """
        made: NDArray[np.uint8] = self._made(tile, classes_of).numpy()
        return made

    def _made(self, tile: NDArray[np.float32], keep: Callable[[Tensor], Tensor]) -> Tensor:
        """Return what is kept of the logits of a tile on the host, once it is there."""
        with torch.inference_mode():
            made = keep(self._logits(tile))
            return self._returned.of(made.shape, made.dtype).copy_(made)

    def _logits(self, tile: NDArray[np.float32]) -> Tensor:
        """Return float32 logits of (classes, *core) on the GPU, class by class as numpy has them."""
        sent = self._sent.of(tile.shape, torch.float32).copy_(torch.from_numpy(tile))
        image = sent[None].to(self._device, non_blocking=True)
        image = image.to(self._dtype, memory_format=self._layout)
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
            output: Tensor = self._network(image)[0]
        return torch.empty(output.shape, dtype=torch.float32, device=self._device).copy_(output)


class Room:
    """Memory of the host that tiles of a GPU go through, kept from one to the next.

    Pinning memory takes longer than copying a tile. Whatever asked before must be done with it.

    Parameters
    ----------
    device : that reads or writes it
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._bytes = torch.empty(0, dtype=torch.uint8)

    def of(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Return room for an array, with whatever was there before."""
        size = math.prod(shape) * dtype.itemsize
        if len(self._bytes) < size:
            self._bytes = self._bytes.new_empty(0)  # first: both might not fit
            self._bytes = _reachable(size, self._device)
        return self._bytes[:size].view(dtype).view(shape)


def _reachable(size: int, device: torch.device) -> Tensor:
    """Return so many bytes of the host, which a GPU can read and write by itself."""
    return torch.empty(size, dtype=torch.uint8, pin_memory=device.type == Device.CUDA)


def probabilities_of(logits: Tensor) -> Tensor:
    """Return the soft-max over the first axis, in the place of the logits: torch's own takes as much memory again.

    Raises
    ------
    DataError
        If the logits are not finite.
    """
    # What is not a number is smallest and largest at once. Reading them waits for the GPU, once a tile.
    require_finite_logits(finite=bool(torch.stack(logits.aminmax()).isfinite().all()))
    logits -= logits.amax(dim=0)
    logits.exp_()
    logits /= logits.sum(dim=0)
    return logits


#: What makes probabilities of logits, by the head of the network.
_ACTIVATIONS = {"softmax": probabilities_of}


def classes_of(logits: Tensor) -> Tensor:
    """Return the classes that the host would choose by these probabilities, as uint8, in the place of the logits.

    Raises
    ------
    DataError
        If the logits are not finite.
    """
    return probabilities_of(logits).argmax(dim=0).to(torch.uint8)


def give_back() -> None:
    """Give back what torch keeps of the GPU's memory beside what is in use; nothing where there is no GPU."""
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call] # torch has no type for it
        torch.cuda.empty_cache()
