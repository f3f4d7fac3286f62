"""A stored array as images of (c, *spatial), in memory or window by window.

A network of two dimensions takes the planes of a stack for images of their own, one of three takes a stack for
one volume. Which axes of an array are planes, channels and space is decided here, once and from the shape alone,
so that a window is cut up as the whole array would be.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from unet_dask.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from unet_dask.io.source.volume import Source

#: One span per spatial axis, in pixels.
Box = tuple[slice, ...]


@dataclass(frozen=True, slots=True)
class Layout:
    """Where channels, planes and space are among the axes of an array.

    Attributes
    ----------
    channel : position of the axis of channels, None if there is none
    channels : how many are kept: alpha is not
    planes : sizes of the axes that come before space, without channels
    spatial : sizes of the axes of space
    """

    channel: int | None
    channels: int
    planes: tuple[int, ...]
    spatial: tuple[int, ...]

    @property
    def count(self) -> int:
        """How many images it holds."""
        return math.prod(self.planes)

    def arranged(self, array: NDArray[np.generic]) -> NDArray[np.generic]:
        """Return the array as (n, c, *spatial)."""
        last = array[..., np.newaxis] if self.channel is None else np.moveaxis(array, self.channel, -1)
        kept = last[..., : self.channels]
        planes = kept.reshape(-1, *self.spatial, self.channels)
        return np.moveaxis(planes, -1, 1)


def layout_of(shape: Sequence[int], axes: str | None, *, dims: int, name: str) -> Layout:
    """Return the layout of an array for a network of `dims` dimensions.

    Parameters
    ----------
    shape : of the array
    axes : one letter per axis as TIFF has them (C or S for channels), None or other letters if nobody knows;
        then a last axis of 3 or 4 is colour
    dims : of the network
    name : for the message

    Raises
    ------
    InputError
        If there are too few dimensions.

    Examples
    --------
    >>> layout_of((7, 64, 48), "ZYX", dims=2, name="a")
    Layout(channel=None, channels=1, planes=(7,), spatial=(64, 48))
    >>> layout_of((64, 48, 4), None, dims=2, name="a")
    Layout(channel=2, channels=3, planes=(), spatial=(64, 48))
    """
    count = len(shape)
    if axes is None or len(axes) != count or not set(axes) <= set("CSZYXTIQR"):
        axes = "Q" * count
    channel = next((axes.index(letter) for letter in "SC" if letter in axes), None)
    colour = "S" in axes
    if channel is None and count > dims and _looks_like_colour(shape, axes):
        channel, colour = count - 1, True
    channels = 1 if channel is None else shape[channel]
    others = tuple(size for position, size in enumerate(shape) if position != channel)
    if len(others) < dims:
        raise InputError(
            f"{name} is an array of {tuple(shape)}, too few dimensions for a network of "
            f"{dims}. A network of --dims {max(len(others), 2)} may fit."
        )
    kept = channels - 1 if colour and channels in (2, 4) else channels
    return Layout(channel, kept, others[:-dims], others[-dims:])


def _looks_like_colour(shape: Sequence[int], axes: str) -> bool:
    """Whether the last axis of an array without axis names is colour."""
    return axes[-1] == "Q" and shape[-1] in (3, 4) and len(shape) >= 3 and shape[-2] > 4


@dataclass(frozen=True, slots=True)
class Stack:
    """A Zarr array as images of (c, *spatial) that are read window by window.

    Attributes
    ----------
    name : for messages
    source : the array, with planes named t and z
    layout : of the stored array
    """

    name: str
    source: Source
    layout: Layout

    def read(self, planes: range, box: Box) -> NDArray[np.generic]:
        """Return a window.

        Parameters
        ----------
        planes : neighbours, all of one t
        box : in the plane or volume

        Returns
        -------
        (n, c, *box) in the stored data type

        Raises
        ------
        DataError
            If a chunk is damaged.
        UnreachableError
            If the store does not answer.
        """
        window = {"c": slice(0, self.layout.channels)}
        if self.layout.planes:
            inner = self.layout.planes[-1]
            first = planes.start % inner
            window[_leading(self.layout)[-1]] = slice(first, first + len(planes))
        if len(self.layout.planes) == 2:
            outer = planes.start // self.layout.planes[-1]
            window["t"] = slice(outer, outer + 1)
        spatial = "zyx"[-len(box) :]
        window |= dict(zip(spatial, box, strict=True))
        values = self.source.read(tuple(window[axis] for axis in self.source.axes))
        # tczyx: the channels come before the planes of a network of two dimensions, after those of three.
        position = self.source.axes.index("c")
        flat = np.moveaxis(values, position, -len(box) - 1)
        return flat.reshape(len(planes), self.layout.channels, *flat.shape[-len(box) :])

    def blocks(self) -> Iterator[tuple[range, Box]]:
        """Yield windows of whole chunks, about 16 Mpixel, that cover the array once."""
        from unet_dask.io.source.statistics import windows

        dims, axes = len(self.layout.spatial), self.source.axes
        for _, window in windows(self.source):
            spans = dict(zip(axes, window, strict=True))
            box = tuple(spans[axis] for axis in "zyx"[-dims:])
            leading = [spans[axis] for axis in _leading(self.layout)]
            inner = leading[-1] if leading else slice(0, 1)
            size = self.layout.planes[-1] if leading else 1
            outer = leading[0] if len(leading) == 2 else slice(0, 1)
            for each in range(outer.start, outer.stop):
                yield range(each * size + inner.start, each * size + inner.stop), box


def _leading(layout: Layout) -> str:
    """Return letters for the axes before space."""
    return ("", "z" if len(layout.spatial) == 2 else "t", "tz")[len(layout.planes)]


def open_stack(path: Path, key: str, layout: Layout) -> Stack:
    """Open an array of a known layout to be read window by window.

    Parameters
    ----------
    path : of the store
    key : of the array in it, "" if the path is that of the array
    layout : see :func:`layout_of`

    Raises
    ------
    InputError
        If it has more axes than planes, channels and space, or cannot be opened.
    """
    from unet_dask.io.source.volume import open_source

    if len(layout.planes) > 4 - len(layout.spatial):
        raise InputError(
            f"{path.name} has {len(layout.planes)} axes before those of a network of {len(layout.spatial)} "
            f"dimensions, too many to be sampled where it lies. Save one image or stack as an array of its own."
        )
    letters = _leading(layout) + "zyx"[-len(layout.spatial) :]
    if layout.channel is not None:
        letters = f"{letters[: layout.channel]}c{letters[layout.channel :]}"
    kept = range(layout.channels) if layout.channel is not None else None
    return Stack(path.name, open_source(path, key=key or None, axes=letters, channels=kept), layout)
