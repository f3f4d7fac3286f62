"""Growth of objects from their cores into the rest of the cells, a voxel at a time.

Where several reach a voxel in the same step, the one of the smallest number has it. What a voxel becomes depends on as
many voxels around it as there are steps, and on nothing else.

Until objects have their final shape, voxels that one may grow into have a number of their own, :func:`room`, beside
those of the cores.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Voxels that grow together; it bounds memory, not the result.
_PIECE = 1 << 18


def room(dtype: np.dtype[np.unsignedinteger] | str) -> int:
    """Return the number of a voxel that an object may grow into: one below the sentinel.

    Examples
    --------
    >>> room("uint16")
    65534
    """
    return int(np.iinfo(dtype).max) - 1


def grown(numbers: NDArray[np.unsignedinteger], steps: int, dims: int) -> NDArray[np.unsignedinteger]:
    """Return numbers after some steps of growth; room that is left is background.

    Parameters
    ----------
    numbers : of every voxel: 0 for background, :func:`room` where an object may grow
    steps : number of steps, along the last `dims` axes
    dims : axes along which objects grow

    Examples
    --------
    >>> free = room("u2")
    >>> row = np.array([[free, 7, free, free, 3, free, free, 0, free]], "u2")
    >>> grown(row, 1, 2).tolist(), grown(row, 2, 2).tolist()
    ([[7, 7, 7, 3, 3, 3, 0, 0, 0]], [[7, 7, 7, 3, 3, 3, 3, 0, 0]])
    """
    free = room(numbers.dtype)
    around = [(0, 0)] * (numbers.ndim - dims) + [(1, 1)] * dims
    now = np.pad(np.where(numbers == 0, free, numbers), around, constant_values=free).astype(numbers.dtype)
    flat = now.reshape(-1)
    strides = [step // now.itemsize for step in now.strides[-dims:]]
    left = np.flatnonzero(np.pad(numbers == free, around))
    for _ in range(steps):
        nearest = np.concatenate([flat[:0], *(_nearest(flat, part, strides) for part in _parts(left))])
        taken = nearest < free
        if not taken.any():
            break
        flat[left[taken]] = nearest[taken]
        left = left[~taken]
    now[now == free] = 0
    return now[tuple(slice(low, side - high) for side, (low, high) in zip(now.shape, around, strict=True))]


def _parts(places: NDArray[np.intp]) -> list[NDArray[np.intp]]:
    """Return places in parts that are looked at together; it bounds memory, not the result."""
    return [places[start : start + _PIECE] for start in range(0, len(places), _PIECE)]


def _nearest(
    flat: NDArray[np.unsignedinteger], places: NDArray[np.intp], strides: list[int]
) -> NDArray[np.unsignedinteger]:
    """Return the smallest number beside each place."""
    nearest = flat[places + strides[0]]
    for step in (-strides[0], *(sign * stride for stride in strides[1:] for sign in (1, -1))):
        np.minimum(nearest, flat[places + step], out=nearest)
    return nearest
