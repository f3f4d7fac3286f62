"""Where to segment: a mask at any resolution, which may be a coarse level of the source itself.

A mask is not copied: it is the address of an array and a rule for its values, small enough to travel in tasks, and
each worker reads the window that it needs. What lies outside of the mask is background by decree, voxel by voxel, so
the result depends on the mask and not on regions or tiles.

A voxel of the source has the mask's value at the same place, of the pixel that covers it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Literal

import numpy as np

from unet_dask.axes import (
    by_axis,
    is_channel,
    is_lateral,
    is_spatial,
    is_time,
    space_of,
    times,
    without_channel,
)
from unet_dask.choices import AUTO
from unet_dask.errors import InputError
from unet_dask.io import remote
from unet_dask.io.source.volume import Source, SourceSpec, levels, open_source, read_window
from unet_dask.io.source.window import opened

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from unet_dask.io.source.pieces import Decoding

Interval = tuple[int, int]
#: How an array is read as a mask: "nonzero" in any channel, or "tissue", whose colours are saturated.
Rule = Literal["nonzero", "tissue"]

#: A level of the source is looked at for background if it has at most this many pixels per plane or volume.
_LARGEST_LEVEL = 1 << 24
#: Glass is grey: its saturation is some hundredths. Otsu's threshold may fall within pale tissue, where there is hardly
#: any glass; so it is never above this.
_MOST_SATURATION = 0.1
#: Pixels around what an automatic mask finds that belong to it: its level has averaged thin structures away.
_MARGIN = 2


@dataclass(frozen=True, slots=True)
class Mask:
    """A mask over a source.

    Attributes
    ----------
    spec : of the array that holds it
    axes, shape : of that array, canonical
    over_axes, over_shape : of the source
    rule : what its values mean
    threshold : of the saturation, for "tissue"
    margin : pixels of the mask that are added around what it holds
    """

    spec: SourceSpec
    axes: str
    shape: tuple[int, ...]
    over_axes: str
    over_shape: tuple[int, ...]
    rule: Rule = "nonzero"
    threshold: float = 0.0
    margin: int = 0

    def inside(self, box: Sequence[Interval]) -> NDArray[np.bool_]:
        """Return the mask over a box of the source.

        Parameters
        ----------
        box : (start, stop) per axis of the source

        Returns
        -------
        one value per voxel, without the channel axis
        """
        wanted = by_axis(self.over_axes, box)
        at = {
            axis: self.pixels(axis, np.arange(*wanted.get(axis, (0, 1))))
            for axis in without_channel(self.axes)
        }
        ranges = {axis: (int(pixels.min()), int(pixels.max()) + 1) for axis, pixels in at.items()}
        found = self.read(ranges)
        for position, axis in enumerate(ranges):
            found = np.take(found, at[axis] - ranges[axis][0], axis=position)
        # A mask of a plane holds for all planes.
        order = without_channel(self.over_axes)
        sizes = [wanted[axis][1] - wanted[axis][0] for axis in order]
        own = [axis for axis in ranges if axis in order]
        found = found.reshape([len(at[axis]) for axis in own])
        found = found[tuple(slice(None) if axis in own else np.newaxis for axis in order)]
        return np.ascontiguousarray(np.broadcast_to(found, sizes))

    def pixels(self, axis: str, voxels: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the pixels of the mask that cover voxels of the source, along one axis."""
        own, over = by_axis(self.axes, self.shape), by_axis(self.over_axes, self.over_shape)
        pairs = {name: (over.get(name, 1), size) for name, size in own.items()}
        size = own[axis]
        shared = _whole(pairs["y"], pairs["x"]) if is_lateral(axis) else None
        within = Fraction(shared or _whole(pairs[axis]) or Fraction(*pairs[axis]))
        return np.minimum(voxels * within.denominator // within.numerator, size - 1)

    def read(self, ranges: dict[str, Interval]) -> NDArray[np.bool_]:
        """Return the mask's own pixels, per axis but the channels."""
        own = by_axis(self.axes, self.shape)
        wide = {
            axis: (max(start - self.margin, 0), min(stop + self.margin, own[axis]))
            if is_spatial(axis)
            else (start, stop)
            for axis, (start, stop) in ranges.items()
        }
        window = tuple(slice(0, own[axis]) if is_channel(axis) else slice(*wide[axis]) for axis in self.axes)
        values = np.moveaxis(read_window(self.spec, window), self.axes.index("c"), 0)
        found = saturation(values) > self.threshold if self.of_tissue else (values != 0).any(axis=0)
        for position, axis in enumerate(wide):
            if self.margin and is_spatial(axis):
                found = _widened(found, self.margin, position)
        inner = tuple(
            slice(start - wide[axis][0], stop - wide[axis][0]) for axis, (start, stop) in ranges.items()
        )
        return np.asarray(found[inner], np.bool_)

    @property
    def of_tissue(self) -> bool:
        """Whether it holds what has colour."""
        return self.rule == "tissue"

    @property
    def voxel_bytes(self) -> float:
        """The most bytes that :meth:`inside` has at once, per voxel of its box.

        Per pixel: values of all channels and which of them are not 0, or the saturation of colours and what it is
        made of; what is found, and that with its margin. Per voxel: the mask along the last axis, whole, and its
        complement.
        """
        channels = self.shape[self.axes.index("c")]
        pixel = channels * (opened(self.spec).dtype.itemsize + 1) + (16 if self.of_tissue else 2)
        own, over = by_axis(self.axes, self.shape), by_axis(self.over_axes, self.over_shape)
        share = math.prod(
            min(own[axis] / max(over.get(axis, own[axis]), 1), 1) for axis in without_channel(own)
        )
        return share * pixel + 4

    @property
    def decoding(self) -> Decoding:
        """What reading the mask takes beside :attr:`voxel_bytes`."""
        return opened(self.spec).decoding

    @property
    def address(self) -> str:
        """Path or URL by which the mask can be opened again, without secrets."""
        return "/".join(part for part in (remote.source_aliases(self.spec.url), self.spec.key) if part)

    def identity(self) -> dict[str, str]:
        """Return what makes this mask this mask, for the fingerprint of a run."""
        source = open_source(
            self.spec.url, key=self.spec.key, axes=self.spec.axes, channels=self.spec.channels
        )
        named = {name.replace("source.", "mask."): value for name, value in source.identity().items()}
        return named | {"mask.rule": f"{self.rule} {self.threshold:.6g} {self.margin}"}


def find_mask(name: str | None, source: Source) -> Mask | None:
    """Return the mask of a name: a path, "auto" to look for what is not empty, None for none."""
    if name is None:
        return None
    return automatic_mask(source, list(levels(source))) if name == AUTO else open_mask(name, source)


def open_mask(path: str, source: Source) -> Mask:
    """Open a mask that the user made.

    Parameters
    ----------
    path : of a Zarr array or OME-Zarr image; what is not 0 in any channel is to be segmented
    source : that it is over

    Raises
    ------
    InputError
        If there is no such array, or it cannot be over the source.
    """
    found = open_source(path, dims=len(space_of(source.axes)))
    sizes, over = found.sizes, source.sizes
    extra = any(sizes[axis] > 1 and axis not in over for axis in without_channel(found.axes))
    if extra or not {"y", "x"} <= sizes.keys():
        raise InputError(
            f"The mask {found.name} has the axes {found.axes}, but the source has {source.axes}. Make a mask of the "
            "source's axes, or of y and x, which then holds for all planes."
        )
    one = _one_factor(*((over[axis], sizes[axis]) for axis in "yx"))
    for axis in without_channel(axis for axis in sizes if axis in over):
        fits = sizes[axis] <= over[axis] and (one or not is_lateral(axis))
        if not fits or (is_time(axis) and sizes[axis] not in (1, over[axis])):
            raise InputError(
                f"The mask {found.name} is {_sizes(found)} pixels and the source {_sizes(source)}: they cannot be "
                "the same field. Make the mask from a level of the source's pyramid."
            )
    return Mask(found.spec, found.axes, found.shape, source.axes, source.shape)


def automatic_mask(source: Source, coarser: Sequence[Source]) -> Mask:
    """Return the mask of what is not empty on a coarse level of the source.

    Where the source is an RGB image, that is what has colour: saturation above Otsu's threshold [1]_. Otherwise
    it is what is not zero in some channel.

    Parameters
    ----------
    source : to segment
    coarser : levels of its pyramid, the finest first; the source alone if it has none

    Raises
    ------
    InputError
        If every level is too large to be looked at.

    References
    ----------
    .. [1] Otsu: "A threshold selection method from gray-level histograms", IEEE Trans. SMC 9(1), 1979.
    """
    small = [level for level in coarser if _extent(level) <= _LARGEST_LEVEL]
    if not small:
        raise InputError(
            f"{source.name} has no level of at most {_LARGEST_LEVEL >> 20} Mpixel, on which background could be looked "
            "for. Make a mask of lower resolution and name it with --mask PATH."
        )
    level = small[0]
    mask = Mask(level.spec, level.axes, level.shape, source.axes, source.shape, margin=_MARGIN)
    if level.shape[level.axes.index("c")] != 3 or level.dtype != np.uint8:
        return mask
    from skimage.filters import threshold_otsu

    values = np.moveaxis(level.read(tuple(slice(0, size) for size in level.shape)), level.axes.index("c"), 0)
    found = saturation(values)
    threshold = float(threshold_otsu(found)) if float(np.ptp(found)) else 0.0
    return replace(mask, rule="tissue", threshold=min(threshold, _MOST_SATURATION))


def saturation(values: NDArray[np.generic]) -> NDArray[np.float32]:
    """Return the saturation of (3, *spatial) uint8 colours, as in HSV: 0 for grey, black included, to 1.

    Examples
    --------
    >>> saturation(np.array([[200, 240, 0], [100, 240, 0], [100, 240, 0]], "u1")).tolist()
    [0.5, 0.0, 0.0]
    """
    red, green, blue = values  # numpy takes ten times as long along an axis of three
    high = np.maximum(np.maximum(red, green), blue)
    low = np.minimum(np.minimum(red, green), blue)
    share: NDArray[np.float32] = np.divide(high - low, np.maximum(high, 1), dtype=np.float32)
    return share


def _whole(*pairs: tuple[int, int]) -> int | None:
    """Return the whole number that axes were divided by, given their (length, length of the mask); None if none fits.

    Each length may be rounded up or down. Of several numbers the one nearest to the ratio of the longest axis, which
    says most; of two as near the even one, since pyramids halve.

    Examples
    --------
    >>> _whole((1001, 501)), _whole((6, 2), (36, 8)), _whole((10, 7))
    (2, 5, None)
    """
    over, size = max(pairs)
    least, most = over // (size + 1), -(-over // max(size - 1, 1))
    fitting = [
        factor for factor in range(max(least, 1), most + 1) if all(_divided(*pair, factor) for pair in pairs)
    ]
    return min(fitting, key=lambda factor: (abs(factor - over / size), factor % 2), default=None)


def _divided(over: int, size: int, factor: int) -> bool:
    """Return whether an axis divided by a factor has so many pixels, rounded up or down."""
    return size in (max(over // factor, 1), -(-over // factor))


def _one_factor(*pairs: tuple[int, int]) -> bool:
    """Return whether axes may have been divided by one factor, each rounded up or down: by less than a pixel.

    Of a narrow image a pixel is much: 23 pixels are 8 by every third, as they would be by every 2.6th.

    Examples
    --------
    >>> _one_factor((379, 127), (23, 8)), _one_factor((379, 127), (23, 12))
    (True, False)
    """
    least = max(Fraction(over, size + 1) for over, size in pairs)
    most = (
        min(Fraction(over, size - 1) for over, size in pairs if size > 1)
        if any(s > 1 for _, s in pairs)
        else None
    )
    return most is None or least < most


def _widened(found: NDArray[np.bool_], margin: int, axis: int) -> NDArray[np.bool_]:
    """Return what is at most so many pixels away along an axis from what was found."""
    wide = found.copy()
    along, into = np.moveaxis(found, axis, 0), np.moveaxis(wide, axis, 0)
    for shift in range(1, min(margin, len(along) - 1) + 1):
        into[shift:] |= along[:-shift]
        into[:-shift] |= along[shift:]
    return wide


def _extent(level: Source) -> int:
    """Return the pixels of a level, all channels of a pixel counted once."""
    return math.prod(level.sizes[axis] for axis in without_channel(level.axes))


def _sizes(source: Source) -> str:
    return times(f"{axis} {source.sizes[axis]}" for axis in without_channel(source.axes))
