"""One object, in its own bounding box: filled, split, and rid of parts that are too small."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from unet_dask.objects.rule import ObjectRule

#: Standard deviation of the Gaussian that smooths the distance transform before it is split, in voxels: without it, a
#: step in the outline of a cell is a second maximum.
_SMOOTHED = 1.0


@dataclass(frozen=True, slots=True)
class Shape:
    """What becomes of one connected piece, in its own bounding box.

    Attributes
    ----------
    filled : all that belongs to it
    parts : 1 for its first part, 2 for the next, 0 elsewhere and for parts that are too small
    """

    filled: NDArray[np.bool_]
    parts: NDArray[np.int32]


def shaped(piece: NDArray[np.bool_], rule: ObjectRule, free: NDArray[np.bool_] | None = None) -> Shape:
    """Return what becomes of one connected piece.

    Parameters
    ----------
    piece : where it is, in its own bounding box
    rule : what is done
    free : where it may grow; None for everywhere

    Examples
    --------
    >>> from unet_dask.objects.rule import ObjectRule
    >>> ring = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1]], bool)
    >>> shaped(ring, ObjectRule(fill_holes=True, min_size=9)).parts.tolist()
    [[1, 1, 1], [1, 1, 1], [1, 1, 1]]
    >>> bool(shaped(ring, ObjectRule(min_size=9)).parts.any())
    False
    """
    from scipy import ndimage

    if rule.fill_holes:
        filled = ndimage.binary_fill_holes(piece)
        piece = filled if free is None else filled & (free | piece)
    parts = _split(piece, rule.split) if rule.split else piece.astype(np.int32)
    if rule.min_size > 1:
        sizes = np.bincount(parts.reshape(-1))
        parts[sizes[parts] < rule.min_size] = 0
    return Shape(piece, parts)


def _split(piece: NDArray[np.bool_], depth: float) -> NDArray[np.int32]:
    """Return the parts of a piece: basins of its distance transform, joined where the valley between is not so deep.

    Maxima that rise by `depth` above the valleys around them are the markers of a watershed (h-maxima: Soille 2003,
    Morphological Image Analysis, 6.3.5).
    """
    from scipy import ndimage
    from skimage.segmentation import watershed

    inside = np.pad(piece, 1)
    height = ndimage.gaussian_filter(ndimage.distance_transform_edt(inside), _SMOOTHED, mode="constant")
    height[~inside] = 0
    if height.max() <= depth:  # such as a line, in which nothing is a summit
        return piece.astype(np.int32)
    markers, count = summits(height, depth)
    if count < 2:
        return piece.astype(np.int32)
    parts = watershed(-height, markers, mask=inside).astype(np.int32)
    return np.ascontiguousarray(parts[(slice(1, -1),) * piece.ndim])


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
    from scipy import ndimage

    around = np.ones((3,) * height.ndim, np.bool_)
    peaks = (height > 0) & (height == ndimage.maximum_filter(height, footprint=around))
    labels, count = ndimage.label(peaks, around)
    if count < 2:
        return labels.astype(np.int32), count
    kept = [number for number in range(1, count + 1) if _rises(height, labels == number, depth, around)]
    names = np.zeros(count + 1, np.int32)
    names[kept] = np.arange(1, len(kept) + 1)
    return names[labels], len(kept)


def _rises(
    height: NDArray[np.float64], peak: NDArray[np.bool_], depth: float, around: NDArray[np.bool_]
) -> bool:
    """Return whether nothing higher is connected to a peak above its height less a depth."""
    from scipy import ndimage

    first = np.unravel_index(np.argmax(peak), peak.shape)
    top = height[first]
    connected = ndimage.label(height > top - depth, around)[0]
    return bool(height[connected == connected[first]].max() <= top)
