"""Planes as pixels: what a tile of the page looks like."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from unet_dask.picture.colour import hatching
from unet_dask.picture.plane import unwritten
from unet_dask.products.colour import Amount, Veil

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from unet_dask.products.colour import Painting

    Plane = NDArray[np.generic]
    #: (y, x, 4) uint8
    Pixels = NDArray[np.uint8]

#: All but the last, and all but the first, along an axis.
_BESIDE = (slice(None, -1), slice(1, None))


def grey_pixels(plane: NDArray[np.float32], low: float, high: float) -> Pixels:
    """Return channels (c, y, x), one or three, stretched from a range of values; not a number is black."""
    stretched = np.clip((np.nan_to_num(plane, nan=low) - low) / max(high - low, 1e-9), 0, 1)
    return _pixels(np.moveaxis(np.broadcast_to(stretched, (3, *plane.shape[1:])), 0, -1))


def product_pixels(painting: Painting, holes: NDArray[np.bool_]) -> Pixels:
    """Return what a product looks like; what was never written is transparent, as is nothing."""
    return _on_scale(painting.values, holes) if isinstance(painting, Amount) else _over_nothing(painting)


def outline_pixels(painting: Painting, plane: Plane) -> Pixels:
    """Return numbers as outlines alone: the pixels that have another value beside them.

    Parameters
    ----------
    painting : of the numbers
    plane : these, (y, x)
    """
    assert isinstance(painting, Veil)
    edge = np.zeros(plane.shape, np.bool_)
    for axis in (0, 1):
        one, other = (tuple(span if axis == place else slice(None) for place in (0, 1)) for span in _BESIDE)
        differs = plane[one] != plane[other]
        edge[one] |= differs
        edge[other] |= differs
    lighter = np.float32(0.5) + np.float32(0.5) * painting.colour
    colour = np.where(painting.outline[:, np.newaxis], painting.colour, lighter)  # one of them is so already
    picture = _over_nothing(Veil(painting.inside, colour, painting.outline))
    picture[~edge] = 0
    return picture


def hole_pixels(products: list[Plane], corner: tuple[int, int]) -> Pixels:
    """Return stripes where any product was never written; all else is transparent."""
    holes = np.logical_or.reduce([unwritten(plane) for plane in products])
    return _pixels(hatching(holes, corner))


def png(pixels: Pixels) -> bytes:
    """Return pixels as a PNG, pressed lightly: it only travels within the machine."""
    import imageio.v3

    return imageio.v3.imwrite("<bytes>", pixels, extension=".png", plugin="pillow", compress_level=1)


def _on_scale(amount: NDArray[np.float32], holes: NDArray[np.bool_]) -> Pixels:
    """Return amounts in [0, 1] in the colours of the preview."""
    rank = np.rint(255 * np.clip(np.nan_to_num(amount), 0, 1)).astype(np.uint8)
    return np.where(holes[..., np.newaxis], np.uint8(0), _viridis()[rank])


def _over_nothing(veil: Veil) -> Pixels:
    picture = np.zeros((*veil.inside.shape, 4), np.float32)
    picture[veil.inside, :3] = veil.colour
    picture[veil.inside, 3] = 1
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
