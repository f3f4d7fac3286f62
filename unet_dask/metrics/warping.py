"""The warping error: what remains of the difference to the truth once only its topology counts.

The truth is warped towards the prediction: pixels where the two differ are flipped as long as that changes no
topology, that is, as long as they are *simple points*. What cannot be reached are mergers, splits, holes and objects
that are missing or too many [1]_. Objects are connected through edges (4 neighbours), the background through edges
and corners (8 neighbours), so that a border of 1 pixel, diagonal too, keeps two cells apart.

Outside of the image is background. A constant is what keeps the theory whole: the image in its frame of background is
a plane again, and a flip keeps the number of objects and of pieces of background exactly if the point is simple. A
repeated edge would flip outside what is flipped inside. So a cell may recede from the edge of the image, which is no
error, and what touches the edge is one piece of background.

Pixels whose rows and columns are both congruent modulo 2 are never in each other's 3 x 3 neighbourhood. All simple
points of one of these four sub-lattices can therefore be flipped at once with the result of flipping them one after
the other; the four take turns until no simple point is left.

The evaluation of the challenge of 2012 counts, of the pixels that remain, only those in clusters that its code
classifies as splits or mergers; ours counts all of them, as [1]_ defines it, and is never lower on the same warping.

References
----------
.. [1] Jain et al., "Boundary learning by optimization with topological constraints", CVPR 2010, section 2.
.. [2] Bertrand and Malandain, "A new characterization of three-dimensional simple points", Pattern Recognition
   Letters 15, 1994: a point is simple if it touches exactly one object and one piece of background.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from unet_dask.errors import GeometryError

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: The neighbours (down, right) of a pixel, around it; neighbour k is bit k of a neighbourhood.
_RING = ((-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1))


@dataclass(frozen=True, slots=True, eq=False)
class Warped:
    """A truth that was warped towards a prediction.

    Attributes
    ----------
    foreground : (y, x), the warped truth
    remaining : pixels that still differ from the prediction
    flipped : pixels that were flipped
    """

    foreground: NDArray[np.bool_]
    remaining: int
    flipped: int

    @property
    def error(self) -> float:
        """The share of pixels that still differ; NaN for an image without pixels."""
        return self.remaining / self.foreground.size if self.foreground.size else float("nan")


def warp(
    truth: NDArray[np.bool_], found: NDArray[np.bool_], *, mask: NDArray[np.bool_] | None = None
) -> Warped:
    """Warp a truth towards a prediction without changing its topology.

    Parameters
    ----------
    truth : (y, x), True inside of objects
    found : (y, x), likewise
    mask : (y, x), True where pixels may be flipped; everywhere by default. A band around the borders of the truth
        keeps objects from travelling

    Raises
    ------
    GeometryError
        If these are no planes of one shape.

    Examples
    --------
    A border that moved is no error, a gap in it is one:

    >>> truth = np.array([[1, 1, 0, 1, 1]] * 3, bool)
    >>> warp(truth, np.array([[1, 0, 1, 1, 1]] * 3, bool)).remaining
    0
    >>> warp(truth, np.array([[1, 1, 0, 1, 1], [1, 1, 1, 1, 1], [1, 1, 0, 1, 1]], bool)).remaining
    1
    """
    shapes = {truth.shape, found.shape, truth.shape if mask is None else mask.shape}
    if truth.ndim != 2 or len(shapes) > 1:
        raise GeometryError(
            f"Only planes of one size can be warped, not {truth.shape} to {found.shape}. Warp plane by plane."
        )
    framed = np.pad(truth.astype(np.uint8), 1)
    width = framed.shape[1]
    flat = framed.reshape(-1)
    wrong = np.pad(truth != found, 1).reshape(-1)
    movable = wrong if mask is None else wrong & np.pad(mask, 1).reshape(-1)
    movable = movable.copy()
    flipped = _flip_all(flat, movable, width)
    warped = framed[1:-1, 1:-1].astype(np.bool_)
    return Warped(warped, int(np.count_nonzero(warped != found)), flipped)


def _flip_all(flat: NDArray[np.uint8], movable: NDArray[np.bool_], width: int) -> int:
    """Flip simple points among the movable ones, in place, until none is left; return how many were flipped.

    Whether a point is simple changes only when one of its neighbours is flipped, so after the first round only the
    neighbours of what was flipped are looked at again.
    """
    ring = [down * width + right for down, right in _RING]
    simple = simple_points()
    pending = _by_lattice(np.flatnonzero(movable), width)
    flipped, turn, idle = 0, 0, 0
    while idle < 4:  # a whole round without a flip
        looked, pending[turn] = pending[turn], np.zeros(0, np.int64)
        looked = looked[movable[looked]]
        neighbourhood = np.zeros(looked.size, np.uint8)
        for bit, step in enumerate(ring):  # one neighbour at a time: eight would take eight times the memory
            neighbourhood |= flat[looked + step] << np.uint8(bit)
        chosen = looked[simple[neighbourhood]]
        idle = 0 if chosen.size else idle + 1
        turn = (turn + 1) % 4
        if not chosen.size:
            continue
        flat[chosen] ^= 1
        movable[chosen] = False
        flipped += int(chosen.size)
        around = [(chosen + step)[movable[chosen + step]] for step in ring]
        again = _by_lattice(np.unique(np.concatenate(around)), width)
        pending = [np.union1d(old, new) for old, new in zip(pending, again, strict=True)]
    return flipped


def _by_lattice(pixels: NDArray[np.int64], width: int) -> list[NDArray[np.int64]]:
    """Sort flat positions into the four sub-lattices, row and column modulo 2."""
    which = (pixels // width % 2) * 2 + pixels % width % 2
    return [pixels[which == each] for each in range(4)]


@cache
def simple_points() -> NDArray[np.bool_]:
    """Return which of the 256 neighbourhoods make a pixel a simple point.

    Whether the pixel itself is foreground does not matter. It is simple if, of its 8 neighbours, the foreground
    ones fall into exactly one 4-connected piece that has an edge in common with it, and the background ones into
    exactly one 8-connected piece [1]_.

    Returns
    -------
    (256,), by the neighbourhood's number: bit k is set if neighbour k is foreground, clockwise from the upper left

    References
    ----------
    .. [1] Bertrand and Malandain 1994; see the module

    Examples
    --------
    Foreground on one side, and on two opposite sides only:

    >>> bool(simple_points()[0b00000111]), bool(simple_points()[0b00100010])
    (True, False)
    """
    table = np.array([_is_simple(number) for number in range(256)])
    table.flags.writeable = False
    return table


def _is_simple(number: int) -> bool:
    inside = [place for bit, place in enumerate(_RING) if number >> bit & 1]
    outside = [place for place in _RING if place not in inside]
    touching = [piece for piece in _pieces(inside, reach=1) if any(0 in place for place in piece)]
    return len(touching) == 1 and len(_pieces(outside, reach=2)) == 1


def _pieces(places: list[tuple[int, int]], *, reach: int) -> list[list[tuple[int, int]]]:
    """Split places into connected pieces; `reach` 1 joins through edges, 2 through corners too."""
    pieces: list[list[tuple[int, int]]] = []
    for place in places:
        near = [piece for piece in pieces if any(_adjacent(place, other, reach) for other in piece)]
        pieces = [piece for piece in pieces if piece not in near]
        pieces.append([place, *(other for piece in near for other in piece)])
    return pieces


def _adjacent(a: tuple[int, int], b: tuple[int, int], reach: int) -> bool:
    down, right = abs(a[0] - b[0]), abs(a[1] - b[1])
    return max(down, right) == 1 and down + right <= reach
