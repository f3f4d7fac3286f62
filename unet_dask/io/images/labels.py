"""Targets, truths and labels as whole numbers: what a user calls unknown is taken out first, then one check for all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from unet_dask.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Annotation:
    """The target of one image, or of a box of it.

    Attributes
    ----------
    name : of the image, for messages
    target : (*spatial) integers, 0 where `known` is False
    known : (*spatial), False where nobody annotated
    """

    name: str
    target: NDArray[np.integer]
    known: NDArray[np.bool_]


def annotate(
    values: NDArray[np.generic], name: str, *, ignore: int | None = None, what: str = "target"
) -> Annotation:
    """Return labels of (c, *spatial) as integers from 0 on, and the mask of what somebody annotated.

    Parameters
    ----------
    values : of any type; of several channels, such as of grey stored as colour, all are the first or empty
    name : of the file, for messages
    ignore : value that means "nobody annotated": what else it would be, such as -1, does not matter
    what : the file holds, for messages

    Raises
    ------
    InputError
        If a value that is not ignored is no whole number from 0 on that its type tells from the next.
    """
    first = _one_channel(values, name, what)
    known = np.ones(first.shape, np.bool_) if ignore is None else np.asarray(first != ignore)
    if not np.isdtype(first.dtype, ("bool", "integral", "real floating")):
        raise InputError(f"The {what} {name} is of type {first.dtype}; {what}s are whole numbers.")
    whole = np.where(known, first, np.zeros((), first.dtype))
    if np.isdtype(first.dtype, "real floating"):
        _require_whole(whole, name, what)
        whole = whole.astype(np.int64)
    elif np.isdtype(first.dtype, "bool"):
        whole = whole.astype(np.uint8)
    elif whole.size and whole.min() < 0:
        raise _negative(name, what, int(whole.min()))
    if whole.size and whole.max() > np.iinfo(np.int64).max:
        raise InputError(
            f"The {what} {name} has the value {int(whole.max())}, which is too large. Number from 1 on."
        )
    return Annotation(name, whole, known)


def whole_numbers(values: NDArray[np.generic], name: str, *, what: str = "target") -> NDArray[np.integer]:
    """Return labels of (c, *spatial) as integers of (*spatial), none of which is ignored."""
    return annotate(values, name, what=what).target


def _one_channel(values: NDArray[np.generic], name: str, what: str) -> NDArray[np.generic]:
    first: NDArray[np.generic] = values[0]
    if not all(not channel.any() or np.array_equal(channel, first) for channel in values[1:]):
        raise InputError(
            f"The {what} {name} is a colour image whose channels differ. Save classes or instances as "
            "numbers in a single channel."
        )
    return first


def _require_whole(values: NDArray[np.floating], name: str, what: str) -> None:
    """Refuse floats that are no whole numbers, or too large to be told from the next one."""
    if np.isnan(values).any():
        raise InputError(
            f"The {what} {name} has NaN where it should have whole numbers. Replace it by a number, and name that "
            "with --ignore if it means unknown."
        )
    low, high = float(values.min(initial=0)), float(values.max(initial=0))
    if low < 0:
        raise _negative(name, what, int(low) if low > -1e15 and low == int(low) else low)
    largest = 2.0 ** (np.finfo(values.dtype).nmant + 1)
    if high > largest:
        raise InputError(
            f"The {what} {name} has the value {high:g}, and above {largest:.0f} whole numbers are not told apart in "
            f"{values.dtype}. Save it as integers."
        )
    fractions = values[values != np.rint(values)]
    if fractions.size:
        raise InputError(
            f"The {what} {name} has fractions, such as {fractions[0]:g}; {what}s are whole numbers."
        )


def _negative(name: str, what: str, value: float) -> InputError:
    return InputError(
        f"The {what} {name} has the negative value {value}; use 0 and above, or name it with --ignore if it means "
        "unknown."
    )
