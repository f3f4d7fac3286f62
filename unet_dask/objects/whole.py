"""Objects of a whole image in memory: what a run makes of it, whatever regions it cuts it into."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

from unet_dask.objects.basins import foreground, of_whole
from unet_dask.objects.neurites import finished, of_part, size_of, small
from unet_dask.objects.pieces import numbered, renumbered
from unet_dask.objects.planes import added, linked, overlaps, sizes
from unet_dask.objects.region import Window, reshaped

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from unet_dask.objects.rule import ObjectRule

#: Type of the numbers here: images in memory are smaller than what it can number.
_DTYPE = "uint32"


def objects_in(
    probabilities: NDArray[Any], rule: ObjectRule, *, dims: int | None = None
) -> NDArray[np.unsignedinteger]:
    """Return the number of every voxel's object, 0 for background, from what a network says.

    Parameters
    ----------
    probabilities : (classes, *spatial), the first is background: float32 in [0, 1], or bytes in 0 to 254
    rule : how objects are made
    dims : last axes that the network looked along; None for all

    Examples
    --------
    >>> from unet_dask.objects.rule import ObjectRule
    >>> background = np.array([[0.0, 0.2, 0.9, 0.1, 0.1]], "f4")
    >>> both = np.stack([background, 1 - background])
    >>> objects_in(both, ObjectRule(threshold=0.5)).tolist(), objects_in(both, ObjectRule(threshold=0.05)).tolist()
    ([[1, 1, 3, 3, 3]], [[1, 1, 1, 1, 1]])
    """
    dims = probabilities.ndim - 1 if dims is None else dims
    if rule.threshold:
        made = neurites_of(foreground(probabilities[0]), rule, dims)
    else:
        made = objects_of(np.argmax(probabilities, axis=0).astype(np.uint8), rule, dims=dims)
    if rule.linked:
        made = over_planes(made, rule.linked)
    return counted(made) if rule.dense else made


def counted(numbers: NDArray[np.unsignedinteger]) -> NDArray[np.unsignedinteger]:
    """Return the numbers of objects counted from 1, in their order; 0 stays background, also where there is none.

    Examples
    --------
    >>> counted(np.array([9, 4, 9], "u4")).tolist(), counted(np.array([0, 4, 9], "u4")).tolist()
    ([2, 1, 2], [0, 1, 2])
    """
    names = np.unique(numbers[numbers > 0])
    return np.where(numbers > 0, np.searchsorted(names, numbers) + 1, 0).astype(_DTYPE)


def objects_of(
    classes: NDArray[np.integer], rule: ObjectRule, *, dims: int | None = None
) -> NDArray[np.unsignedinteger]:
    """Return the number of every voxel's object in its plane, 0 for background, from the classes of voxels.

    Parameters
    ----------
    classes : (*spatial), 0 is background
    rule : how objects are made, of connected pieces
    dims : last axes along which pieces are connected; None for all

    Examples
    --------
    >>> from unet_dask.objects.rule import ObjectRule
    >>> objects_of(np.array([[1, 2, 1, 0, 1]]), ObjectRule(core=2, grow=1)).tolist()
    [[2, 2, 2, 0, 0]]
    """
    dims, origin = classes.ndim if dims is None else dims, (0,) * classes.ndim
    numbers = numbered(classes, start=origin, shape=classes.shape, dims=dims, dtype=_DTYPE, core=rule.core)
    if not rule.shapes:
        return numbers
    window = Window(
        numbers,
        origin,
        tuple(slice(0, side) for side in classes.shape),
        None if rule.core else classes,
    )
    return reshaped(window, np.empty(0, numbers.dtype), rule, dims=dims, shape=classes.shape)[0]


def neurites_of(foreground: NDArray[np.uint8], rule: ObjectRule, dims: int) -> NDArray[np.unsignedinteger]:
    """Return the number of every voxel's neurite in its plane, 0 for none, see :mod:`unet_dask.objects.neurites`.

    Parameters
    ----------
    foreground : (*spatial), see :func:`unet_dask.objects.basins.foreground`
    rule : with a threshold
    dims : last axes along which voxels are neighbours
    """
    numbers = of_part(of_whole(foreground, dims), rule.threshold, _DTYPE).numbers
    gone = small(size_of(numbers, foreground), rule.min_size)
    return finished(numbers, gone, grow=rule.grow, dims=dims)


def over_planes(numbers: NDArray[np.unsignedinteger], share: float) -> NDArray[np.unsignedinteger]:
    """Return the numbers of objects that go through the planes of a stack, see :mod:`unet_dask.objects.planes`.

    Parameters
    ----------
    numbers : of objects in their planes
    share : of an overlap, from which on it links two
    """
    over = [overlaps(one, following) for one, following in itertools.pairwise(numbers)]
    return renumbered(numbers, *linked(added(over), sizes(numbers), share)) if over else numbers
