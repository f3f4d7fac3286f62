"""Objects of a whole volume, one by one, slowly: what a run must come to, by other means than its own."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage
from skimage.segmentation import watershed

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from unet_dask.objects.rule import ObjectRule


def flooded(classes: NDArray[Any], dims: int) -> NDArray[np.int64]:
    """Number objects by flooding each from its first voxel: nothing but the definition."""
    found = np.zeros(classes.shape, np.int64)
    for place, start in enumerate(np.ndindex(classes.shape)):
        if not classes[start] or found[start]:
            continue
        todo = [start]
        found[start] = place + 1
        while todo:
            here = todo.pop()
            for there in beside(here, classes.shape, dims):
                if classes[there] == classes[here] and not found[there]:
                    found[there] = place + 1
                    todo.append(there)
    return found


def beside(place: tuple[int, ...], shape: tuple[int, ...], dims: int) -> list[tuple[int, ...]]:
    """Return the places that share a face with one."""
    found = []
    for axis in range(len(shape) - dims, len(shape)):
        for step in (-1, 1):
            there = (*place[:axis], place[axis] + step, *place[axis + 1 :])
            if 0 <= there[axis] < shape[axis]:
                found.append(there)
    return found


def slowly(classes: NDArray[Any], rule: ObjectRule, dims: int, reach: int) -> NDArray[np.int64]:
    """Shape the objects of a whole volume one by one, each with a margin around it, and grow them pixel by pixel."""
    made = slowly_shaped(
        np.where(classes == rule.core, classes, 0) if rule.core else classes, rule, dims, reach
    )
    for _ in range(rule.grow):
        before = made.copy()
        for place in zip(*np.nonzero((before == 0) & (classes > 0)), strict=True):
            reached = [before[there] for there in beside(place, classes.shape, dims) if before[there]]
            made[place] = min(reached, default=0)
    return made


def slowly_shaped(classes: NDArray[Any], rule: ObjectRule, dims: int, reach: int) -> NDArray[np.int64]:
    """Shape the objects of a whole volume one by one, each with a margin around it."""
    named = flooded(classes, dims)
    made, claimed = np.zeros_like(named), np.zeros_like(named)
    for name, box in zip(*boxed(named, dims), strict=True):
        inside, there = named[box] == name, classes[box]
        origin = [part if isinstance(part, int) else part.start for part in box]
        if any(np.ptp(at) + 1 > reach for at in np.nonzero(inside)):
            made[box][inside] = name
            continue
        value = there[inside][0]
        if rule.fill_holes:
            outside = np.pad(~inside, 1, constant_values=True)
            sea = ndimage.label(outside)[0]
            hole = (sea != sea.flat[0])[(slice(1, -1),) * dims] & ~inside
            inside = inside | (hole & ((there == 0) | (there == value)))
        parts = parted(inside, rule.split) if rule.split else inside.astype(int)
        wins = inside & (claimed[box] < inside.sum())
        claimed[box][wins] = inside.sum()
        made[box][wins] = 0
        for part in range(1, parts.max() + 1):
            voxels = parts == part
            if voxels.sum() >= rule.min_size:
                first = [int(at[0]) for at in np.nonzero(voxels)]
                place = [*origin[:-dims], *(a + b for a, b in zip(origin[-dims:], first, strict=True))]
                made[box][wins & voxels] = np.ravel_multi_index(place, classes.shape) + 1
    return made


def boxed(named: NDArray[np.int64], dims: int) -> tuple[list[int], list[tuple[Any, ...]]]:
    """Return the numbers of objects, and for each its plane and a part of that which is wider by some pixels."""
    names = np.unique(named[named > 0])
    boxes = []
    for found in ndimage.find_objects(np.searchsorted(names, named) * (named > 0) + (named > 0)):
        around = (slice(max(part.start - 2, 0), part.stop + 2) for part in found[-dims:])
        boxes.append((*(part.start for part in found[:-dims]), *around))
    return names.tolist(), boxes


def parted(inside: NDArray[np.bool_], depth: float) -> NDArray[np.int64]:
    """Return the parts of one object: what a flood from its summits reaches, in its own box and a pixel around."""
    box = ndimage.find_objects(inside.astype(int))[0]
    alone = np.pad(inside[box], 1)
    height = ndimage.gaussian_filter(far(alone), 1.0, mode="constant") * alone
    markers = rising(height, depth)
    parts = np.array(inside, np.int64)
    if height.max() > depth and markers.max() > 1:
        parts[box] = watershed(-height, markers, mask=alone)[(slice(1, -1),) * inside.ndim]
    return parts


def far(inside: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return how far each pixel is from the nearest that is not inside, by going through all of these."""
    outside = np.argwhere(~inside)
    found = np.zeros(inside.shape)
    for place in np.argwhere(inside):
        found[tuple(place)] = np.sqrt(((outside - place) ** 2).sum(axis=1).min())
    return found


def rising(height: NDArray[np.float64], depth: float) -> NDArray[np.int64]:
    """Return the summits, counted from 1: whoever goes up from one has to go down by a depth before.

    Each maximum is flooded, pixel by pixel, as far as nothing is lower than that.
    """
    heights = {place: float(height[place]) for place in np.ndindex(height.shape)}
    found, count = np.zeros(height.shape, np.int64), 0
    for start, top in heights.items():
        if top <= 0 or found[start] or any(heights[there] > top for there in touched(start, heights)):
            continue
        plateau = reached(heights, start, top)
        ends = any(heights[there] > top for here in plateau for there in touched(here, heights))
        if (
            not ends
            and max(heights[there] for there in reached(heights, start, top - depth, above=True)) <= top
        ):
            count += 1
            for there in plateau:
                found[there] = count
    return found


def reached(
    heights: dict[tuple[int, ...], float], start: tuple[int, ...], level: float, *, above: bool = False
) -> set[tuple[int, ...]]:
    """Return the pixels that a way leads to, over edges and corners too, all of it at a level, or above it."""
    found, todo = {start}, [start]
    while todo:
        for there in touched(todo.pop(), heights):
            if there not in found and (heights[there] > level if above else heights[there] == level):
                found.add(there)
                todo.append(there)
    return found


def touched(place: tuple[int, ...], heights: dict[tuple[int, ...], float]) -> list[tuple[int, ...]]:
    """Return the places that share a face, an edge or a corner with one, and that."""
    around = product(*((at - 1, at, at + 1) for at in place))
    return [there for there in around if there in heights]
