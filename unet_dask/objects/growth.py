"""Growth of objects from their cores into the rest of the cells, a voxel at a time.

Where several reach a voxel in the same step, the one of the smallest number has it. What a voxel becomes depends on as
many voxels around it as there are steps, and on nothing else.

Until objects have their final shape, voxels that one may grow into have a number of their own, :func:`room`, beside
those of the cores.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from unet_dask.components import adjoining

if TYPE_CHECKING:
    from numpy.typing import NDArray


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
    now = numbers.copy()
    for _ in range(steps):
        known = np.where(now == 0, free, now).astype(now.dtype)
        nearest = known.copy()
        for low, high in adjoining(now.ndim, dims):
            np.minimum(nearest[low], known[high], out=nearest[low])
            np.minimum(nearest[high], known[low], out=nearest[high])
        taken = (now == free) & (nearest < free)
        if not taken.any():
            break
        now[taken] = nearest[taken]
    now[now == free] = 0
    return now
