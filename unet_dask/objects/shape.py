"""Objects of a sheet in their final shape: filled, split, and rid of parts that are too small.

No step looks farther around an object than :data:`unet_dask.objects.sheet.GAP` voxels, so what becomes of one depends
on nothing else on its sheet.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from unet_dask.components import adjoining, labelled
from unet_dask.objects.runs import firsts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from unet_dask.objects.rule import ObjectRule

#: Standard deviation of the Gaussian that smooths the distance transform before it is split, in voxels: without it, a
#: step in the outline of a cell is a second maximum. It looks four times as far.
_SMOOTHED = 1.0


@dataclass(frozen=True, slots=True)
class Shapes:
    """What becomes of the objects of a sheet.

    Attributes
    ----------
    filled : object of every voxel, counted from 1; 0 for none
    parts : part of every voxel; 0 for none, and for parts that are too small. The first of each object has its number
    owners : object of each part, and of 0, none, which is 0
    """

    filled: NDArray[np.int32]
    parts: NDArray[np.int32]
    owners: NDArray[np.int32]

    def changed(self, voxels: NDArray[np.intp]) -> NDArray[np.intp]:
        """Return which objects, counted from 0, are not what they were, when they had so many voxels."""
        count = len(voxels)
        sizes = np.bincount(self.parts.reshape(-1), minlength=len(self.owners))[1 : count + 1]
        changed = sizes != voxels
        changed[self.owners[count + 1 :] - 1] = True
        return np.flatnonzero(changed)


def shaped(
    objects: NDArray[np.int32],
    boxes: Sequence[tuple[slice, ...]],
    rule: ObjectRule,
    free: NDArray[np.bool_] | None = None,
) -> Shapes:
    """Return what becomes of the objects of a sheet.

    Parameters
    ----------
    objects : connected pieces, counted from 1; 0 for none
    boxes : of each
    rule : what is done
    free : where holes may be filled; None for everywhere

    Examples
    --------
    >>> from unet_dask.objects.rule import ObjectRule
    >>> ring = np.pad(np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1]], np.int32), 4)
    >>> box = (slice(4, 7), slice(4, 7))
    >>> shaped(ring, [box], ObjectRule(fill_holes=True, min_size=9)).parts[box].tolist()
    [[1, 1, 1], [1, 1, 1], [1, 1, 1]]
    >>> bool(shaped(ring, [box], ObjectRule(min_size=9)).parts.any())
    False
    """
    filled = _filled(objects, free) if rule.fill_holes else objects
    parts, owners = filled, np.arange(len(boxes) + 1, dtype=np.int32)
    if rule.split:
        parts, owners = _split(filled, boxes, rule.split)
    if rule.min_size > 1:
        sizes = np.bincount(parts.reshape(-1), minlength=len(owners))
        kept = np.where(sizes < rule.min_size, 0, np.arange(len(owners), dtype=np.int32))
        parts = kept[parts]
    return Shapes(filled, parts, owners)


def _filled(objects: NDArray[np.int32], free: NDArray[np.bool_] | None) -> NDArray[np.int32]:
    """Return objects with what they enclose: what is not connected to the rim of the sheet."""
    around = labelled(objects == 0)
    around[around == around.flat[0]] = 0
    if not around.any():
        return objects
    # What lies before the first voxel of a hole is no part of the hole, so it is of the object around it.
    before = firsts(around, int(around.max())) - 1
    filled = objects + np.append(np.int32(0), objects.reshape(-1)[before])[around]
    return filled if free is None else np.where(free | (objects > 0), filled, 0)


def _split(
    objects: NDArray[np.int32], boxes: Sequence[tuple[slice, ...]], depth: float
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Return the parts of objects: basins of the distance transform, joined where the valley between is not so deep.

    Maxima that rise by `depth` above the valleys around them are the markers of a watershed (h-maxima: Soille 2003,
    Morphological Image Analysis, 6.3.5).
    """
    from scipy import ndimage

    inside = objects > 0
    height = ndimage.gaussian_filter(ndimage.distance_transform_edt(inside), _SMOOTHED, mode="constant")
    height[~inside] = 0
    peaks, count = peaks_of(height)
    owner = objects.reshape(-1)[firsts(peaks, count)]
    several = np.flatnonzero(np.bincount(owner, minlength=len(boxes) + 1) > 1)
    parts, owners = objects.copy(), [np.arange(len(boxes) + 1, dtype=np.int32)]
    last = len(boxes)
    for number in several.tolist():
        box = boxes[number - 1]
        found = basins(height[box], depth)
        if found is None:
            continue
        more = int(found.max()) - 1
        names = np.concatenate([[0, number], np.arange(last + 1, last + more + 1)])
        parts[box] = names[found]
        owners.append(np.full(more, number, np.int32))
        last += more
    return parts, np.concatenate(owners)


def basins(height: NDArray[np.float64], depth: float) -> NDArray[np.int32] | None:
    """Return the basins of the summits of a height, counted from 1; None if there is one at most.

    Parameters
    ----------
    height : 0 outside
    depth : of the valley between two summits
    """
    from skimage.segmentation import watershed

    if height.max() <= depth:  # such as a line, in which nothing is a summit
        return None
    markers, count = summits(height, depth)
    if count < 2:
        return None
    height = np.pad(height, 1)
    found = watershed(-height, np.pad(markers, 1), mask=height > 0).astype(np.int32)
    return np.ascontiguousarray(found[(slice(1, -1),) * found.ndim])


def summits(height: NDArray[np.float64], depth: float) -> tuple[NDArray[np.int32], int]:
    """Return the h-maxima of a height, counted from 1, and how many there are.

    A maximum is one if whoever leaves it for a higher place has to go down by `depth` at least: if nothing higher is
    connected to it above that level. Most heights have a maximum or two, and are done in a quarter of the time that a
    reconstruction takes.

    Parameters
    ----------
    height : not negative, 0 outside
    depth : above 0

    Examples
    --------
    >>> summits(np.array([0.0, 5.0, 4.5, 6.0, 1.0, 3.0, 0.0]), 1.0)
    (array([0, 0, 0, 1, 0, 2, 0], dtype=int32), 2)
    """
    peaks, count = peaks_of(height)
    places = firsts(peaks, count)
    tops = height.reshape(-1)[places]
    kept = [
        number + 1
        for number, top in enumerate(tops.tolist())
        if not _reaches(height, int(places[number]), top - depth, places[tops > top])
    ]
    names = np.zeros(count + 1, np.int32)
    names[kept] = np.arange(1, len(kept) + 1)
    return names[peaks], len(kept)


def _reaches(height: NDArray[np.float64], start: int, level: float, ends: NDArray[np.int64]) -> bool:
    """Return whether a way above a level leads from one place to any of others, which are higher."""
    from scipy import ndimage

    if not len(ends):
        return False
    connected = ndimage.label(height > level, np.ones((3,) * height.ndim, np.bool_))[0].reshape(-1)
    return bool((connected[ends] == connected[start]).any())


def peaks_of(height: NDArray[np.float64]) -> tuple[NDArray[np.int32], int]:
    """Return the maxima of a height, each with what is as high beside it, counted from 1; and how many there are."""
    from scipy import ndimage

    labels = np.empty(height.shape, np.int32)
    peaks = (height > 0) & (height == _highest_around(height))
    return labels, int(ndimage.label(peaks, np.ones((3,) * height.ndim, np.bool_), output=labels))


def _highest_around(height: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the highest of each voxel and all that share a face, an edge or a corner with it."""
    highest = height
    for low, high in adjoining(height.ndim, height.ndim):
        before, highest = highest, highest.copy()
        np.maximum(highest[low], before[high], out=highest[low])
        np.maximum(highest[high], before[low], out=highest[high])
    return highest
