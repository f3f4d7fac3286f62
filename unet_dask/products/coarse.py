"""What a coarser voxel is of the voxels that it covers: their mean, most of them, or the first.

Each function takes a block and the voxels per coarser voxel along every axis, and returns an array of
ceil(size / step) voxels of the same type; a ragged end is repeated.
"""

from __future__ import annotations

from itertools import combinations, product
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


def first(block: NDArray[np.generic], step: Sequence[int]) -> NDArray[np.generic]:
    """Return the first voxel of each: of numbers of objects, which have no mean and are too many to vote."""
    return block[tuple(slice(None, None, by) for by in step)]


def averaged(block: NDArray[np.generic], step: Sequence[int]) -> NDArray[np.generic]:
    """Return the mean, of whole numbers rounded."""
    block = _padded(block, step)
    split = [part for size, by in zip(block.shape, step, strict=True) for part in (size // by, by)]
    within = tuple(range(1, 2 * block.ndim, 2))
    mean: NDArray[np.float32] = block.reshape(split).mean(axis=within, dtype=np.float32)
    return (mean if block.dtype.kind == "f" else np.rint(mean)).astype(block.dtype)


def voted(block: NDArray[np.generic], step: Sequence[int]) -> NDArray[np.generic]:
    """Return the most frequent value, of equally frequent ones the lowest.

    Examples
    --------
    >>> voted(np.array([[1, 1, 2], [0, 1, 2]]), (2, 2))
    array([[1, 2]])
    """
    block = _padded(block, step)
    if block.size and (block == block.flat[0]).all():  # background, most of a slide
        return np.full([size // by for size, by in zip(block.shape, step, strict=True)], block.flat[0])
    voxels = [
        np.ascontiguousarray(block[tuple(slice(at, None, by) for at, by in zip(offset, step, strict=True))])
        for offset in product(*map(range, step))
    ]
    return _most_frequent(voxels)


def _padded(block: NDArray[np.generic], step: Sequence[int]) -> NDArray[np.generic]:
    """Return a block whose ragged ends are repeated."""
    pad = [(0, -size % by) for size, by in zip(block.shape, step, strict=True)]
    return np.pad(block, pad, mode="edge") if any(after for _, after in pad) else block


def _most_frequent(candidates: Sequence[NDArray[np.generic]]) -> NDArray[np.generic]:
    """Return the most frequent of some arrays' values, voxel by voxel; of equally frequent ones the lowest.

    Each candidate counts who agrees with it, whatever the values are: two or two hundred classes cost the same.
    """
    votes = [np.zeros(candidate.shape, np.uint8) for candidate in candidates]
    for one, other in combinations(range(len(candidates)), 2):
        same = candidates[one] == candidates[other]
        votes[one] += same
        votes[other] += same
    best: Any = candidates[0]  # numbers, which have an order
    most = votes[0]
    for candidate, count in zip(candidates[1:], votes[1:], strict=True):
        best = np.where((count > most) | ((count == most) & (candidate < best)), candidate, best)
        most = np.maximum(most, count)
    chosen: NDArray[np.generic] = best
    return chosen
