"""Corners of objects, as numbers that add up.

A pixel has four corners: +1 above left and below right, -1 above right and below left. Added up over the pixels of an
object, what is left are its corners: +1 or -1 where its outline turns, +2 or -2 where it touches itself, because of
four pixels around a corner two opposite ones belong to it, and 0 everywhere else. Summed up along both axes, they give
the pixels back: corners say all of an object.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from unet_dask.measuring.sums import Rows

#: A corner of an object: its place before pixels y and x of a plane, and its sum.
CORNER = np.dtype([("label", "u8"), ("plane", "i4"), ("y", "i4"), ("x", "i4"), ("sum", "i1")])


def corners_of(labels: NDArray[np.unsignedinteger], start: Sequence[int], shape: Sequence[int]) -> Rows:
    """Return the corners of objects in a block, as if there were nothing around it.

    Parameters
    ----------
    labels : of the block, (..., y, x); 0 is background
    start : of the block in the label image
    shape : of the label image, whose planes are counted in raster order

    Examples
    --------
    >>> corners_of(np.array([[7, 7]], "u4"), (0, 0), (1, 2)).tolist()
    [(7, 0, 0, 0, 1), (7, 0, 0, 2, -1), (7, 0, 1, 0, -1), (7, 0, 1, 2, 1)]
    """
    flat = labels.reshape(-1, *labels.shape[-2:])
    around = np.zeros((len(flat), flat.shape[1] + 2, flat.shape[2] + 2), labels.dtype)
    around[:, 1:-1, 1:-1] = flat
    above, below = around[:, :-1], around[:, 1:]
    four = ((above[..., :-1], 1), (above[..., 1:], -1), (below[..., :-1], -1), (below[..., 1:], 1))
    (left, _), (right, _), (under, _), (last, _) = four
    turns = np.nonzero(((left != right) | (under != last)) & ((left != under) | (right != last)))
    found = [_corners(pixel[turns], turns, sign) for pixel, sign in four]
    rows = merged_corners(np.concatenate(found))
    rows["plane"] = _planes(labels.shape[:-2], start[:-2], shape[:-2])[rows["plane"]]
    rows["y"] += start[-2]
    rows["x"] += start[-1]
    return rows


def _corners(label: NDArray[np.unsignedinteger], places: tuple[NDArray[np.intp], ...], sign: int) -> Rows:
    inside = label > 0
    rows = np.zeros(np.count_nonzero(inside), CORNER)
    rows["label"], rows["sum"] = label[inside], sign
    for name, place in zip(("plane", "y", "x"), places, strict=True):
        rows[name] = place[inside]
    return rows


def _planes(counts: Sequence[int], start: Sequence[int], shape: Sequence[int]) -> NDArray[np.intp]:
    """Return the numbers of a block's planes in the label image."""
    places = np.unravel_index(np.arange(int(np.prod(counts))), (*counts, 1))[:-1]
    moved = tuple(place + first for place, first in zip(places, start, strict=True))
    return np.asarray(np.ravel_multi_index((*moved, np.zeros_like(moved[0])), (*shape, 1)) if moved else [0])


def merged_corners(rows: Rows) -> Rows:
    """Return corners added up where they meet, by number, plane and place; those that cancel are none."""
    rows = rows[np.lexsort((rows["x"], rows["y"], rows["plane"], rows["label"]))]
    if not len(rows):
        return rows
    place = rows[["label", "plane", "y", "x"]]
    first = np.flatnonzero(np.append(True, place[1:] != place[:-1]))
    whole = rows[first]
    whole["sum"] = np.add.reduceat(rows["sum"], first)
    return np.asarray(whole[whole["sum"] != 0])
