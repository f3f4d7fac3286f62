"""Planes as pixels: what a tile of the page looks like."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from unet_dask.picture.colour import class_paint, hatching, object_paint
from unet_dask.picture.plane import unwritten

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Plane = NDArray[Any]
    #: (y, x, 4) uint8
    Pixels = NDArray[np.uint8]


def grey_pixels(plane: Plane, low: float, high: float) -> Pixels:
    """Return channels (c, y, x), one or three, stretched from a range of values; not a number is black."""
    stretched = np.clip((np.nan_to_num(plane, nan=low) - low) / max(high - low, 1e-9), 0, 1)
    return _pixels(np.moveaxis(np.broadcast_to(stretched, (3, *plane.shape[1:])), 0, -1))


def class_pixels(classes: Plane) -> Pixels:
    """Return classes in their colours; background and what was never written are transparent."""
    inside, colour = class_paint(classes)
    return _over_nothing(inside, colour)


def object_pixels(numbers: Plane) -> Pixels:
    """Return every object in a colour of its own; background and what was never written are transparent."""
    inside, colour = object_paint(numbers)
    return _over_nothing(inside, colour)


def probability_pixels(probability: NDArray[np.float32], holes: NDArray[np.bool_]) -> Pixels:
    """Return probabilities in [0, 1] in the colours of the preview; what was never written is transparent."""
    rank = np.rint(255 * np.clip(np.nan_to_num(probability), 0, 1)).astype(np.uint8)
    return np.where(holes[..., np.newaxis], np.uint8(0), _viridis()[rank])


def hole_pixels(products: list[Plane], corner: tuple[int, int]) -> Pixels:
    """Return stripes where any product was never written; all else is transparent."""
    holes = np.logical_or.reduce([unwritten(plane) for plane in products])
    return _pixels(hatching(holes, corner))


def png(pixels: Pixels) -> bytes:
    """Return pixels as a PNG, pressed lightly: it only travels within the machine."""
    import imageio.v3

    return imageio.v3.imwrite("<bytes>", pixels, extension=".png", plugin="pillow", compress_level=1)


def _over_nothing(inside: NDArray[np.bool_], colour: NDArray[np.float32]) -> Pixels:
    picture = np.zeros((*inside.shape, 4), np.float32)
    picture[inside, :3] = colour
    picture[inside, 3] = 1
    return _pixels(picture)


def _pixels(picture: NDArray[np.float32]) -> Pixels:
    """Return a picture in [0, 1] of three or four channels as bytes, opaque unless it says otherwise."""
    values = np.rint(255 * picture).astype(np.uint8)
    if values.shape[-1] == 4:
        return values
    return np.concatenate([values, np.full((*values.shape[:-1], 1), 255, np.uint8)], axis=-1)


@cache
def _viridis() -> Pixels:
    """Return the colour of every rank, (256, 4)."""
    from matplotlib import colormaps

    return np.asarray(colormaps["viridis"](np.arange(256), bytes=True), np.uint8)
