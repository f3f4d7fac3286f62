"""All objects of a region, each in its own box, and then grown."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from unet_dask.objects.boxes import pieces_of
from unet_dask.objects.growth import grown, room
from unet_dask.objects.rule import REACH
from unet_dask.objects.runs import firsts
from unet_dask.objects.shape import shaped
from unet_dask.objects.sheet import sheets

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from unet_dask.objects.boxes import Pieces
    from unet_dask.objects.rule import ObjectRule
    from unet_dask.objects.shape import Shapes
    from unet_dask.objects.sheet import Sheet


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
    pieces = pieces_of(window.numbers, dims)
    stays = np.isin(pieces.names, whole) | (pieces.sides.max(axis=1, initial=0) > REACH[dims])
    # Of noisy maps most pieces are specks, which could not be large enough if all that they may enclose were a hole.
    large = pieces.most_voxels(rule.fill_holes) >= rule.min_size
    names = np.append(np.zeros(1, pieces.names.dtype), np.where(stays | large, pieces.names, 0))
    made = names[pieces.labels]
    if rule.fill_holes or rule.split:
        which = np.flatnonzero(large & ~stays & pieces.meeting(window.own))
        _shape(made, pieces, which, window, rule, tuple(shape))
    return made[window.own], pieces.names[stays]


def _shape(
    made: NDArray[np.unsignedinteger],
    pieces: Pieces,
    which: NDArray[np.intp],
    window: Window,
    rule: ObjectRule,
    shape: tuple[int, ...],
) -> None:
    """Give some pieces their final shape in the numbers of a window, where they are as they were."""
    # Voxels of the object that a voxel was given to: of two, the larger one lies around the other.
    claimed = np.zeros(made.shape, np.int32)
    for sheet in sheets(pieces.sides[which]):
        here, slots = which[sheet.which], sheet.slices
        boxes = [pieces.box(piece) for piece in here.tolist()]
        laid, free = np.zeros(sheet.shape, np.int32), None
        for place, (piece, box, slot) in enumerate(zip(here.tolist(), boxes, slots, strict=True), 1):
            np.multiply(pieces.labels[box] == piece + 1, place, out=laid[slot], dtype=np.int32)
        if window.classes is not None and rule.fill_holes:
            free = _free(laid, window.classes, boxes, slots)
        found = shaped(laid, slots, rule, free)
        numbers = _numbers(found, sheet, pieces, here, window.start, shape)
        sizes = np.bincount(found.filled.reshape(-1))
        for place in found.changed(pieces.voxels[here]).tolist():
            box, slot = boxes[place], slots[place]
            taken = (found.filled[slot] > 0) & (claimed[box] < sizes[place + 1])
            claimed[box][taken] = sizes[place + 1]
            made[box][taken] = numbers[found.parts[slot][taken]]


def _free(
    laid: NDArray[np.int32],
    classes: NDArray[np.integer],
    boxes: Sequence[tuple[int | slice, ...]],
    slots: Sequence[tuple[slice, ...]],
) -> NDArray[np.bool_]:
    """Return where the objects of a sheet may fill their holes: over background and their own class."""
    free = np.zeros(laid.shape, np.bool_)
    for box, slot in zip(boxes, slots, strict=True):
        there = classes[box]
        free[slot] = (there == 0) | (there == there[laid[slot] > 0][0])
    return free


def _numbers(
    found: Shapes,
    sheet: Sheet,
    pieces: Pieces,
    here: NDArray[np.intp],
    start: tuple[int, ...],
    shape: tuple[int, ...],
) -> NDArray[np.unsignedinteger]:
    """Return the number of each part on a sheet: one more than the place of its first voxel in the volume; 0 of 0."""
    count, parts = len(here), len(found.owners) - 1
    numbers = np.append(np.zeros(1, pieces.names.dtype), pieces.names[here[found.owners[1:] - 1]])
    split = np.isin(found.owners, found.owners[count + 1 :])
    if parts > count:
        first = firsts(found.parts, parts)
        split[1:] &= first < found.parts.size  # others were too small
        owner = found.owners[split] - 1
        inside = np.stack(np.unravel_index(first[split[1:]], sheet.shape), axis=1) - sheet.corners[owner]
        places = pieces.low[here[owner]] + np.array(start)
        places[:, -inside.shape[1] :] += inside
        numbers[split] = np.ravel_multi_index(tuple(places.T), shape) + 1
    return numbers


def _beginning(names: NDArray[np.unsignedinteger], window: Window, shape: Sequence[int]) -> int:
    """Return how many of some objects have their first voxel in a region."""
    places = np.unravel_index(names.astype(np.int64) - 1, tuple(shape))
    inside = [
        (at >= part.start + start) & (at < part.stop + start)
        for at, part, start in zip(places, window.own, window.start, strict=True)
    ]
    return int(np.count_nonzero(np.all(inside, axis=0)))
