"""The settings of a run: the only home of their defaults, and how they are read from text."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from unet_dask.errors import OptionError
from unet_dask.part import parse_part

if TYPE_CHECKING:
    from collections.abc import Mapping

_UNITS = {
    "": 1,
    "k": 10**3,
    "m": 10**6,
    "g": 10**9,
    "t": 10**12,
    "ki": 2**10,
    "mi": 2**20,
    "gi": 2**30,
    "ti": 2**40,
}

#: A number as settings have it; longer ones mean nothing, and Python refuses to read those of thousands of digits.
_WHOLE = re.compile(r"[0-9]{1,18}")

#: Voxels along one axis of a tile, a region or a chunk.
_MOST_ALONG = (1 << 31) - 1


@dataclass(frozen=True, slots=True)
class SegmentConfig:
    """Everything that `segment` can be told beside source, sink and model.

    Attributes
    ----------
    products : names in :data:`unet_dask.products.PRODUCTS`
    probability_dtype : "float32", or "uint8" for probabilities scaled to 0-254
    device, precision, backend : how networks are run; "auto" chooses
    workers : local worker processes; None for one per GPU, else one per two cores
    threads : of each worker's network; None to share out the cores
    memory : bytes that one worker may use; None to share out the machine
    key, axes, level, channels : which array of the source, and how to understand it
    roi : part of the volume, "z0:z1,y0:y1,x0:x1", or "t 0:1, y 0:64" with named axes; either end may be left out
    mask : path of a Zarr array of what to segment, at any resolution; "auto" to find what is not empty on a coarse
        level of the source; None for everything
    tta : "none", or the symmetries that results are averaged over: "flips" or "rotations"
    nan : "stop" or "zero", for values that are not finite
    tile, region : voxels per axis along which the network looks; None lets the plan choose
    chunks : of the result, voxels per spatial axis; None for the defaults
    mended : of a resumed run: the source, or the rule for NaN, was changed where regions had failed, and
        nowhere else; what was computed from what has changed is done again
    scheduler, scheduler_file : of a running cluster
    part : which of how many independent drivers this is, such as "2/8"; None for the only one
    """

    products: tuple[str, ...] = ("classes",)
    probability_dtype: str = "float32"
    device: str = "auto"
    precision: str = "auto"
    backend: str = "torch"
    workers: int | None = None
    threads: int | None = None
    memory: int | None = None
    key: str | None = None
    axes: str | None = None
    level: int | None = None
    channels: tuple[int, ...] | None = None
    roi: str | None = None
    mask: str | None = None
    tta: str = "none"
    nan: str = "stop"
    tile: tuple[int, ...] | None = None
    region: tuple[int, ...] | None = None
    chunks: tuple[int, ...] | None = None
    mended: bool = False
    scheduler: str | None = None
    scheduler_file: str | None = None
    part: str | None = None

    def __post_init__(self) -> None:
        from unet_dask.products import PRODUCTS  # the command line has not loaded arrays yet

        unknown = [name for name in self.products if name not in PRODUCTS]
        if unknown or not self.products:
            raise OptionError(
                f"There is no product {', '.join(map(repr, unknown)) or 'named'}. Use one or more of: "
                f"{', '.join(PRODUCTS)}."
            )
        for name, value, allowed in (
            ("probability type", self.probability_dtype, ("float32", "uint8")),
            ("rule for NaN", self.nan, ("stop", "zero")),
            ("test-time averaging", self.tta, ("none", "flips", "rotations")),
        ):
            if value not in allowed:
                raise OptionError(f"There is no {name} {value!r}. Use one of: {', '.join(allowed)}.")
        if self.scheduler and self.scheduler_file:
            raise OptionError("A cluster is named by --scheduler or by --scheduler-file, not by both.")
        if self.part is not None:
            parse_part(self.part)
        self._check_sizes()
        for name, number in (("workers", self.workers), ("threads", self.threads)):
            if number is not None and number < 1:
                raise OptionError(f"A run needs at least one of its {name}, not {number}.")

    def _check_sizes(self) -> None:
        """Raise unless sizes are such that their products can be computed with."""
        for name, sizes in (("tile", self.tile), ("region", self.region), ("chunks", self.chunks)):
            if any(not 1 <= size <= _MOST_ALONG for size in sizes or ()):
                raise OptionError(
                    f"Sizes of --{name} go from 1 to {_MOST_ALONG}, and one of {', '.join(map(str, sizes or ()))} "
                    "does not. Write one per axis, like 128,512,512."
                )


def configured(config: SegmentConfig | None, settings: Mapping[str, Any]) -> SegmentConfig:
    """Return a configuration with settings from a notebook over it, where memory and products may be texts."""
    given = {name: value for name, value in settings.items() if value is not None}
    for name in ("tile", "region", "chunks", "channels"):
        if isinstance(given.get(name), list):
            given[name] = tuple(given[name])
    if isinstance(given.get("memory"), str):
        given["memory"] = parse_bytes(given["memory"])
    if isinstance(given.get("products"), str):
        given["products"] = parse_products(given["products"])
    unknown = sorted(set(given) - set(SegmentConfig.__dataclass_fields__))
    if unknown:
        known = list(SegmentConfig.__dataclass_fields__)
        near = difflib.get_close_matches(unknown[0], known, n=1)
        hint = f"Did you mean {near[0]}?" if near else f"There are: {', '.join(known)}."
        raise OptionError(f"There is no setting {', '.join(unknown)}. {hint}")
    return replace(config or SegmentConfig(), **given)


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


def shown(text: str) -> str:
    """Return what somebody wrote, quoted for a message, and not more of it than helps."""
    return repr(text if len(text) <= 60 else f"{text[:57]}...")


def format_bytes(number: float) -> str:
    """Return bytes for people, in binary units.

    Examples
    --------
    >>> format_bytes(3 * 2**30), format_bytes(512)
    ('3.0 GiB', '512 B')
    """
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(number) < 1024:
            return f"{number:.0f} B" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} TiB"


def parse_products(text: str) -> tuple[str, ...]:
    """Return the names in a comma-separated list, each once, in the order given."""
    return tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


def parse_channels(text: str) -> tuple[int, ...]:
    """Return the channel numbers of a text such as "0,2".

    Raises
    ------
    OptionError
        If it is not a comma-separated list of whole numbers from 0.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(_WHOLE.fullmatch(part) for part in parts):
        raise OptionError(f"{shown(text)} is not a list of channels. Write them like 0,2; the first is 0.")
    return tuple(int(part) for part in parts)


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
