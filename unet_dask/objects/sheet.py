"""Sheets of objects: many boxes side by side with nothing between them, so that a step is done for all at once.

What is done to an object depends on nothing but the object in its own box. One by one, most of the time goes into the
calls; on a sheet an object is as far from the others as a step can look, so each comes out as if it were alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

#: Empty voxels around a box: as far as the widest step looks, see :mod:`unet_dask.objects.shape`.
GAP = 4
#: Voxels of a sheet, unless an object needs more; what is done to one then takes place in the cache of a processor.
_SHEET = 1 << 16


@dataclass(frozen=True, slots=True)
class Sheet:
    """Boxes side by side.

    Attributes
    ----------
    which : (n) of the boxes, those that lie on the sheet
    corners : (n, axes) first voxel of each on the sheet
    sides : (n, axes) of the boxes, in voxels
    shape : of the sheet
    """

    which: NDArray[np.intp]
    corners: NDArray[np.int32]
    sides: NDArray[np.int32]
    shape: tuple[int, ...]

    @property
    def slices(self) -> list[tuple[slice, ...]]:
        """Where each box lies on the sheet."""
        ends = self.corners + self.sides
        return [
            tuple(slice(*span) for span in zip(low, high, strict=True))
            for low, high in zip(self.corners.tolist(), ends.tolist(), strict=True)
        ]


def sheets(sides: NDArray[np.int32]) -> Iterator[Sheet]:
    """Yield sheets on which boxes lie, each of them on one.

    Boxes of about the same size come together: they are put side by side along the last axis until a line is full,
    lines are put side by side along the axis before it, and so on.

    Parameters
    ----------
    sides : (n, axes) of the boxes, in voxels

    Examples
    --------
    >>> (sheet,) = sheets(np.array([[2, 3], [5, 4]]))
    >>> sheet.shape, sheet.slices
    ((13, 19), [(slice(4, 9, None), slice(4, 8, None)), (slice(4, 6, None), slice(12, 15, None))])
    """
    if not len(sides):
        return
    dims = sides.shape[1]
    order = np.lexsort(sides.T[::-1])[::-1]
    least = round(_SHEET ** (1 / dims))
    limits = [max(least, int(side) + GAP) for side in sides.max(axis=0)]
    begin, corners = 0, np.empty_like(sides)
    cursor, thick = [0] * dims, [0] * dims
    for place, box in enumerate((sides[order] + GAP).tolist()):
        if not _moved(cursor, thick, box, limits):
            yield _sheet(order[begin:place], corners, sides)
            begin, cursor, thick = place, [0] * dims, [0] * dims
        corners[order[place]] = cursor
        thick = [max(old, new) for old, new in zip(thick, box, strict=True)]
        cursor[-1] += box[-1]
    yield _sheet(order[begin:], corners, sides)


def _moved(cursor: list[int], thick: list[int], box: list[int], limits: list[int]) -> bool:
    """Move on to the next line, layer and so on, until there is room for a box; return whether there is."""
    for axis in range(len(box) - 1, -1, -1):
        if cursor[axis] + box[axis] <= limits[axis]:
            return True
        if axis:
            cursor[axis], cursor[axis - 1] = 0, cursor[axis - 1] + thick[axis - 1]
            thick[axis - 1 :] = [0] * (len(box) - axis + 1)
    return False


def _sheet(which: NDArray[np.intp], corners: NDArray[np.int32], sides: NDArray[np.int32]) -> Sheet:
    """Return a sheet of some boxes, no larger than they need, and empty at all of its sides."""
    low, own = corners[which] + GAP, sides[which]
    return Sheet(which, low, own, tuple(((low + own).max(axis=0) + GAP).tolist()))
