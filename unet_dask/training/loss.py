"""The energy of the paper: pixel-wise soft-max and weighted cross entropy (section 3, eq. 1, R2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch.nn import functional

if TYPE_CHECKING:
    from torch import Tensor


def weighted_cross_entropy(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Return the weighted mean of ``-log softmax`` at the true class.

    The paper sums over pixels; dividing by the sum of weights makes the learning rate independent of
    the size of the tile. A pixel of weight 0 contributes nothing, neither value nor gradient.

    Parameters
    ----------
    logits : (b, classes, *spatial)
    target : (b, *spatial) int64 class of every pixel
    weight : (b, *spatial) float32, not negative

    Returns
    -------
    scalar; 0 if no pixel has a weight

    Examples
    --------
    >>> import torch
    >>> logits = torch.zeros(1, 2, 1, 2)
    >>> target = torch.tensor([[[0, 1]]])
    >>> weighted_cross_entropy(logits, target, torch.ones(1, 1, 2)).item()  # log 2
    0.6931471824645996
    """
    energy = functional.cross_entropy(logits, target, reduction="none")
    return (energy * weight).sum() / weight.sum().clamp_min(1e-12)
