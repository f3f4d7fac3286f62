"""Basins: voxels of one object for certain, from which neurites are put together.

A voxel is as much foreground as a byte says, 1 to 254, and two neighbours belong together as much as the lesser of the
two: their affinity. Every voxel is bonded to the neighbour that it has most in common with, which makes a watershed: a
basin is what climbs to one summit. Neighbours that are both nearly certain to be foreground are bonded, too, or the
noise of a bright inside would make thousands of summits. A basin is what bonds connect.

All of this is decided a voxel around. Edges are in a strict order, by affinity and at last by their place in the
whole volume, so that a voxel has one best edge whoever looks for it. The number of a basin is one more than the place
of its first voxel (:mod:`unet_dask.objects.pieces`): a region numbers its own part of each, and parts are joined over
faces.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from unet_dask.components import adjoining, bonded

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

#: A byte of foreground that is certain to be, as in the product `probabilities`; the next one is the sentinel.
CERTAIN = 254
#: Affinity from which on neighbours are bonded though neither is what the other has most in common with.
SURE = 240


def foreground(background: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Return how much voxels are foreground, 1 to 254, and 0 for those that nobody looked at.

    Certain membrane has 1: it belongs to basins, so that what is on both sides meets there, and has nothing in common.

    Parameters
    ----------
    background : probability as the product `probabilities` holds it: float32 in [0, 1], or bytes in 0 to 254; the
        sentinel where there is none, see :mod:`unet_dask.products.sentinel`

    Examples
    --------
    >>> foreground(np.array([0.0, 0.25, 1.0, np.nan], "f4")).tolist()
    [254, 190, 1, 0]
    >>> foreground(np.array([0, 64, 254, 255], "u1")).tolist()
    [254, 190, 1, 0]
    """
    if background.dtype.kind == "f":
        known = ~np.isnan(background)
        scaled = np.rint(np.where(known, background, 0).astype(np.float32) * np.float32(CERTAIN))
    else:
        known = background != CERTAIN + 1
        scaled = np.where(known, background, 0).astype(np.float32)
    return np.where(known, np.maximum(CERTAIN - scaled, 1), 0).astype(np.uint8)


@dataclass(frozen=True, slots=True)
class Ground:
    """Foreground of a part of a volume, with a voxel around it where the volume goes on.

    Attributes
    ----------
    foreground : (*spatial) of the part and around it, 1 to 254, 0 outside of all basins
    start : of this window in the volume
    own : the part, within the window
    shape : of the volume
    dims : last axes along which voxels are neighbours
    """

    foreground: NDArray[np.uint8]
    start: tuple[int, ...]
    own: tuple[slice, ...]
    shape: tuple[int, ...]
    dims: int

    @property
    def axes(self) -> range:
        """Axes along which voxels are neighbours."""
        return range(len(self.shape) - self.dims, len(self.shape))

    @property
    def origin(self) -> tuple[int, ...]:
        """First voxel of the part, in the volume."""
        return tuple(part.start + start for part, start in zip(self.own, self.start, strict=True))

    def open_sides(self) -> Iterator[tuple[int, int]]:
        """Yield the sides of the part beyond which the volume goes on: axis, and 0 for the lower or -1."""
        for axis in self.axes:
            first = self.origin[axis]
            sides = (first > 0, first + self.own[axis].stop - self.own[axis].start < self.shape[axis])
            yield from ((axis, end) for end, goes_on in zip((0, -1), sides, strict=True) if goes_on)


def of_whole(foreground: NDArray[np.uint8], dims: int) -> Ground:
    """Return a volume as the only part of itself."""
    return Ground(
        foreground,
        (0,) * foreground.ndim,
        tuple(slice(0, side) for side in foreground.shape),
        foreground.shape,
        dims,
    )


def basins(ground: Ground, dtype: str) -> NDArray[np.unsignedinteger]:
    """Return the numbers of the basins of a part, 0 for voxels in none.

    Parameters
    ----------
    ground : of the part
    dtype : of the numbers

    Examples
    --------
    >>> basins(of_whole(np.array([[9, 7, 3, 6, 8, 0, 250, 254, 251]], "u1"), 2), "u4").tolist()
    [[1, 1, 1, 4, 4, 0, 7, 7, 7]]
    """
    choice = chosen(ground)[ground.own]
    values = ground.foreground[ground.own]
    bonds = [
        bonds_along(values[low], values[high], choice[low], choice[high], axis)
        for axis, (low, high) in zip(ground.axes, adjoining(values.ndim, ground.dims), strict=True)
    ]
    labels = bonded(values > 0, bonds, ground.dims)
    return numbered(labels, ground.origin, ground.shape, dtype)


def chosen(ground: Ground) -> NDArray[np.uint8]:
    """Return the best edge of every voxel: 1 + axis to the neighbour before it, 1 + ndim + axis behind it, 0 for none.

    The best has the highest affinity; of equal ones the highest other end, so that voxels on a slope go up where it is
    steepest; of those the smallest place of its lower voxel, and the first axis.
    Edges of a voxel are looked at in this last order here: one with the neighbour before it begins at a smaller place
    the earlier the axis, and all edges with a neighbour behind it begin at the voxel itself.
    """
    values = ground.foreground
    best, choice = np.zeros(values.shape, np.uint16), np.zeros_like(values)
    ranks = [
        (axis, low, high, _rank(values[low], values[high]))
        for axis, (low, high) in zip(ground.axes, adjoining(values.ndim, ground.dims), strict=True)
    ]
    for behind in (0, values.ndim):
        for axis, low, high, rank in ranks:
            here = low if behind else high
            better = rank > best[here]
            np.copyto(best[here], rank, where=better)
            np.copyto(choice[here], np.uint8(1 + behind + axis), where=better)
    return choice


def _rank(low: NDArray[np.uint8], high: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """Return the lesser of two values, and behind it the greater; 0 where one is 0."""
    less = np.minimum(low, high).astype(np.uint16)
    return np.where(less > 0, (less << 8) + np.maximum(low, high), 0).astype(np.uint16)


def bonds_along(
    low: NDArray[np.uint8],
    high: NDArray[np.uint8],
    low_choice: NDArray[np.uint8],
    high_choice: NDArray[np.uint8],
    axis: int,
) -> NDArray[np.bool_]:
    """Return which neighbours along an axis are bonded.

    Parameters
    ----------
    low, high : foreground of the voxels before, and of those behind
    low_choice, high_choice : their best edges
    axis : along which they are neighbours
    """
    behind = 1 + low.ndim + axis
    sure = np.minimum(low, high) >= SURE
    return np.asarray(sure | (low_choice == behind) | (high_choice == 1 + axis))


def bonded_across(ground: Ground, numbers: NDArray[np.unsignedinteger], axis: int) -> NDArray[np.uint64]:
    """Return the numbers that are one basin across a face, (n, 2), each pair once.

    Parameters
    ----------
    ground : of the voxels on both sides of the face, two along the axis across, and a voxel around them
    numbers : of these voxels
    axis : across the face
    """
    choice, values = chosen(ground)[ground.own], ground.foreground[ground.own]
    low, high = ((slice(None),) * axis + (slice(*ends),) for ends in ((0, 1), (1, 2)))
    bonds = bonds_along(values[low], values[high], choice[low], choice[high], axis)
    pairs = np.stack([numbers[low][bonds], numbers[high][bonds]], axis=1).astype(np.uint64)
    return np.unique(pairs, axis=0)


def numbered(
    labels: NDArray[np.int32], origin: Sequence[int], shape: Sequence[int], dtype: str
) -> NDArray[np.unsignedinteger]:
    """Return for the labels of a part the places of their first voxels in the volume, and one more.

    Parameters
    ----------
    labels : from 1, in the order of their first voxels; 0 is background
    origin : of the part in the volume
    shape : of the volume
    dtype : of the numbers
    """
    flat = labels.reshape(-1)
    highest = np.maximum.accumulate(flat)
    first = np.flatnonzero(np.diff(highest, prepend=0))
    numbers = np.zeros(len(first) + 1, dtype)
    within = np.unravel_index(first, labels.shape)
    places = tuple(at + offset for at, offset in zip(within, origin, strict=True))
    numbers[1:] = np.ravel_multi_index(places, tuple(shape)) + 1
    return numbers[labels]
