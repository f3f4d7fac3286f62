"""One training on several processes, as `torchrun` starts them: every process a tile, one gradient for all.

    torchrun --nproc-per-node 4 -m unet_dask_cli train IMAGES TARGETS -o MODEL

All processes start from the same weights and add up the same gradients, so their networks stay the same bit for
bit; the first of them validates, writes and talks. A batch of one tile per process is what several GPUs can do
without leaving the paper's "large input tiles over a large batch size" (section 3).
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import distributed

from unet_dask.choices import Device
from unet_dask.errors import OptionError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor
    from torch.nn import Module


@dataclass(frozen=True, slots=True)
class Team:
    """The processes of one training.

    Attributes
    ----------
    rank : of this process, from 0
    size : how many there are
    """

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process validates, writes and reports."""
        return self.rank == 0

    def draw(self, iteration: int) -> int:
        """Return a number for the randomness of an iteration, which no other process or iteration has.

        Examples
        --------
        >>> Team().draw(7), Team(1, 4).draw(7)
        (7, 29)
        """
        return iteration * self.size + self.rank

    def average_gradients(self, network: Module) -> None:
        """Replace the gradients by their mean over the processes, in place."""
        if self.size > 1:
            self._average(
                [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
            )

    def average_statistics(self, network: Module) -> None:
        """Replace the statistics of batch normalisation by their mean over the processes, in place."""
        if self.size > 1:
            self._average([buffer for buffer in network.buffers() if buffer.is_floating_point()])

    def any(self, wish: bool, *, device: torch.device) -> bool:
        """Return whether any process has a wish, such as to stop."""
        if self.size == 1:
            return wish
        votes = torch.tensor(int(wish), device=device)
        distributed.all_reduce(votes)
        return bool(votes.item())

    def _average(self, tensors: list[Tensor]) -> None:
        if not tensors:
            return
        # One message for all of them: latency, not bandwidth, is what small networks pay for.
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        distributed.all_reduce(flat)
        flat /= self.size
        parts = torch.split(flat, [tensor.numel() for tensor in tensors])
        for tensor, mean in zip(tensors, parts, strict=True):
            tensor.copy_(mean.view_as(tensor))


@contextmanager
def team(device: torch.device) -> Iterator[Team]:
    """Join the processes that torchrun started; without it, be alone.

    Raises
    ------
    OptionError
        If the processes cannot find each other.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Team()
        return
    try:
        distributed.init_process_group("nccl" if device.type == Device.CUDA else "gloo")
    except (RuntimeError, ValueError) as error:
        raise OptionError(
            f"{size} processes were asked for, but they cannot find each other ({error}). Start them with torchrun."
        ) from error
    try:
        yield Team(distributed.get_rank(), size)
    finally:
        distributed.destroy_process_group()


def own_gpu(device: torch.device) -> torch.device:
    """Return the GPU of this process, where several share a machine."""
    local = os.environ.get("LOCAL_RANK")
    unnumbered = device == torch.device("cuda")
    return torch.device("cuda", int(local)) if unnumbered and local is not None else device
