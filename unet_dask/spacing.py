"""Sizes of pixels: their units, spelled in many ways, and whether two of them contradict each other."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from unet_dask.errors import OptionError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from unet_dask.texts import Extent

#: Metres of one unit, by its name in OME-Zarr.
_METRES = {
    "angstrom": 1e-10,
    "picometer": 1e-12,
    "nanometer": 1e-9,
    "micrometer": 1e-6,
    "millimeter": 1e-3,
    "centimeter": 1e-2,
    "meter": 1.0,
    "inch": 0.0254,
}
#: Other spellings, in lower case, without the s of the plural and with "er" for "re".
_SPELLINGS = {
    "a": "angstrom",
    "å": "angstrom",
    "ångström": "angstrom",
    "ångstrom": "angstrom",
    "pm": "picometer",
    "nm": "nanometer",
    "um": "micrometer",
    "µm": "micrometer",  # the micro sign
    "\N{GREEK SMALL LETTER MU}m": "micrometer",
    "\\u00b5m": "micrometer",
    "micron": "micrometer",
    "mm": "millimeter",
    "cm": "centimeter",
    "m": "meter",
    "in": "inch",
    '"': "inch",
}
#: Sizes of pixels further apart than this are told: objects are as much larger than those of the training.
TOLERANCE = 1.25


def unit_name(unit: str) -> str:
    """Return a unit of length by its name in OME-Zarr; what is no unit of length stays as it is.

    Examples
    --------
    >>> unit_name("µm"), unit_name("microns"), unit_name("Nanometre"), unit_name("pixel")
    ('micrometer', 'micrometer', 'nanometer', 'pixel')
    """
    plain = unit.strip().lower()
    plain = plain[:-2] + "er" if plain.endswith("metre") else plain
    single = plain[:-1] if len(plain) > 2 and plain.endswith("s") else plain
    single = single[:-2] + "er" if single.endswith("metre") else single
    name = next(
        (_SPELLINGS.get(each, each) for each in (plain, single) if each in _SPELLINGS or each in _METRES),
        None,
    )
    return name or unit


def metres(unit: str | None) -> float | None:
    """Return the metres of one unit; None for what is no unit of length, such as a pixel."""
    return None if unit is None else _METRES.get(unit_name(unit))


def known_spacing(
    spacing: Mapping[str, float], unit: Mapping[str, str | None], axes: str
) -> tuple[tuple[float, ...] | None, str | None]:
    """Return the sizes along some axes and their one unit; (None, None) if nobody said them.

    Where axes have different units of length, the sizes come in that of the last.

    Parameters
    ----------
    spacing, unit : per axis; 1.0 and None where unknown
    axes : to return, such as "yx"
    """
    units = [unit.get(axis) for axis in axes]
    sizes = [spacing.get(axis, 1.0) for axis in axes]
    if not any(units) and all(size == 1.0 for size in sizes):
        return None, None
    if len(set(units)) == 1:
        return tuple(sizes), units[0] if units[0] is None else unit_name(units[0])
    factors = [metres(each) for each in units]
    if any(factor is None for factor in factors):
        return None, None
    last = factors[-1]
    converted = (size * factor / last for size, factor in zip(sizes, factors, strict=True) if factor and last)
    return tuple(converted), unit_name(units[-1] or "")


def contradiction(
    one: Sequence[float] | None,
    one_unit: str | None,
    other: Sequence[float] | None,
    other_unit: str | None,
    *,
    tolerance: float = TOLERANCE,
) -> float | None:
    """Return how many times larger the other pixels are, along the axis that differs most; None if they agree.

    Sizes without a unit of length are compared only with those of the same unit, or as little. Unknown sizes agree
    with all. Of sizes along different numbers of axes, the last ones are compared.

    Examples
    --------
    >>> contradiction((0.5, 0.5), "micrometer", (1000, 500), "nm"), contradiction((1,), "um", (1.1,), "µm")
    (2.0, None)
    """
    if not one or not other:
        return None
    first, second = metres(one_unit), metres(other_unit)
    if first is None or second is None:
        if one_unit is None or other_unit is None or unit_name(one_unit) != unit_name(other_unit):
            return None
        first = second = 1.0
    common = min(len(one), len(other))
    ratios = [
        (b * second) / (a * first)
        for a, b in zip(one[-common:], other[-common:], strict=True)
        if a > 0 and b > 0
    ]
    worst = max(ratios, key=lambda ratio: max(ratio, 1 / ratio), default=1.0)
    return round(worst, 9) if max(worst, 1 / worst) > tolerance else None


def shown(sizes: Sequence[float], unit: str | None) -> str:
    """Write sizes for people, once if all are the same.

    Examples
    --------
    >>> shown((0.5, 0.5), "micrometer"), shown((2.0, 0.5, 0.5), None)
    ('0.5 micrometer', '2 x 0.5 x 0.5')
    """
    each = sizes[:1] if len(set(sizes)) == 1 else sizes
    return " ".join(part for part in (" x ".join(f"{size:.4g}" for size in each), unit or "") if part)


def voxel_size(
    spacing: Mapping[str, float], unit: Mapping[str, str | None], axes: str, to: str = "um"
) -> float | None:
    """Return the area or volume of a voxel along some axes, None if it is not known.

    Examples
    --------
    >>> voxel_size({"y": 500.0, "x": 500.0}, {"y": "nm", "x": "nm"}, "yx")
    0.25
    """
    lengths = [spacing[axis] * (metres(unit.get(axis)) or math.nan) / _METRES[unit_name(to)] for axis in axes]
    size = math.prod(lengths)
    return round(size, 12) if math.isfinite(size) and size > 0 else None


def pixels_of(extent: Extent, spacing: Mapping[str, float], unit: Mapping[str, str | None], axes: str) -> int:
    """Return the pixels, or voxels, of the smallest object of at least an area, or a volume.

    Parameters
    ----------
    extent : an area where objects are of two dimensions, else a volume
    spacing, unit : per axis
    axes : of an object

    Raises
    ------
    OptionError
        If it is the other one, or nobody knows how large a pixel is.
    """
    if extent.dims != len(axes):
        what, other = ("an area", "um2") if len(axes) == 2 else ("a volume", "um3")
        raise OptionError(
            f"Objects of this network have {what}, and {extent} is none. Write it in {other}, or in pixels."
        )
    size = voxel_size(spacing, unit, axes, extent.unit)
    if size is None:
        raise OptionError(
            f"{extent} cannot be told in pixels, because the source does not say how large a pixel is. Write the "
            "smallest object in pixels."
        )
    return math.ceil(extent.number / size - 1e-9)


def smallest_object(
    pixels: int, spacing: Mapping[str, float], unit: Mapping[str, str | None], axes: str
) -> Iterator[tuple[str, str]]:
    """Yield how large the smallest object is for people, if the source says how large a pixel is."""
    size = voxel_size(spacing, unit, axes)
    if pixels > 1 and size is not None:
        yield "smallest object", f"{pixels} pixels, {pixels * size:.4g} um{len(axes)}"


Size = tuple[tuple[float, ...] | None, str | None]


def other_pixels(trained: Size, found: Size) -> tuple[str, ...]:
    """Say that the pixels of an image are not of the size of those that a model was trained on; nothing if they are."""
    ratio = contradiction(*trained, *found)
    if ratio is None or not trained[0] or not found[0]:
        return ()
    times = f"{max(ratio, 1 / ratio):.3g} times as {'large' if ratio > 1 else 'small'}"
    return (
        (
            f"pixel size: the image has {shown(found[0], found[1])}, the model was trained at "
            f"{shown(trained[0], trained[1])}: pixels are {times}; use --level fit, or a model that fits"
        ),
    )
