"""Values that are not finite stop a region, in the source as in what the network makes of it.

One NaN poisons everything within the halo, and the most probable class of NaN is the first: silently background.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from unet_dask.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray


def check_finite(
    window: NDArray[np.generic], *, origin: tuple[int, ...], axes: str, nan: str
) -> NDArray[np.generic]:
    """Return the window if the network can be run on it.

    Parameters
    ----------
    window : grey values
    origin : of the window in the volume
    axes : of the window
    nan : "stop", or "zero" to replace what is not finite by zero

    Raises
    ------
    DataError
        If a value is not finite; the message gives the place of the first.
    """
    if not np.isdtype(window.dtype, "real floating"):
        return window
    wrong = ~np.isfinite(window)
    if not wrong.any():
        return window
    if nan == "zero":
        return np.where(wrong, window.dtype.type(0), window)
    first = np.unravel_index(int(wrong.argmax()), wrong.shape)
    place = ", ".join(f"{axis}={int(a) + b}" for axis, a, b in zip(axes, first, origin, strict=True))
    raise DataError(
        f"The source holds {int(wrong.sum())} values that are not finite in one region, the first at {place}. "
        "Mend the source, or use --nan zero."
    )


def require_finite_logits(*, finite: bool) -> None:
    """Raise unless all logits of a tile are finite; whoever made them has looked where they lie.

    Raises
    ------
    DataError
        Saying what may be wrong with the grey values.
    """
    if not finite:
        raise DataError(
            "The network's output is not finite here: the grey values are far outside of what it was trained on, "
            "or overflow its precision. Use --precision float32, or a model for such images."
        )
