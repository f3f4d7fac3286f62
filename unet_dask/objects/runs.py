"""Arrays of numbers by their runs: neighbouring voxels mostly have one number, which is looked up once for all of them.

Numbers of objects are places in a volume, so they are looked up among thousands of others. Done for every voxel, that
takes longer than finding the objects.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import DTypeLike, NDArray

#: Voxels that are looked at together; it bounds memory, not the result.
_PIECE = 1 << 18


def runs(values: NDArray[Any], longest: int = _PIECE) -> Iterator[tuple[slice, NDArray[np.intp]]]:
    """Yield parts of an array, in its raster order, with where in each the runs of equal values begin.

    Parameters
    ----------
    values : of every voxel
    longest : voxels after which a run ends, counted from the first of the array, and another begins

    Examples
    --------
    >>> [(part, starts.tolist()) for part, starts in runs(np.array([[5, 5, 0], [0, 7, 7]]))]
    [(slice(0, 6, None), [0, 2, 4])]
    """
    flat = values.reshape(-1)
    for start in range(0, flat.size, _PIECE):
        part = flat[start : start + _PIECE]
        begins = np.append(True, part[1:] != part[:-1])
        begins[-start % longest :: longest] = True
        yield slice(start, start + part.size), np.flatnonzero(begins)


def mapped(
    values: NDArray[Any], change: Callable[[NDArray[Any]], NDArray[Any]], dtype: DTypeLike
) -> NDArray[Any]:
    """Return what becomes of the values of an array.

    Parameters
    ----------
    values : of every voxel
    change : what becomes of some values, each by itself
    dtype : of what they become

    Examples
    --------
    >>> mapped(np.array([[5, 5, 0], [0, 7, 7]]), lambda found: found * 10, "u2").tolist()
    [[50, 50, 0], [0, 70, 70]]
    """
    flat, made = values.reshape(-1), np.empty(values.size, dtype)
    for part, starts in runs(values):
        new = np.asarray(change(flat[part][starts]), dtype)
        made[part] = np.repeat(new, np.diff(starts, append=part.stop - part.start))
    return made.reshape(values.shape)


def places(values: NDArray[Any], names: NDArray[Any]) -> NDArray[np.int32]:
    """Return which of some names each value is, counted from 1; 0 for none of them.

    Parameters
    ----------
    values : of every voxel
    names : ascending

    Examples
    --------
    >>> places(np.array([[5, 5, 0], [0, 7, 7]]), np.array([3, 7])).tolist()
    [[0, 0, 0], [0, 2, 2]]
    """
    if not len(names):
        return np.zeros(values.shape, np.int32)

    def place(found: NDArray[Any]) -> NDArray[np.intp]:
        at = np.minimum(np.searchsorted(names, found), len(names) - 1)
        return np.where(names[at] == found, at + 1, 0)

    return mapped(values, place, np.int32)


def distinct(values: NDArray[Any]) -> NDArray[Any]:
    """Return the values that an array has, ascending.

    Examples
    --------
    >>> distinct(np.array([[5, 5, 0], [0, 7, 7]])).tolist()
    [0, 5, 7]
    """
    flat = values.reshape(-1)
    found = [np.unique(flat[part][starts]) for part, starts in runs(values)]
    return np.unique(np.concatenate([flat[:0], *found]))


def firsts(labels: NDArray[np.int32], count: int) -> NDArray[np.int64]:
    """Return the place of the first voxel of each label from 1 on.

    Parameters
    ----------
    labels : of every voxel, from 0 to `count`
    count : highest label

    Returns
    -------
    array of `count` places in raster order, the number of voxels for a label that is not there

    Examples
    --------
    >>> firsts(np.array([[2, 2, 0], [0, 1, 2]], np.int32), 2).tolist()
    [4, 0]
    """
    first = np.full(count + 1, labels.size, np.int64)
    flat = labels.reshape(-1)
    for part, starts in runs(labels):
        found, at = np.unique(flat[part][starts], return_index=True)
        first[found] = np.minimum(first[found], starts[at] + part.start)
    return first[1:]


def extents(labels: NDArray[np.int32], count: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Return the box of each label from 1 on: its first voxel, and that after the last.

    Parameters
    ----------
    labels : of every voxel, from 0 to `count`
    count : highest label; each is there

    Returns
    -------
    low, high : (count, axes)

    Examples
    --------
    >>> low, high = extents(np.array([[2, 2, 0], [0, 1, 2]], np.int32), 2)
    >>> low.tolist(), high.tolist()
    ([[1, 1], [0, 0]], [[2, 2], [2, 3]])
    """
    low = np.full((labels.ndim, count + 1), np.iinfo(np.int32).max, np.int32)
    high = np.zeros_like(low)
    flat = labels.reshape(-1)
    for part, starts in runs(labels, labels.shape[-1]):
        found = flat[part][starts]
        lengths = np.diff(starts, append=part.stop - part.start)[found > 0]
        at = np.unravel_index(starts[found > 0] + part.start, labels.shape)
        found = found[found > 0]
        for axis, first in enumerate(at):
            past = first + (lengths if axis == labels.ndim - 1 else 1)
            np.minimum.at(low[axis], found, first.astype(np.int32))
            np.maximum.at(high[axis], found, past.astype(np.int32))
    return low[:, 1:].T, high[:, 1:].T
