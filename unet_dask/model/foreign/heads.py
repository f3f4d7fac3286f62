"""What the output of a network is, told by what it makes of images of several kinds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from unet_dask.errors import ModelError
from unet_dask.model.foreign.spec import INDEPENDENT, SHARES, SIGMOID, SOFTMAX

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

#: Those that are made into probabilities here.
OF_LOGITS = (SOFTMAX, SIGMOID)
#: How far probabilities may lie beyond 0 and 1, and their sum from 1: rounding.
_ROUNDING = 1e-4
#: From where on values within -1 and 1 are those of a hyperbolic tangent.
_SATURATED = 0.99


def found(outputs: Iterable[NDArray[np.float32]], said: str = "") -> tuple[str, int]:
    """Return what the output is, and the classes that it tells apart.

    Parameters
    ----------
    outputs : (k, *space), of images of several kinds
    said : "sigmoid" or "softmax", if its author says that this comes after it

    Raises
    ------
    ModelError
        If it is neither probabilities nor logits.
    """
    made = [np.asarray(each, np.float64).reshape(len(each), -1) for each in outputs]
    values = np.concatenate(made, axis=1)
    if not np.isfinite(values).all():
        raise ModelError("The network makes values that are not finite of usual images.")
    within = np.all((values >= -_ROUNDING) & (values <= 1 + _ROUNDING), axis=1)
    channels = len(values)
    if within.all() and not said:
        sums = bool((np.abs(values.sum(axis=0) - 1) <= _ROUNDING).all())
        return (SHARES, channels) if sums and channels > 1 else _open(INDEPENDENT, channels)
    if not said:
        _require_logits(values, within)
    if said == SIGMOID or channels == 1:
        return _open(SIGMOID, channels)
    return _limited(SOFTMAX, channels)


def _require_logits(values: NDArray[np.float64], within: NDArray[np.bool_]) -> None:
    """Raise if values cannot be what probabilities are made of."""
    what = ""
    if within.any() and len(values) > 1:
        what = f"probabilities in {int(within.sum())} of {len(within)} channels, and something else in the others"
    elif values.min() >= 0:
        what = "never less than 0, and more than 1: distances, or intensities"
    elif _SATURATED < np.abs(values).max() <= 1 + _ROUNDING:
        what = "between -1 and 1"
    if what:
        raise ModelError(
            f"The output of the network is neither probabilities nor what they are made of: it is {what}. Export what "
            "classes are made of alone."
        )


def _open(head: str, channels: int) -> tuple[str, int]:
    return _limited(head, channels + 1)


def _limited(head: str, classes: int) -> tuple[str, int]:
    if not 2 <= classes <= 255:
        raise ModelError(f"The network makes {classes} classes; 2 to 255 can be told apart here.")
    return head, classes
