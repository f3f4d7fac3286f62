"""Objects of a whole volume: connected pieces of a class, numbered so that no order of work can matter.

The number of an object is one more than the place of its first voxel, in the raster order of the result. So every
region can number its own pieces without asking anybody (:func:`numbered`), and a piece that goes on behind a face
takes the smallest of the numbers that meet there (:func:`merged`, :func:`renumbered`). That number is again the
place of the object's first voxel: it depends on the object alone, not on regions, tiles or workers.

A first voxel keeps its number for ever, so to renumber a second time changes nothing. That is what makes the step
safe to be killed in: what was renumbered already, and what was not yet, still meet in the same objects.

Neighbours share a face, as in the targets that networks are trained on (R4). Pieces are connected along the axes that
the network looks along: a 2-D network says nothing of what connects two planes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from unet_dask.components import labelled
from unet_dask.objects.growth import room
from unet_dask.objects.runs import distinct, firsts, mapped

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    #: Numbers that change, ascending, and what they become.
    Changes = tuple[NDArray[np.uint64], NDArray[np.uint64]]


def numbered(
    classes: NDArray[np.integer],
    *,
    start: Sequence[int],
    shape: Sequence[int],
    dims: int,
    dtype: str,
    core: int = 0,
) -> NDArray[np.unsignedinteger]:
    """Return the number of every voxel's piece, within one part of a volume.

    Parameters
    ----------
    classes : of the voxels of the part; 0 is background
    start : of the part in the volume
    shape : of the volume
    dims : last axes along which pieces are connected
    dtype : of the numbers, see :func:`unet_dask.products.instances.number_type`
    core : class whose pieces are numbered, while the others but background are room to grow into; 0 for all

    Returns
    -------
    array of the shape of `classes`, 0 for background

    Examples
    --------
    >>> row = np.array([[1, 1, 0, 2, 1]])
    >>> numbered(row, start=(3, 10), shape=(9, 100), dims=2, dtype="uint32").tolist()
    [[311, 311, 0, 314, 315]]
    """
    pieces, count = _pieces(np.where(classes == core, classes, 0) if core else classes, dims)
    numbers = np.zeros(count + 1, dtype)
    inside = np.unravel_index(firsts(pieces, count), classes.shape)
    places = tuple(each + offset for each, offset in zip(inside, start, strict=True))
    numbers[1:] = np.ravel_multi_index(places, tuple(shape)) + 1
    found = numbers[pieces]
    if core:
        found[(classes != 0) & (found == 0)] = room(dtype)
    return found


def _pieces(classes: NDArray[np.integer], dims: int) -> tuple[NDArray[np.int32], int]:
    """Return connected pieces of equal class, counted from 1, and how many there are."""
    pieces, count = np.zeros(classes.shape, np.int32), 0
    for value in distinct(classes):
        if value:
            found = labelled(classes == value, dims)
            np.add(found, count, out=pieces, where=found > 0)
            count += int(found.max())
    return pieces, count


def touching(
    low: NDArray[np.unsignedinteger],
    high: NDArray[np.unsignedinteger],
    low_classes: NDArray[np.integer] | None = None,
    high_classes: NDArray[np.integer] | None = None,
) -> NDArray[np.uint64]:
    """Return the numbers that meet at a face, (n, 2), each pair once.

    Parameters
    ----------
    low, high : numbers on both sides of the face
    low_classes, high_classes : classes there; None if there is only one beside background

    Examples
    --------
    >>> touching(np.array([5, 5, 0, 8], "u4"), np.array([9, 9, 9, 0], "u4")).tolist()
    [[5, 9]]
    """
    free = room(low.dtype)
    meet = (low > 0) & (high > 0) & (low < free) & (high < free)
    if low_classes is not None and high_classes is not None:
        meet &= low_classes == high_classes
    pairs = np.stack([low[meet], high[meet]], axis=1).astype(np.uint64)
    return np.unique(pairs, axis=0)


def merged(pairs: NDArray[np.uint64]) -> Changes:
    """Return the numbers that change, ascending, and what each becomes: the smallest of its object.

    Parameters
    ----------
    pairs : (n, 2), numbers of one object

    Examples
    --------
    >>> old, new = merged(np.array([[5, 9], [9, 12], [20, 21]], "u8"))
    >>> old.tolist(), new.tolist()
    ([9, 12, 21], [5, 5, 20])
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    numbers, ends = np.unique(pairs, return_inverse=True)
    ends = ends.reshape(-1, 2)
    links = coo_array((np.ones(len(ends), np.bool_), (ends[:, 0], ends[:, 1])), (len(numbers),) * 2)
    _, owner = connected_components(links, directed=False)  # type: ignore[arg-type] # its stubs know no bool
    # Numbers ascend, so the first of every object is its smallest.
    _, first = np.unique(owner, return_index=True)
    smallest = numbers[first][owner] if len(numbers) else numbers
    changed = smallest != numbers
    return numbers[changed], smallest[changed]


def renumbered(
    values: NDArray[np.unsignedinteger], old: NDArray[np.uint64], new: NDArray[np.uint64]
) -> NDArray[np.unsignedinteger]:
    """Return values with numbers replaced; `old` ascends.

    Examples
    --------
    >>> renumbered(np.array([0, 9, 7], "u4"), np.array([9, 12], "u8"), np.array([5, 5], "u8")).tolist()
    [0, 5, 7]
    """
    if not len(old):
        return values

    def renumber(found: NDArray[np.unsignedinteger]) -> NDArray[np.unsignedinteger]:
        place = np.minimum(np.searchsorted(old, found), len(old) - 1)
        return np.where(old[place] == found, new[place], found)

    return mapped(values, renumber, values.dtype)


def followed(first: Changes, then: Changes) -> Changes:
    """Return what numbers become that change by one set of changes, and after it by another.

    Examples
    --------
    >>> first = np.array([7], "u8"), np.array([3], "u8")
    >>> old, new = followed(first, (np.array([3, 9], "u8"), np.array([1, 1], "u8")))
    >>> old.tolist(), new.tolist()
    ([3, 7, 9], [1, 1, 1])
    """
    old = np.union1d(first[0], then[0])
    return old, renumbered(renumbered(old, *first), *then).astype(np.uint64)
