"""Connected components of equal value: what an object is, for targets, for results and for scores.

Neighbours share a face: a diagonal line one pixel wide separates. Components are numbered from 1 in the raster order of
their first voxels, so that the numbers depend on the values alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray


def labelled(values: NDArray[Any], dims: int | None = None) -> NDArray[np.int32]:
    """Label the connected components of equal value; 0 and False are background, and stay 0.

    Parameters
    ----------
    values : integers or truth values
    dims : last axes along which voxels are neighbours; None for all

    Examples
    --------
    >>> labelled(np.array([[7, 0, 7], [3, 3, 7]])).tolist()
    [[1, 0, 2], [3, 3, 2]]
    >>> labelled(np.array([[True, True], [True, False]]), dims=1).tolist()
    [[1, 1], [2, 0]]
    """
    along = tuple(range(values.ndim - (values.ndim if dims is None else dims), values.ndim))
    if values.dtype == np.bool_:
        return _of_mask(values, along)
    if values.dtype.itemsize == 1 and _of_one_value(values):
        return _of_mask(values != 0, along)
    return _of_any(values, along)


def _of_mask(mask: NDArray[np.bool_], along: tuple[int, ...]) -> NDArray[np.int32]:
    """Label the components of a mask."""
    from scipy import ndimage

    labels = np.empty(mask.shape, np.int32)
    ndimage.label(mask, _neighbours(mask.ndim, along), output=labels)
    return labels


def _neighbours(ndim: int, along: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return which voxels around one are its neighbours: those that share a face, along some axes."""
    middle = (1,) * ndim
    neighbours = np.zeros((3,) * ndim, np.bool_)
    neighbours[middle] = True
    for axis in along:
        for side in (0, 2):
            neighbours[(*middle[:axis], side, *middle[axis + 1 :])] = True
    return neighbours


def _of_one_value(values: NDArray[Any]) -> bool:
    """Return whether there is one value at most beside 0."""
    return not values.size or bool(((values == 0) | (values == values.max())).all())


def _of_any(values: NDArray[Any], along: tuple[int, ...]) -> NDArray[np.int32]:
    """Label the components of any number of values at once."""
    dims, inside = len(along), values != 0
    equal = [(values[low] == values[high]) & inside[low] for low, high in adjoining(values.ndim, dims)]
    return bonded(inside, equal, dims)


def bonded(inside: NDArray[np.bool_], bonds: Sequence[NDArray[np.bool_]], dims: int) -> NDArray[np.int32]:
    """Label what bonds between neighbours connect.

    Pieces are components of a finer grid, in which every bond has a voxel of its own between its two.

    Parameters
    ----------
    inside : voxels that belong to a piece, if alone
    bonds : for each of the last axes, whether a voxel (all but the last along it) is bonded to the one behind it
    dims : last axes along which voxels are neighbours

    Examples
    --------
    >>> bonded(np.array([True, True, True, False]), [np.array([False, True, False])], 1).tolist()
    [1, 2, 2, 0]
    """
    along = tuple(range(inside.ndim - dims, inside.ndim))
    sides = [2 * side - 1 if axis in along and side else side for axis, side in enumerate(inside.shape)]
    fine = np.zeros(sides, np.bool_)
    whole = tuple(slice(None, None, 2 if axis in along else 1) for axis in range(inside.ndim))
    fine[whole] = inside
    for axis, bond in zip(along, bonds, strict=True):
        fine[(*whole[:axis], slice(1, None, 2), *whole[axis + 1 :])] = bond
    return np.ascontiguousarray(_of_mask(fine, along)[whole])


def adjoining(ndim: int, dims: int) -> Iterator[tuple[tuple[slice, ...], tuple[slice, ...]]]:
    """Yield, for each of the last axes, all voxels but the last ones and the neighbours after them.

    Parameters
    ----------
    ndim : axes of the array
    dims : how many of them, from the last, voxels are neighbours along

    Examples
    --------
    >>> list(adjoining(2, 1))
    [((slice(None, None, None), slice(0, -1, None)), (slice(None, None, None), slice(1, None, None)))]
    """
    for axis in range(ndim - dims, ndim):
        before: list[slice] = [slice(None)] * ndim
        after = before.copy()
        before[axis], after[axis] = slice(0, -1), slice(1, None)
        yield tuple(before), tuple(after)
