"""What was never written looks the same in every picture: hatched."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Colour of what was never written, and the width of its stripes in pixels.
UNWRITTEN = (1.0, 0.0, 1.0, 1.0)
_STRIPE = 6


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
