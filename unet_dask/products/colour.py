"""What values look like, in every picture: numbers in colours under an outline, amounts on a scale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from unet_dask.products.sentinel import is_sentinel

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Plane = NDArray[Any]
    #: Red, green, blue and opacity, from 0 to 255.
    Colour = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Veil:
    """Numbers, painted: a colour where there is something.

    Attributes
    ----------
    inside : (y, x), where
    colour : (n, 3) from 0 to 1, of those places; outlines are lighter, to show on dark and on bright ground
    outline : (n,), which of those places are outlines
    """

    inside: NDArray[np.bool_]
    colour: NDArray[np.float32]
    outline: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Amount:
    """Amounts, painted: every pixel has a place on a scale of colours.

    Attributes
    ----------
    values : (y, x) from 0 to 1
    """

    values: NDArray[np.float32]


Painting = Veil | Amount


def class_colour(value: int) -> Colour:
    """Return a colour per class: background transparent, the others around the wheel by the golden angle."""
    if value == 0:
        return (0, 0, 0, 0)
    hue = (0.09 + value * 0.61803398875) % 1.0
    red, green, blue = (abs((hue * 6 + shift) % 6 - 3) - 1 for shift in (0, 4, 2))
    return (*(round(255 * min(max(part, 0), 1)) for part in (red, green, blue)), 255)  # type: ignore[return-value] # three and one


def in_class_colours(classes: Plane) -> Veil:
    """Return classes in their colours, background and what was never written in none."""
    table = np.array([class_colour(value)[:3] for value in range(256)], np.float32) / np.float32(255)
    inside = (classes > 0) & ~is_sentinel(classes)
    return _outlined(classes, inside, table[classes[inside]])


def in_own_colours(numbers: Plane) -> Veil:
    """Return every object in a colour of its own, background and what was never written in none."""
    inside = (numbers > 0) & ~is_sentinel(numbers)
    # Numbers are places: those of neighbours differ by little or by a row, and the golden angle sets both apart.
    hue = numbers[inside].astype(np.float64) * 0.61803398875 % 1.0 * 6
    colour = np.stack([np.clip(np.abs((hue + shift) % 6 - 3) - 1, 0, 1) for shift in (0, 4, 2)], axis=-1)
    return _outlined(numbers, inside, colour.astype(np.float32))


def _outlined(values: Plane, inside: NDArray[np.bool_], colour: NDArray[np.float32]) -> Veil:
    """Return colours, lighter where the next pixel down or to the right has another value."""
    edge = np.zeros(values.shape, bool)
    edge[:-1] |= values[:-1] != values[1:]
    edge[:, :-1] |= values[:, :-1] != values[:, 1:]
    outline = edge[inside]
    lighter = np.float32(0.5) + np.float32(0.5) * colour
    return Veil(inside, np.where(outline[:, np.newaxis], lighter, colour), outline)
