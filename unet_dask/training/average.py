"""The moving average of the weights, which forgets the beginning sooner than it forgets the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from unet_dask.model.network import Network

    Tensors = tuple[Tensor, ...] | list[Tensor]


def decay_at(count: int, decay: float) -> float:
    """Return the share that an average keeps of itself.

    With a decay of 0.99 the weights of the first iteration would still be a twentieth of the average after 300. So as
    long as little was seen, more is forgotten: ``min(decay, (1 + n) / (10 + n))``, as `ExponentialMovingAverage` of
    TensorFlow does it with a number of updates.

    Parameters
    ----------
    count : iterations that are in the average
    decay : from where it stays the same, in [0, 1)

    Examples
    --------
    >>> [round(decay_at(count, 0.99), 3) for count in (1, 10, 100, 1000)]
    [0.182, 0.55, 0.918, 0.99]
    """
    return min(decay, (1 + count) / (10 + count))


def averaged(network: Network, decay: float) -> AveragedModel:
    """Return a moving average of the weights and statistics of a network."""

    def moved(average: Tensors, now: Tensors, count: Tensor | int) -> None:
        move: Callable[..., None] = get_ema_multi_avg_fn(decay_at(int(count), decay))  # type: ignore[no-untyped-call]
        move(average, now, count)

    return AveragedModel(network, multi_avg_fn=moved, use_buffers=True)
