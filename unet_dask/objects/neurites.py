"""Neurites: basins that have enough in common, in the parts of a volume and across the faces between them.

A part makes its basins, and merges what it knows all edges of. Basins at a face between parts go on behind it, so they
are frozen, and so is what waits for them. Faces tell which basins are one, and how much the others have in common. All
graphs are then merged by whoever has them (:mod:`unet_dask.objects.hierarchy`), to what the whole volume comes to.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from unet_dask.objects.adjacency import Graph, across, within
from unet_dask.objects.agglomeration import agglomerated
from unet_dask.objects.basins import CERTAIN, basins, bonded_across
from unet_dask.objects.growth import grown, room
from unet_dask.objects.pieces import renumbered
from unet_dask.objects.planes import sizes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from unet_dask.objects.basins import Ground
    from unet_dask.objects.pieces import Changes
    from unet_dask.objects.planes import Tally


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """What is known of the neurites of a part of a volume.

    Attributes
    ----------
    numbers : of its voxels, 0 for those of none
    graph : between numbers that may become one yet
    """

    numbers: NDArray[np.unsignedinteger]
    graph: Graph


@dataclass(frozen=True, slots=True, eq=False)
class Face:
    """What is known of a face between two parts.

    Attributes
    ----------
    pairs : (n, 2), numbers on both sides that are one basin
    graph : between numbers that are not
    """

    pairs: NDArray[np.uint64]
    graph: Graph


def of_part(ground: Ground, threshold: float, dtype: str) -> Part:
    """Return the neurites of a part of a volume, as far as it knows them.

    Parameters
    ----------
    ground : of the part
    threshold : mean affinity from which on two are one, as a share of the highest
    dtype : of numbers, see :func:`unet_dask.products.instances.number_type`

    Examples
    --------
    >>> from unet_dask.objects.basins import of_whole
    >>> row = np.array([[254, 200, 100, 150, 20, 80, 80]], "u1")
    >>> of_part(of_whole(row, 2), 0.3, "u4").numbers.tolist()
    [[1, 1, 1, 1, 1, 6, 6]]
    """
    numbers = basins(ground, dtype)
    frozen = [np.zeros(0, np.uint64)]
    for axis, end in ground.open_sides():
        frozen.append(np.unique(numbers.take(end, axis)).astype(np.uint64))
    made = agglomerated(within(ground, numbers), threshold, np.concatenate(frozen))
    return Part(renumbered(numbers, made.old, made.new), made.graph)


def of_face(ground: Ground, numbers: NDArray[np.unsignedinteger], axis: int) -> Face:
    """Return what meets at a face between two parts.

    Parameters
    ----------
    ground : of the voxels on both sides of the face, two along the axis across, and a voxel around them
    numbers : of these voxels, as the two parts have them
    axis : across the face
    """
    return Face(bonded_across(ground, numbers, axis), across(ground, numbers, axis))


def finished(
    numbers: NDArray[np.unsignedinteger], changes: Changes, *, grow: int, dims: int
) -> NDArray[np.unsignedinteger]:
    """Return the final numbers of voxels: objects grow into those that went, as of cores into their rims.

    What a voxel becomes depends on as many voxels around it as there are steps, so whoever wants a part right gives
    that many more around it.

    Parameters
    ----------
    numbers : of voxels, as parts have them
    changes : numbers that change, ascending, and what they become; 0 for those that are too small
    grow : steps
    dims : last axes along which objects grow

    Examples
    --------
    >>> row = np.array([[3, 3, 7, 7, 7, 5]], "u4")
    >>> finished(row, (np.array([7], "u8"), np.array([0], "u8")), grow=1, dims=2).tolist()
    [[3, 3, 3, 0, 5, 5]]
    """
    made = renumbered(numbers, *changes)
    if not grow:
        return made
    made[(made == 0) & (numbers > 0)] = room(made.dtype)
    return grown(made, grow, dims)


def size_of(numbers: NDArray[np.unsignedinteger], foreground: NDArray[np.uint8]) -> Tally:
    """Return how many voxels of objects are rather foreground than not: all voxels belong to one, membrane too.

    Parameters
    ----------
    numbers : of the voxels of a part
    foreground : of the same, 0 to 254
    """
    return sizes(numbers, foreground > CERTAIN // 2)


def small(size: Tally, least: int) -> Changes:
    """Return the numbers of objects that are smaller than some voxels, or nothing but membrane, and 0 for each.

    Parameters
    ----------
    size : of all objects, added up over all parts, see :func:`size_of`
    least : voxels of the smallest object that is kept
    """
    gone = size.names[size.count < max(least, 1)]
    return gone, np.zeros_like(gone)
