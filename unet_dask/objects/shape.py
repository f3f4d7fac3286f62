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
    from skimage.segmentation import watershed

    inside = objects > 0
    height = ndimage.gaussian_filter(ndimage.distance_transform_edt(inside), _SMOOTHED, mode="constant")
    height[~inside] = 0
    peaks, count = peaks_of(height)
    first = firsts(peaks, count)
    owner, places = objects.reshape(-1)[first], np.stack(np.unravel_index(first, height.shape), axis=1)
    parts, owners = objects.copy(), [np.arange(len(boxes) + 1, dtype=np.int32)]
    last = len(boxes)
    for number in np.flatnonzero(np.bincount(owner) > 1).tolist():
        around = tuple(slice(span.start - 1, span.stop + 1) for span in boxes[number - 1])
        own = np.flatnonzero(owner == number)
        rises = rising(height[around], places[own] - [span.start for span in around], depth)
        more = int(np.count_nonzero(rises)) - 1
        if more < 1:
            continue
        markers = np.zeros(count + 1, np.int32)
        markers[1 + own[rises]] = [number, *range(last + 1, last + more + 1)]
        parts[around] = watershed(-height[around], markers[peaks[around]], mask=inside[around])
        owners.append(np.full(more, number, np.int32))
        last += more
    return parts, np.concatenate(owners)


def rising(height: NDArray[np.float64], places: NDArray[np.intp], depth: float) -> NDArray[np.bool_]:
    """Return which maxima of a height are summits, or h-maxima.

    A maximum is one if whoever leaves it for a higher place has to go down by `depth` at least: if nothing higher is
    connected to it above that level. Most heights have a maximum or two, and are done in a quarter of the time that a
    reconstruction takes.

    Parameters
    ----------
    height : of one object, 0 outside
    places : (n, axes) of the maxima, all there are
    depth : above 0

    Examples
    --------
    >>> rising(np.array([0.0, 5.0, 4.5, 6.0, 1.0, 3.0, 0.0]), np.array([[1], [3], [5]]), 1.0).tolist()
    [False, True, True]
    """
    from scipy import ndimage

    at = tuple(places.T)
    tops = height[at]
    # To leave what is lower than that is to go down to the ground; of a line, say, nothing is a summit.
    rises: NDArray[np.bool_] = (tops >= depth) & (tops.max(initial=0) > depth)
    everywhere = np.ones((3,) * height.ndim, np.bool_)
    for number, top in enumerate(tops.tolist()):
        higher = tops > top
        if rises[number] and higher.any():
            connected = ndimage.label(height > top - depth, everywhere)[0][at]
            rises[number] = not (connected[higher] == connected[number]).any()
    return rises


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
