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


def dice_loss(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Return how little the soft-max of every class but background overlaps its pixels: 1 less the mean Dice index.

    Sums go over a whole patch, so that a class that is rare there counts as much as one that is not; classes that the
    patch has not are left out. Pixels of weight 0 do not count, all others alike.

    Parameters
    ----------
    logits : (b, classes, *spatial)
    target : (b, *spatial) int64 class of every pixel
    weight : (b, *spatial) float32, not negative

    Returns
    -------
    scalar from 0 to 1; 0 if the patch has background alone

    References
    ----------
    Milletari, Navab, Ahmadi: "V-Net", 3DV 2016, section 3; with squares in the denominator as there.

    Examples
    --------
    >>> import torch
    >>> target = torch.tensor([[[0, 1]]])
    >>> sure = torch.tensor([[[[9.0, -9.0]], [[-9.0, 9.0]]]])
    >>> right, wrong = (dice_loss(logits, target, torch.ones(1, 1, 2)) for logits in (sure, -sure))
    >>> round(right.item(), 4), round(wrong.item(), 4)
    (0.0, 1.0)
    """
    known = (weight > 0).unsqueeze(1)
    probability = logits.softmax(dim=1)[:, 1:] * known
    true = functional.one_hot(target, logits.shape[1]).movedim(-1, 1)[:, 1:] * known
    over = (0, *range(2, logits.dim()))
    shared, both = (probability * true).sum(over), (probability.square() + true).sum(over)
    there = true.sum(over) > 0
    if not bool(there.any()):
        return logits.sum() * 0
    return 1 - (2 * shared[there] / both[there].clamp_min(1e-6)).mean()
