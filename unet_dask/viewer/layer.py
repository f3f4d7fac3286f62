"""What a tile is read from: the level that fits, one window of it, and never more than a bounded number of voxels.

Chunks are decoded whole, so what counts is not the window but the chunks that it touches. A tile at full size is
always read: going closer would not make it cheaper.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from unet_dask.levels import product_levels
from unet_dask.picture.plane import (
    factors_of,
    fitting_level,
    read_level,
    read_source,
    source_levels,
    unwritten,
)
from unet_dask.products import product_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from unet_dask.io.sink.manifest import ArrayRecord, Manifest
    from unet_dask.io.source.volume import Source
    from unet_dask.picture.plane import View

    Plane = NDArray[np.generic]

#: Voxels that are decoded for one tile at most, some tenths of a second of work.
MOST_DECODED = 1 << 26


class TooFarOutError(Exception):
    """A tile would need more voxels than are read at once; one that is closer needs fewer."""


class StoredProduct:
    """A product of a result, with its pyramid.

    Parameters
    ----------
    url : of the sink
    manifest : of the run
    entry : of the product in it
    """

    def __init__(self, url: str, manifest: Manifest, entry: ArrayRecord) -> None:
        self.axes = entry.axes
        self._levels = product_levels(url, manifest, entry)
        self.kind = product_of(entry.name, str(self._levels[0].dtype))

    def plane(self, view: View, *, complete: bool) -> Plane:
        """Return what a tile shows, (y, x) or (c, y, x), of unwritten voxels the sentinel.

        Parameters
        ----------
        view : the tile
        complete : whether the run is. Coarser levels are made last: until then a hole in one of them may be filled
            in a finer one, which is looked at too.

        Raises
        ------
        TooFarOutError
            If that takes too many voxels.
        """
        shapes = [each.shape for each in self._levels]
        for number in range(fitting_level(shapes, self.axes, view.step), -1, -1):
            level = self._levels[number]
            factors = factors_of(shapes[0], level.shape)
            _require_bounded(view, self.axes, view.window, level.chunks, factors)
            plane = read_level(level, self.axes, view, factors=factors)
            if complete or not unwritten(plane).any():
                break
        return plane

    def voxel(self, at: Mapping[str, int]) -> NDArray[np.generic]:
        """Return the value of a voxel, in all channels."""
        return np.asarray(self._levels[0][tuple(at.get(axis, slice(None)) for axis in self.axes)])


class Image:
    """The source of a result, with the pyramid that it may have.

    Parameters
    ----------
    source : its finest level
    """

    def __init__(self, source: Source) -> None:
        self.axes = source.axes
        self.channels = source.shape[source.axes.index("c")]
        self.names = source.spec.channels or tuple(range(self.channels))
        self._levels = source_levels(source)

    def plane(self, view: View, channels: tuple[int, int]) -> NDArray[np.float32]:
        """Return what a tile shows of channels from the first to before the last, (c, y, x).

        Raises
        ------
        TooFarOutError
            If that takes too many voxels.
        """
        shapes = [each.shape for each in self._levels]
        level = self._levels[fitting_level(shapes, self.axes, view.step)]
        factors = factors_of(shapes[0], level.shape)
        stored = dict(zip(level.spec.axes, level.decoding.chunk, strict=True))
        chunks = tuple(stored.get(axis, 1) for axis in self.axes)
        _require_bounded(view, self.axes, view.in_source, chunks, factors)
        return read_source(level, view, factors, channels)

    def voxel(self, at: Mapping[str, int]) -> NDArray[np.generic]:
        """Return the values of a voxel, all channels."""
        window = (
            slice(at[axis], at[axis] + 1) if axis in at else slice(0, self.channels) for axis in self.axes
        )
        return self._levels[0].read(tuple(window)).ravel()


def _require_bounded(
    view: View,
    axes: str,
    window: tuple[tuple[int, int], tuple[int, int]],
    chunks: Sequence[int],
    factors: Sequence[int],
) -> None:
    """Raise if a tile touches chunks of too many voxels, unless it is one at full size."""
    if view.step > 1 and decoded(axes, window, chunks, factors) > MOST_DECODED:
        raise TooFarOutError


def decoded(
    axes: str, window: tuple[tuple[int, int], tuple[int, int]], chunks: Sequence[int], factors: Sequence[int]
) -> int:
    """Return the voxels of the chunks that a window of a plane touches.

    Parameters
    ----------
    axes : of the array
    window : along y and x, in voxels of the finest level
    chunks, factors : of the level that is read, per axis

    Examples
    --------
    >>> decoded("yx", ((0, 100), (60, 70)), (64, 64), (1, 1))
    16384
    """
    along = dict(zip("yx", window, strict=True))
    touched = []
    for axis, chunk, factor in zip(axes, chunks, factors, strict=True):
        start, stop = (along[axis][0] // factor, -(-along[axis][1] // factor)) if axis in along else (0, 1)
        touched.append((-(-max(stop, start + 1) // chunk) - start // chunk) * chunk)
    return math.prod(touched)
