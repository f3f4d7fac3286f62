"""Names and order of axes: one lower-case letter each, always in the order of OME-Zarr.

Stored arrays come in any order and leave axes out; everything behind the reader sees the *canonical*
form, ``tczyx`` without the axes that the array does not have, except that `c` is always there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import numpy as np

from unet_dask.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Sequence

    from numpy.typing import NDArray

Value = TypeVar("Value")

#: Order of the axes in OME-Zarr 0.4 and 0.5: time, channel, space.
CANONICAL = "tczyx"

#: Names that mean one of our axes; compared in lower case.
SYNONYMS = {
    "t": "t",
    "time": "t",
    "frame": "t",
    "c": "c",
    "channel": "c",
    "channels": "c",
    "ch": "c",
    "band": "c",
    "wavelength": "c",
    "s": "c",
    "rgb": "c",
    "z": "z",
    "depth": "z",
    "plane": "z",
    "section": "z",
    "slice": "z",
    "y": "y",
    "row": "y",
    "height": "y",
    "lat": "y",
    "latitude": "y",
    "x": "x",
    "col": "x",
    "column": "x",
    "width": "x",
    "lon": "x",
    "longitude": "x",
}


def is_channel(axis: str) -> bool:
    """Return whether an axis counts channels, which neither regions nor objects extend along."""
    return axis == "c"


def is_time(axis: str) -> bool:
    """Return whether an axis counts time points."""
    return axis == "t"


def is_spatial(axis: str) -> bool:
    """Return whether an axis is one of space, along which voxels have a size."""
    return axis in "zyx"


def is_lateral(axis: str) -> bool:
    """Return whether an axis lies in the plane of an image."""
    return axis in "yx"


def has_channel(axes: Container[str]) -> bool:
    """Return whether one of the axes counts channels."""
    return "c" in axes


def has_time(axes: Container[str]) -> bool:
    """Return whether one of the axes counts time points."""
    return "t" in axes


def has_depth(axes: Container[str]) -> bool:
    """Return whether there are slices one above the other."""
    return "z" in axes


def without_channel(axes: Iterable[str]) -> str:
    """Return the axes of time and space, in their order."""
    return "".join(axis for axis in axes if not is_channel(axis))


def space_of(axes: Iterable[str]) -> str:
    """Return the axes of space, in their order."""
    return "".join(axis for axis in axes if is_spatial(axis))


def stack_of(axes: Iterable[str]) -> str:
    """Return the axes along which planes of an image are stacked, time and depth, in their order."""
    return "".join(axis for axis in without_channel(axes) if not is_lateral(axis))


def by_axis(axes: str, values: Iterable[Value]) -> dict[str, Value]:
    """Return what there is one of for each axis, by the axis.

    Examples
    --------
    >>> by_axis("yx", (512, 640))
    {'y': 512, 'x': 640}
    """
    return dict(zip(axes, values, strict=True))


def fit_an_image(axes: Sequence[str]) -> bool:
    """Return whether axes can be those of an image: each named once, y and x among them."""
    return len(set(axes)) == len(axes) and {"y", "x"} <= set(axes)


def validate(axes: str) -> str:
    """Return `axes` in lower case if they can describe an image.

    Parameters
    ----------
    axes : one letter per dimension of the stored array, in its order

    Raises
    ------
    InputError
        If a letter is unknown or repeated, or y or x is missing.

    Examples
    --------
    >>> validate("ZYX"), validate("yxc")
    ('zyx', 'yxc')
    """
    lower = axes.lower()
    unknown = sorted(set(lower) - set(CANONICAL))
    if unknown:
        raise InputError(
            f"Axes {axes!r} hold {unknown[0]!r}, which names no axis. Use one letter per dimension out of "
            f"t, c, z, y, x in the order of the array, such as 'zyx'."
        )
    repeated = [axis for axis in CANONICAL if lower.count(axis) > 1]
    if repeated:
        raise InputError(
            f"Axes {axes!r} name {repeated[0]!r} more than once. Name each dimension once, such as 'zyx'."
        )
    missing = [axis for axis in "yx" if axis not in lower]
    if missing:
        raise InputError(
            f"Axes {axes!r} have no {missing[0]!r}, and an image has both y and x. Use for example 'zyx'."
        )
    return lower


def canonical(axes: str) -> str:
    """Return the axes in the order of `CANONICAL`, with `c` even where the array has none.

    Examples
    --------
    >>> canonical("yx"), canonical("xyzt"), canonical("yxc")
    ('cyx', 'tczyx', 'cyx')
    """
    present = validate(axes)
    return "".join(axis for axis in CANONICAL if axis in present or is_channel(axis))


def permutation(axes: str) -> tuple[int, ...]:
    """Return the stored position of each axis of the array, in canonical order.

    An inserted `c` has no stored position and is left out.

    Examples
    --------
    >>> permutation("yxc"), permutation("xyz")
    ((2, 0, 1), (2, 1, 0))
    """
    return tuple(axes.index(axis) for axis in CANONICAL if axis in axes)


def to_canonical(array: NDArray[np.generic], axes: str) -> NDArray[np.generic]:
    """Return a view of `array`, stored with `axes`, in canonical order.

    Examples
    --------
    >>> to_canonical(np.zeros((4, 5, 3)), "yxc").shape, to_canonical(np.zeros((4, 5)), "yx").shape
    ((3, 4, 5), (1, 4, 5))
    """
    ordered = array.transpose(permutation(axes))
    return ordered if has_channel(axes) else np.expand_dims(ordered, canonical(axes).index("c"))


def from_names(names: Iterable[object]) -> str | None:
    """Return the axes that dimension names stand for, or None if none of them is known.

    Parameters
    ----------
    names : one name per dimension; anything that is not a known name counts as unknown

    Raises
    ------
    InputError
        If some names are known and others not, or two names mean the same axis.

    Examples
    --------
    >>> from_names(["time", "band", "Y", "X"])
    'tcyx'
    >>> from_names(["dim_0", "dim_1"]) is None
    True
    """
    asked = tuple(names)
    found = [SYNONYMS.get(name.lower()) if isinstance(name, str) else None for name in asked]
    if not any(found):
        return None
    unknown = [name for name, axis in zip(asked, found, strict=True) if axis is None]
    if unknown:
        raise InputError(
            f"Dimension {str(unknown[0])!r} among {_listed(asked)} means none of t, c, z, y, x. Rename it, "
            f"or say what the dimensions are, one letter each, with --axes."
        )
    return validate("".join(axis for axis in found if axis))


def times(sizes: Iterable[object]) -> str:
    """Return sizes for people, such as "512 x 640"."""
    return " x ".join(map(str, sizes))


def one_or_all(values: Sequence[int]) -> str:
    """Return what holds along each axis, once if it is the same along all.

    Examples
    --------
    >>> one_or_all((92, 92)), one_or_all((6, 20, 20))
    ('92', '6 x 20 x 20')
    """
    return times(values if len(set(values)) > 1 else values[:1])


def _listed(names: tuple[object, ...]) -> str:
    return "(" + ", ".join(repr(str(name))[1:-1] for name in names) + ")"
