"""Pieces of objects around a region, each with its box."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from unet_dask.objects.growth import room
from unet_dask.objects.runs import distinct, extents, places

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Pieces:
    """Connected pieces of a window.

    Attributes
    ----------
    names : (n) their numbers, ascending
    labels : of every voxel, which of them it belongs to, counted from 1
    low : (n, axes) first voxels of their boxes, in the window
    sides : (n, dims) of their boxes, along the axes that they are connected along
    voxels : (n) how many each has
    """

    names: NDArray[np.unsignedinteger]
    labels: NDArray[np.int32]
    low: NDArray[np.int32]
    sides: NDArray[np.int32]
    voxels: NDArray[np.intp]

    def box(self, piece: int) -> tuple[int | slice, ...]:
        """Return where a piece lies in the window, without the axes along which it is one voxel long."""
        low, sides = self.low[piece].tolist(), self.sides[piece].tolist()
        planes = len(low) - len(sides)
        spans = (slice(at, at + side) for at, side in zip(low[planes:], sides, strict=True))
        return (*low[:planes], *spans)

    def meeting(self, part: tuple[slice, ...]) -> NDArray[np.bool_]:
        """Return which pieces have a box that meets a part of the window."""
        high = self.low + 1
        high[:, -self.sides.shape[1] :] += self.sides - 1
        start, stop = ([getattr(span, end) for span in part] for end in ("start", "stop"))
        return np.asarray(((self.low < stop) & (high > start)).all(axis=1))

    def most_voxels(self, filled: bool) -> NDArray[np.intp]:
        """Return how many voxels each piece can have at most, once its holes are filled or as it is."""
        if not filled:
            return self.voxels
        return np.asarray(self.voxels + np.maximum(self.sides - 2, 0).prod(axis=1))


def pieces_of(numbers: NDArray[np.unsignedinteger], dims: int) -> Pieces:
    """Return the pieces of a window.

    Parameters
    ----------
    numbers : of every voxel, see :class:`unet_dask.objects.region.Window`
    dims : last axes along which pieces are connected
    """
    names = distinct(numbers)
    names = names[(names > 0) & (names < room(numbers.dtype))]
    labels = places(numbers, names)
    low, high = extents(labels, len(names))
    return Pieces(names, labels, low, (high - low)[:, -dims:], np.bincount(labels.reshape(-1))[1:])
