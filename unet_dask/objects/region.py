"""All objects of a region, each in its own box, and then grown."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from unet_dask.objects.growth import grown, room
from unet_dask.objects.rule import REACH
from unet_dask.objects.shape import shaped

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from unet_dask.objects.rule import ObjectRule

#: Voxels whose numbers are looked up together; it bounds memory, not the result.
_PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class Window:
    """Numbers of objects around a region: all of every object that is to be shaped there.

    Attributes
    ----------
    numbers : of every voxel, 0 for background and for objects that do not matter, `growth.room` where objects may grow
    start : of the window in the volume
    own : the region, within the window
    classes : of every voxel, where there are several; None if there is one
    """

    numbers: NDArray[np.unsignedinteger]
    start: tuple[int, ...]
    own: tuple[slice, ...]
    classes: NDArray[np.integer] | None = None


def reshaped(
    window: Window, whole: NDArray[np.unsignedinteger], rule: ObjectRule, *, dims: int, shape: Sequence[int]
) -> tuple[NDArray[np.unsignedinteger], int]:
    """Return the numbers of a region's voxels once all objects have their final shape.

    Parameters
    ----------
    window : around the region
    whole : numbers of objects that reach further than the window, and stay as they are
    rule : what is done with the others
    dims : last axes along which pieces are connected; along the others an object is one voxel long
    shape : of the volume

    Returns
    -------
    array of the shape of the region, where the number of an object is one more than the place of its first voxel
    before it grew; and how many objects that begin in the region stay as they are
    """
    around, own = _wider(window, rule.grow, dims)
    made, unshaped = _made(replace(window, own=around), whole, rule, dims=dims, shape=shape)
    if rule.grow:
        # Also over cores that were too small to be kept.
        made[(made == 0) & (window.numbers[around] > 0)] = room(made.dtype)
        made = grown(made, rule.grow, dims)[own]
    return made, int(_beginning(unshaped, window, shape))


def _wider(window: Window, more: int, dims: int) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Return the region with some voxels around it, as far as the window goes, and where the region lies in that."""
    sides = window.numbers.shape
    more_of = [0] * (len(sides) - dims) + [more] * dims
    around = tuple(
        slice(max(part.start - step, 0), min(part.stop + step, side))
        for part, step, side in zip(window.own, more_of, sides, strict=True)
    )
    within = tuple(
        slice(part.start - outer.start, part.stop - outer.start)
        for part, outer in zip(window.own, around, strict=True)
    )
    return around, within


def _made(
    window: Window, whole: NDArray[np.unsignedinteger], rule: ObjectRule, *, dims: int, shape: Sequence[int]
) -> tuple[NDArray[np.unsignedinteger], NDArray[np.unsignedinteger]]:
    """Return the numbers of a region's voxels before objects grow, and those of the objects that stay as they are."""
    from scipy import ndimage

    names, compact = _compact(window.numbers)
    boxes, own = ndimage.find_objects(compact), window.own
    stays = np.isin(names, whole)
    stays |= np.array([max(_sides(box)[-dims:]) > REACH[dims] for box in boxes], np.bool_)
    made = np.where(np.append(False, stays)[compact[own]], window.numbers[own], 0).astype(
        window.numbers.dtype
    )
    # Voxels of the object that a voxel was given to: of two, the larger one lies around the other.
    claimed = np.zeros(made.shape, np.int32)
    for label, box in enumerate(boxes, 1):
        seen = _overlap(box, own)
        # Of noisy maps most pieces are specks, which could not be large enough if they filled their box.
        if stays[label - 1] or seen is None or math.prod(_sides(box)) < rule.min_size:
            continue
        within, here = seen
        piece = compact[box] == label
        flat = piece.shape[-dims:]
        found = shaped(piece.reshape(flat), rule, _free(window, box, piece, rule).reshape(flat))
        size = np.count_nonzero(found.filled)
        taken = found.filled.reshape(piece.shape)[within] & (claimed[here] < size)
        claimed[here][taken] = size
        numbers = _part_numbers(found.parts.reshape(piece.shape), names[label - 1], box, window, shape)
        made[here][taken] = numbers[found.parts.reshape(piece.shape)[within][taken]]
    return made, names[stays]


def _beginning(names: NDArray[np.unsignedinteger], window: Window, shape: Sequence[int]) -> int:
    """Return how many of some objects have their first voxel in a region."""
    places = np.unravel_index(names.astype(np.int64) - 1, tuple(shape))
    inside = [
        (at >= part.start + start) & (at < part.stop + start)
        for at, part, start in zip(places, window.own, window.start, strict=True)
    ]
    return int(np.count_nonzero(np.all(inside, axis=0)))


def _sides(box: tuple[slice, ...]) -> list[int]:
    return [part.stop - part.start for part in box]


def _compact(
    numbers: NDArray[np.unsignedinteger],
) -> tuple[NDArray[np.unsignedinteger], NDArray[np.int32]]:
    """Return the numbers that there are, ascending, and of every voxel which of them it has, counted from 1."""
    free = room(numbers.dtype)
    names = np.unique(numbers[(numbers > 0) & (numbers < free)])
    compact = np.zeros(numbers.shape, np.int32)
    flat, labels = numbers.reshape(-1), compact.reshape(-1)
    for start in range(0, flat.size, _PIECE):
        part = flat[start : start + _PIECE]
        labels[start : start + _PIECE] = np.where(
            (part > 0) & (part < free), np.searchsorted(names, part) + 1, 0
        )
    return names, compact


def _overlap(
    box: tuple[slice, ...], own: tuple[slice, ...]
) -> tuple[tuple[slice, ...], tuple[slice, ...]] | None:
    """Return what two boxes have in common, counted from the first voxel of each; None if that is nothing.

    Examples
    --------
    >>> _overlap((slice(2, 6),), (slice(4, 9),))
    ((slice(2, 4, None),), (slice(0, 2, None),))
    """
    ends = [(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(box, own, strict=True)]
    if any(start >= stop for start, stop in ends):
        return None
    one, other = (
        tuple(slice(a - part.start, b - part.start) for (a, b), part in zip(ends, parts, strict=True))
        for parts in (box, own)
    )
    return one, other


def _free(
    window: Window, box: tuple[slice, ...], piece: NDArray[np.bool_], rule: ObjectRule
) -> NDArray[np.bool_]:
    """Return where an object may grow: over background and its own class."""
    if window.classes is None or not rule.fill_holes:
        return np.ones(piece.shape, np.bool_)
    classes = window.classes[box]
    return np.asarray((classes == 0) | (classes == classes[piece][0]))


def _part_numbers(
    parts: NDArray[np.int32],
    name: np.unsignedinteger,
    box: tuple[slice, ...],
    window: Window,
    shape: Sequence[int],
) -> NDArray[np.unsignedinteger]:
    """Return the number of each part of an object: one more than the place of its first voxel in the volume; 0 of 0."""
    count = int(parts.max())
    numbers = np.zeros(count + 1, window.numbers.dtype)
    if count == 1:
        numbers[1] = name
        return numbers
    found, first = np.unique(parts, return_index=True)
    inside = np.unravel_index(first, parts.shape)
    places = tuple(at + part.start + start for at, part, start in zip(inside, box, window.start, strict=True))
    numbers[found] = np.ravel_multi_index(places, tuple(shape)) + 1
    numbers[0] = 0
    return numbers
