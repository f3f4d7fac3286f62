"""What people write for a setting, read: amounts of memory, lists, and parts of a volume."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from unet_dask.errors import OptionError

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Bytes of a unit: decimal ones, and binary ones with an i.
_UNITS = {"": 1} | {
    f"{letter}{i}": base**power
    for power, letter in enumerate("kmgt", 1)
    for i, base in (("", 1000), ("i", 1024))
}

#: A number as settings have it; longer ones mean nothing, and Python refuses to read those of thousands of digits.
_WHOLE = re.compile(r"[0-9]{1,18}")


def parse_bytes(text: str) -> int:
    """Return the bytes of a text such as "8GiB" or "500 MB".

    Raises
    ------
    OptionError
        If the text is not a number with a unit of bytes.

    Examples
    --------
    >>> parse_bytes("8GiB"), parse_bytes("1.5 GB")
    (8589934592, 1500000000)
    """
    found = re.fullmatch(r"\s*([0-9]{1,18}(?:\.[0-9]{1,18})?)\s*([kmgt]?i?)b?\s*", text.lower())
    if not found or found[2] not in _UNITS:
        raise OptionError(f"{shown(text)} is not an amount of memory. Write it like 8GiB or 500MB.")
    return int(float(found[1]) * _UNITS[found[2]])


def parse_products(text: str) -> tuple[str, ...]:
    """Return the names in a comma-separated list, each once, in the order given."""
    return tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


def parse_channels(text: str) -> tuple[int | str, ...]:
    """Return the channels of a text such as "0,2" or "DAPI,GFP": numbers, and names of what is no number.

    Raises
    ------
    OptionError
        If one of them is neither a whole number from 0 nor a name with a letter in it.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(_WHOLE.fullmatch(part) or any(map(str.isalpha, part)) for part in parts):
        raise OptionError(
            f"{shown(text)} is not a list of channels. Write them like 0,2 (the first is 0), or like DAPI,GFP."
        )
    return tuple(int(part) if _WHOLE.fullmatch(part) else part for part in parts)


def parse_sizes(text: str) -> tuple[int, ...]:
    """Return the sizes in a text such as "128,512,512".

    Raises
    ------
    OptionError
        If it is not a comma-separated list of whole numbers of at least 1.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(_WHOLE.fullmatch(part) and int(part) for part in parts):
        raise OptionError(f"{shown(text)} is not a list of sizes. Write one per axis, like 128,512,512.")
    return tuple(int(part) for part in parts)


#: The level of a pyramid that fits a model.
FIT = "fit"


def parse_level(text: str) -> int | str:
    """Return the number of a level of a pyramid, or `FIT`.

    Raises
    ------
    OptionError
        If it is neither.

    Examples
    --------
    >>> parse_level("2"), parse_level("fit")
    (2, 'fit')
    """
    if text.strip() == FIT:
        return FIT
    if not _WHOLE.fullmatch(text.strip()):
        raise OptionError(f"{shown(text)} is no level of a pyramid. Write its number, or {FIT}.")
    return int(text)


@dataclass(frozen=True, slots=True)
class Extent:
    """An area or a volume.

    Attributes
    ----------
    number : of square or cubic units
    unit : of length, such as "um"
    dims : 2 for an area, 3 for a volume
    """

    number: float
    unit: str
    dims: int

    def __str__(self) -> str:
        return f"{self.number:g}{self.unit}{self.dims}"


def parse_extent(text: str) -> int | Extent:
    """Return how large an object is, of a text such as "20", in pixels, or "30um2", or "100 um3".

    Raises
    ------
    OptionError
        If it is neither a whole number of pixels nor an area or a volume.

    Examples
    --------
    >>> parse_extent("20"), str(parse_extent("30 µm²"))
    (20, '30um2')
    """
    if _WHOLE.fullmatch(text.strip()):
        return int(text)
    plain = text.translate({0xB2: "2", 0xB3: "3", 0xB5: "u", 0x3BC: "u"})
    found = re.fullmatch(r"\s*([0-9]{1,18}(?:\.[0-9]{1,18})?)\s*([nu]m|mm)\^?([23])\s*", plain)
    if not found:
        raise OptionError(
            f"{shown(text)} is no size of an object. Write pixels, like 20, or an area like 30um2, or a volume like "
            "100um3."
        )
    return Extent(float(found[1]), found[2], int(found[3]))


def shown(text: str) -> str:
    """Return what somebody wrote, quoted for a message, and not more of it than helps."""
    return repr(text if len(text) <= 60 else f"{text[:57]}...")


def parse_roi(text: str, *, axes: str, shape: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    """Return (start, stop) per axis for a region of interest.

    Parameters
    ----------
    text : intervals "start:stop" along the spatial axes, from the left, where z may be left out if there is one plane;
        or along time and the spatial axes; or of named axes, in any order, as the plan prints them. Either number may
        be left out
    axes : canonical axes of the volume
    shape : of the volume

    Raises
    ------
    OptionError
        If the text does not fit the axes, or lies outside of the volume.

    Examples
    --------
    >>> parse_roi("0:10,:20", axes="cyx", shape=(3, 50, 60))
    ((0, 3), (0, 10), (0, 20))
    >>> parse_roi("t 2:3, x 5:9", axes="tcyx", shape=(4, 1, 50, 60))
    ((2, 3), (0, 1), (0, 50), (5, 9))
    """
    sizes = dict(zip(axes, shape, strict=True))
    parts = [part.strip() for part in text.split(",")]
    named = [re.fullmatch(r"([a-z])\s*=?\s*([0-9]*\s*:\s*[0-9]*)", part) for part in parts]
    if all(named):
        given = _named({each[1]: each[2] for each in named if each}, text, sizes, count=len(parts))
    else:
        order = _order(len(parts), sizes)
        if order is None:
            spatial = ", ".join(axis for axis in axes if axis in "zyx")
            raise OptionError(
                f"The region {shown(text)} has {len(parts)} intervals, but the volume has the axes {spatial}"
                f"{' besides t' * ('t' in axes)}. Write one start:stop for each, or name axes, like {_example(sizes)}."
            )
        given = dict(zip(order, parts, strict=True))
    return tuple(
        _interval(given[axis], axis=axis, size=size) if axis in given else (0, size)
        for axis, size in sizes.items()
    )


def _order(count: int, sizes: Mapping[str, int]) -> str | None:
    """Return the axes that so many intervals without names are along, None if that cannot be told."""
    space = "".join(axis for axis in sizes if axis in "zyx")
    flat = space.replace("z", "") if sizes.get("z") == 1 else space
    orders = (space, flat, "t" + space, "t" + flat) if "t" in sizes else (space, flat)
    return next((order for order in orders if len(order) == count), None)


def _named(given: dict[str, str], text: str, sizes: Mapping[str, int], *, count: int) -> dict[str, str]:
    """Return intervals by axis, which must be axes of the volume, each once, and of the channels all."""
    unknown = [axis for axis in given if axis not in sizes]
    if unknown or len(given) < count:
        why = f"names {unknown[0]}" if unknown else "names an axis twice"
        raise OptionError(
            f"The region {shown(text)} {why}, but the volume has the axes {', '.join(sizes)}. Write it like "
            f"{_example(sizes)}."
        )
    if "c" in given and _interval(given["c"], axis="c", size=sizes["c"]) != (0, sizes["c"]):
        raise OptionError(f"The region {shown(text)} leaves out channels. Choose channels with --channels.")
    return given


def _example(sizes: Mapping[str, int]) -> str:
    """Return a region of a volume as it may be written."""
    return repr(", ".join(f"{axis} 0:{size}" for axis, size in sizes.items() if axis != "c"))


def _interval(text: str, *, axis: str, size: int) -> tuple[int, int]:
    found = re.fullmatch(r"\s*([0-9]{0,18})\s*:\s*([0-9]{0,18})\s*", text)
    if not found:
        raise OptionError(f"{shown(text)} is not an interval along {axis}. Write it like 0:{size}.")
    start, stop = int(found[1] or 0), int(found[2] or size)
    if not start < stop <= size:
        raise OptionError(f"The interval {start}:{stop} along {axis} is empty or beyond its {size} voxels.")
    return start, stop
