"""Test-time averaging over the symmetries of an image (paper, section 4: the mean over 7 rotated versions).

A tile is turned, run, and its output turned back. Tiles stay on a lattice: turned around, the pooling is counted
from the tile's other end, which lies a whole number of strides, plus a constant, from the volume's origin. So the
mean is as independent of the tiles as a single pass.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from unet_dask.choices import Averaging
from unet_dask.errors import OptionError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from unet_dask.model.spec import Spec


@dataclass(frozen=True, slots=True)
class Symmetry:
    """A symmetry of the grid: swap y and x or not, then reverse some axes.

    Attributes
    ----------
    swap : whether y and x change places
    reverse : for every spatial axis, whether it is reversed afterwards
    """

    swap: bool
    reverse: tuple[bool, ...]

    def turn(self, array: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return an array of (c, *space), turned."""
        turned = np.swapaxes(array, -1, -2) if self.swap else array
        return np.ascontiguousarray(np.flip(turned, self._axes))

    def turn_back(self, array: NDArray[np.float32]) -> NDArray[np.float32]:
        """Undo :meth:`turn`."""
        straight = np.flip(array, self._axes)
        return np.swapaxes(straight, -1, -2) if self.swap else straight

    @property
    def _axes(self) -> tuple[int, ...]:
        return tuple(axis + 1 for axis, reverse in enumerate(self.reverse) if reverse)


def require_turnable(name: str, spec: Spec) -> None:
    """Raise if a tile that is turned would leave the network's lattice: y and x change places.

    Raises
    ------
    OptionError
        If the network looks differently along the two.
    """
    if name == Averaging.ROTATIONS and spec.contexts[-1] != spec.contexts[-2]:
        raise OptionError(
            f"The network pools y and x differently ({spec.stride[-2]} and {spec.stride[-1]} in all), so tiles cannot "
            "be turned. Use --tta flips."
        )


def symmetries(name: str, dims: int) -> tuple[Symmetry, ...]:
    """Return the symmetries to average over, the identity first.

    Parameters
    ----------
    name : "none"; "flips", 4 in 2-D and 8 in 3-D; "rotations", with the quarter turns of the y-x plane as well: the
        dihedral group, 8 in 2-D and 16 in 3-D
    dims : spatial dimensions

    Examples
    --------
    >>> [len(symmetries(name, 2)) for name in ("none", "flips", "rotations")]
    [1, 4, 8]
    """
    if name not in list(Averaging):
        raise OptionError(f"There is no test-time averaging {name!r}. Use none, flips or rotations.")
    if name == Averaging.NONE:
        return (Symmetry(swap=False, reverse=(False,) * dims),)
    swaps = (False, True) if name == Averaging.ROTATIONS else (False,)
    return tuple(
        Symmetry(swap, reverse) for swap, reverse in product(swaps, product((False, True), repeat=dims))
    )
