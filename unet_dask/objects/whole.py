"""Objects of a whole image in memory: what a run makes of it, whatever regions it cuts it into."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from unet_dask.objects.pieces import numbered
from unet_dask.objects.region import Window, reshaped

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from unet_dask.objects.rule import ObjectRule


def objects_of(classes: NDArray[np.integer], rule: ObjectRule) -> NDArray[np.unsignedinteger]:
    """Return the number of every voxel's object, 0 for background.

    Parameters
    ----------
    classes : (*spatial), 0 is background
    rule : how objects are made

    Examples
    --------
    >>> from unet_dask.objects.rule import ObjectRule
    >>> objects_of(np.array([[1, 2, 1, 0, 1]]), ObjectRule(core=2, grow=1)).tolist()
    [[2, 2, 2, 0, 0]]
    """
    numbers = numbered(
        classes,
        start=(0,) * classes.ndim,
        shape=classes.shape,
        dims=classes.ndim,
        dtype="uint32",
        core=rule.core,
    )
    if not rule.changes:
        return numbers
    window = Window(
        numbers,
        (0,) * classes.ndim,
        tuple(slice(0, side) for side in classes.shape),
        None if rule.core else classes,
    )
    return reshaped(window, np.empty(0, numbers.dtype), rule, dims=classes.ndim, shape=classes.shape)[0]
