"""What values look like, in every picture: classes and objects under an outline, holes hatched."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from unet_dask.io.sink.multiscale import class_colour

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Plane = NDArray[Any]

#: Colour of what was never written, and the width of its stripes in pixels.
UNWRITTEN = (1.0, 0.0, 1.0, 1.0)
_STRIPE = 6


def class_paint(classes: Plane) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
    """Return where there is a class but background, and the colours (n, 3) there, outlines lighter."""
    inside = (classes > 0) & (classes < 255)
    table = np.array([class_colour(value)[:3] for value in range(256)], np.float32) / np.float32(255)
    return inside, _lightened(table[classes[inside]], edges(classes)[inside])


def object_paint(numbers: Plane) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
    """Return where there are objects, and the colours (n, 3) there, one of its own for each, outlines lighter."""
    inside = (numbers > 0) & (numbers < np.iinfo(numbers.dtype).max)
    # Numbers are places: those of neighbours differ by little or by a row, and the golden angle sets both apart.
    hue = numbers[inside].astype(np.float64) * 0.61803398875 % 1.0 * 6
    colour = np.stack([np.clip(np.abs((hue + shift) % 6 - 3) - 1, 0, 1) for shift in (0, 4, 2)], axis=-1)
    return inside, _lightened(colour.astype(np.float32), edges(numbers)[inside])


def _lightened(colour: NDArray[np.float32], outline: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return colours of which those of outlines are lighter: they show on dark and on bright ground."""
    return np.where(outline[:, np.newaxis], np.float32(0.5) + np.float32(0.5) * colour, colour)


def edges(values: Plane) -> NDArray[np.bool_]:
    """Return where the next pixel down or to the right has another value."""
    edge = np.zeros(values.shape, bool)
    edge[:-1] |= values[:-1] != values[1:]
    edge[:, :-1] |= values[:, :-1] != values[:, 1:]
    return edge


def hatching(holes: NDArray[np.bool_], corner: tuple[int, int] = (0, 0)) -> NDArray[np.float32]:
    """Return (y, x, 4): magenta stripes over holes, transparent elsewhere.

    Parameters
    ----------
    holes : (y, x)
    corner : of the picture in a larger one, whose stripes go on from tile to tile
    """
    y, x = np.indices(holes.shape)
    stripes = (y + x + sum(corner)) // _STRIPE % 2 == 0
    picture = np.zeros((*holes.shape, 4), np.float32)
    picture[holes] = (0, 0, 0, 1)
    picture[holes & stripes] = UNWRITTEN
    return picture


def foreground(probabilities: Plane) -> NDArray[np.float32]:
    """Return the probability of all that is not background, (y, x) in [0, 1]."""
    return 1 - unscaled(probabilities[0])


def unscaled(probability: Plane) -> NDArray[np.float32]:
    """Return probabilities in [0, 1] of those that are stored, as they are or scaled to 0-254."""
    return probability.astype(np.float32) / np.float32(254 if probability.dtype.kind == "u" else 1)
