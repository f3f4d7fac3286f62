"""A stored array as images of (c, *spatial), in memory or window by window.

A network of two dimensions takes the planes of a stack for images of their own, one of three takes a stack for
one volume. Which axes of an array are planes, channels and space is decided here, once and from their names alone,
so that a window is cut up as the whole array would be.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from unet_dask.axes import by_axis, has_depth, without_channel
from unet_dask.errors import InputError
from unet_dask.io import remote
from unet_dask.io.source import formats, resolve
from unet_dask.io.source.statistics import windows
from unet_dask.io.source.volume import open_source
from unet_dask.spacing import known_spacing

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from unet_dask.io.source.volume import Source
    from unet_dask.tiling.box import Window


@dataclass(frozen=True, slots=True)
class Layout:
    """Where channels, planes and space are among the axes of an array.

    Attributes
    ----------
    order : positions of the axes of planes, of channels and of space
    channels : how many there are
    planes : sizes of the axes along which planes are stacked: t, and z where the network does not look along it
    spatial : sizes of the axes of space
    """

    order: tuple[int, ...]
    channels: int
    planes: tuple[int, ...]
    spatial: tuple[int, ...]

    @property
    def count(self) -> int:
        """How many images it holds."""
        return math.prod(self.planes)

    @property
    def sides(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """What an image and its target have in common: sizes of planes of which there are several, and of space."""
        return tuple(size for size in self.planes if size != 1), self.spatial

    def __str__(self) -> str:
        planes, space = self.sides
        return f"{'x'.join(map(str, planes or (1,)))} of {'x'.join(map(str, space))}"

    def arranged(self, array: NDArray[np.generic]) -> NDArray[np.generic]:
        """Return the array as (n, c, *spatial)."""
        return array.transpose(self.order).reshape(-1, self.channels, *self.spatial)


def layout_of(shape: Sequence[int], axes: str, *, dims: int, name: str) -> Layout:
    """Return the layout of an array for a network of `dims` dimensions.

    Parameters
    ----------
    shape : of the array
    axes : canonical, one letter per axis
    dims : of the network
    name : for the message

    Raises
    ------
    InputError
        If there are too few dimensions, or time would be taken for depth.

    Examples
    --------
    >>> layout_of((7, 1, 64, 48), "zcyx", dims=2, name="a")
    Layout(order=(0, 1, 2, 3), channels=1, planes=(7,), spatial=(64, 48))
    >>> layout_of((5, 2, 9, 64, 48), "tczyx", dims=3, name="a")
    Layout(order=(0, 1, 2, 3, 4), channels=2, planes=(5,), spatial=(9, 64, 48))
    """
    sizes, space = by_axis(axes, shape), "zyx"[-dims:]
    if dims == 3 and not has_depth(axes):
        if sizes.get("t", 1) > 1:
            raise InputError(
                f"{name} has the axes {axes.upper()}, and time is no depth to a network of 3 dimensions. Use --dims 2, "
                "or save it with an axis z."
            )
        raise InputError(
            f"{name} is an array of {tuple(shape)}, too few dimensions for a network of 3. A network of --dims 2 may "
            "fit."
        )
    planes = [axis for axis in without_channel(axes) if axis not in space]
    return Layout(
        order=tuple(map(axes.index, (*planes, "c", *space))),
        channels=sizes["c"],
        planes=tuple(sizes[axis] for axis in planes),
        spatial=tuple(sizes[axis] for axis in space),
    )


@dataclass(frozen=True, slots=True)
class Stack:
    """A source as images of (c, *spatial) that are read window by window.

    Attributes
    ----------
    name : for messages
    source : the array
    layout : of it, in its canonical axes
    """

    name: str
    source: Source
    layout: Layout

    @property
    def spatial(self) -> str:
        """Letters of the axes of space."""
        return "zyx"[-len(self.layout.spatial) :]

    @property
    def spacing(self) -> tuple[float, ...] | None:
        """Pixel size per axis of space, if the store states it."""
        return known_spacing(self.source.spacing, self.source.unit, self.spatial)[0]

    @property
    def unit(self) -> str | None:
        """Unit of the pixel size."""
        return known_spacing(self.source.spacing, self.source.unit, self.spatial)[1]

    @property
    def leading(self) -> str:
        """Letters of the axes before space, without channels: at most t and z."""
        return "".join(axis for axis in self.source.axes if axis not in f"c{self.spatial}")

    def read(self, planes: range, box: Window) -> NDArray[np.generic]:
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
        window = {"c": slice(0, self.layout.channels)} | dict(zip(self.spatial, box, strict=True))
        if self.leading:
            inner = self.layout.planes[-1]
            first = planes.start % inner
            window[self.leading[-1]] = slice(first, first + len(planes))
        if len(self.leading) == 2:
            outer = planes.start // self.layout.planes[-1]
            window["t"] = slice(outer, outer + 1)
        values = self.source.read(tuple(window[axis] for axis in self.source.axes))
        # tczyx: the channels come before the planes of a network of two dimensions, after those of three.
        position = self.source.axes.index("c")
        flat = np.moveaxis(values, position, -len(box) - 1)
        return flat.reshape(len(planes), self.layout.channels, *flat.shape[-len(box) :])

    def blocks(self) -> Iterator[tuple[range, Window]]:
        """Yield windows of whole chunks, about 16 Mpixel, that cover the array once."""
        for _, window in windows(self.source):
            spans = by_axis(self.source.axes, window)
            box = tuple(spans[axis] for axis in self.spatial)
            leading = [spans[axis] for axis in self.leading]
            inner = leading[-1] if leading else slice(0, 1)
            size = self.layout.planes[-1] if leading else 1
            outer = leading[0] if len(leading) == 2 else slice(0, 1)
            for each in range(outer.start, outer.stop):
                yield range(each * size + inner.start, each * size + inner.stop), box


def open_stack(place: str, key: str | None, *, dims: int, axes: str | None = None) -> Stack:
    """Open an array or a file, by the rules of every command, to be read as images of `dims` dimensions.

    Parameters
    ----------
    place : path or URL of a store, or of a group or array in one; path of a TIFF or PNG
    key : path of a group or array below it
    dims : of the network
    axes : of the stored array; overrides what the store says

    Raises
    ------
    InputError
        If there is no such image, or nobody knows what its axes are.
    """
    if axes is None and _is_colour(place, key, dims):
        # Without names, a last axis of 3 or 4 is colour, and a fourth colour alpha.
        source = open_source(place, key=key, axes="zyx"[-dims:] + "c", channels=range(3))
    else:
        source = open_source(place, key=key, axes=axes, dims=dims)
    name = remote.redact_url(place).rstrip("/").rpartition("/")[2] or place
    return Stack(name, source, layout_of(source.shape, source.axes, dims=dims, name=name))


def axes_for(place: str, key: str | None, axes: str | None) -> str | None:
    """Return the axes that were said of images where they fit the targets of these and nothing else is known.

    Examples
    --------
    Targets (y, x) of images said to be "cyx" are "yx"; those that name their axes need no telling.
    """
    if axes is None:
        return None
    location, inner = resolve.locate(place, key)
    chosen = resolve.choose(location, inner, None)
    fitting = [each for each in (axes, axes.replace("c", "")) if len(each) == len(chosen.node.shape)]
    return fitting[0] if fitting and not resolve.named_axes(chosen) else None


def _is_colour(place: str, key: str | None, dims: int) -> bool:
    """Tell whether the last axis of an array in Zarr without names of its axes is colour; files say what theirs are."""
    if not formats.reads_zarr(place):
        return False
    chosen = resolve.choose(*resolve.locate(place, key), None)
    shape = chosen.node.shape
    fits = len(shape) == dims + 1 and shape[-1] in (3, 4) and shape[-2] > 4
    return fits and not resolve.named_axes(chosen)
