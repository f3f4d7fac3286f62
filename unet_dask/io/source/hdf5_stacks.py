"""Volumes whose timepoints and channels are data sets of their own, with levels: those of BigDataViewer and of Imaris.

BigDataViewer keeps the size of a voxel, the names of channels and what its setups are in the XML beside the file; a
file without one is still read. Its 16-bit values are stored as signed and meant as unsigned. Imaris pads its data
sets, and writes texts letter by letter.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from unet_dask.errors import InputError
from unet_dask.io.remote import printable, shorten
from unet_dask.io.source import bdv_xml
from unet_dask.io.source.file_format import FileImage
from unet_dask.io.source.hdf5_chunks import COPIES, chunk_of, require_readable
from unet_dask.spacing import unit_name

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

_TIME = re.compile(r"t(\d{5,8})\Z")
_SETUP = re.compile(r"s(\d{2,6})\Z")


@dataclass(frozen=True)
class Parts:
    """Where the data sets of a volume lie.

    Attributes
    ----------
    keys : of the data sets, in order of time and channel
    leading : how many there are along these axes, () of a single volume
    unsigned : whether signed values are meant as unsigned ones
    """

    keys: tuple[str, ...]
    leading: tuple[int, ...]
    unsigned: bool = False


@dataclass(frozen=True)
class Volume:
    """What is known of a volume before its data sets are looked at.

    Attributes
    ----------
    keys : of the data sets, in order of time and channel
    counts : of timepoints and channels
    key, kind, level, levels, unit, names : as `FileImage` has them; shapes of levels are those of one data set
    spacing : along z, y and x
    """

    keys: tuple[str, ...]
    counts: dict[str, int]
    key: str
    kind: str
    level: int
    levels: tuple[tuple[str, tuple[int, ...]], ...]
    spacing: Sequence[float] | None
    unit: str | None
    names: tuple[str, ...]


def stack_of(opened: Any, path: Path, inner: str, level: int | None) -> FileImage | None:
    """Return the volume of a file of BigDataViewer or Imaris; None of any other, and where a data set is named.

    Raises
    ------
    InputError
        If there is no such volume or level, or there are several.
    """
    if "DataSet" in opened and "DataSetInfo" in opened and not inner.startswith("DataSet"):
        return _imaris(opened, path, inner, level)
    if any(_TIME.match(name) for name in opened) and not _TIME.match(inner.split("/", maxsplit=1)[0]):
        return _bdv(opened, path, inner, level)
    return None


def read(opened: Any, image: FileImage, selection: tuple[slice, ...]) -> NDArray[np.generic]:
    """Return a part of a volume."""
    parts = image.place
    assert isinstance(parts, Parts)
    count = len(parts.leading)
    lead, inner = selection[:count], selection[count:]
    values = np.empty([part.stop - part.start for part in selection], image.dtype)
    for at in product(*(range(part.start, part.stop) for part in lead)):
        number = int(np.ravel_multi_index(at, parts.leading)) if at else 0
        found = np.asarray(opened[parts.keys[number]][inner])
        if parts.unsigned:
            found = found.astype(found.dtype.newbyteorder("=")).view(image.dtype)
        values[tuple(n - part.start for n, part in zip(at, lead, strict=True))] = found
    return values


def _bdv(opened: Any, path: Path, inner: str, level: int | None) -> FileImage:
    """Return the volume of BigDataViewer that a key names: ``s00``, ``s00/1``, or ``1`` where setups are channels."""
    times = sorted(name for name in opened if _TIME.match(name))
    every = sorted({name for name in opened[times[0]] if _SETUP.match(name)})
    said = bdv_xml.read(path)
    named, number = _key(inner, path)
    setups = [named] if named else every
    if named is not None and named not in every:
        raise InputError(f"{shorten(str(path))} has no setup {named!r}. It has {', '.join(every) or 'none'}.")
    channels = said.channels_of([int(name[1:]) for name in setups]) if len(setups) > 1 else ()
    if len(setups) != 1 and not channels:
        raise InputError(
            f"{shorten(str(path))} holds {len(every)} setups (views): {', '.join(every[:8])}. Choose one with --key."
        )
    factors = np.asarray(opened[setups[0]]["resolutions"], float)[:, ::-1] if setups[0] in opened else None
    count = len([name for name in opened[times[0]][setups[0]] if name.isdecimal()])
    picked = _level(path, number if level is None else level, count)
    keys = tuple(f"{time}/{setup}/{picked}/cells" for time in times for setup in setups)
    sizes = said.voxel_of(int(setups[0][1:]))
    coarser = factors[picked] if factors is not None and len(factors) > picked else np.ones(3)
    prefix = f"{named}/" if named else ""
    shapes = tuple(opened[f"{times[0]}/{setups[0]}/{n}/cells"].shape for n in range(count))
    volume = Volume(
        keys,
        {"t": len(times), "c": len(setups)},
        key=f"{prefix}{picked}",
        kind="HDF5 of BigDataViewer",
        levels=tuple((f"{prefix}{n}", shape) for n, shape in enumerate(shapes)),
        level=picked,
        spacing=None if sizes is None else tuple(np.asarray(sizes[::-1]) * coarser),
        unit=None if sizes is None else said.unit_of(int(setups[0][1:])),
        names=channels,
    )
    return _stacked(opened, path, volume)


def _imaris(opened: Any, path: Path, inner: str, level: int | None) -> FileImage:
    """Return the volume of an Imaris file; a key names its level."""
    _, number = _key(inner, path)
    group = opened["DataSet"]
    picked = _level(path, number if level is None else level, len(group))
    times = _numbered(group[f"ResolutionLevel {picked}"], "TimePoint")
    channels = _numbered(group[f"ResolutionLevel {picked}"][times[0]], "Channel")
    keys = tuple(f"DataSet/ResolutionLevel {picked}/{t}/{c}/Data" for t in times for c in channels)
    shapes = [_imaris_shape(group, n, times[0], channels[0]) for n in range(len(group))]
    info = opened["DataSetInfo"]
    finest = np.asarray(shapes[0], float)
    low = [_number(info["Image"], f"ExtMin{n}") for n in (2, 1, 0)]
    high = [_number(info["Image"], f"ExtMax{n}") for n in (2, 1, 0)]
    known = None not in low and None not in high
    extent = np.asarray(high, float) - np.asarray(low, float) if known else None
    coarser = np.round(finest / np.asarray(shapes[picked]))
    names = tuple(_letters(info[name], "Name") for name in channels if name in info)
    volume = Volume(
        keys,
        {"t": len(times), "c": len(channels)},
        key=str(picked),
        kind="Imaris",
        levels=tuple((str(n), shape) for n, shape in enumerate(shapes)),
        level=picked,
        spacing=None if extent is None else tuple(extent / finest * coarser),
        unit=unit_name(_letters(info["Image"], "Unit") or "um"),
        names=names if all(names) and len(names) == len(channels) else (),
    )
    return _stacked(opened, path, volume)


def _stacked(opened: Any, path: Path, volume: Volume) -> FileImage:
    """Return the volume of some data sets, all of one shape and type."""
    missing = next((each for each in volume.keys if each not in opened), None)
    if missing is not None:
        raise InputError(
            f"{shorten(str(path))} has no {printable(missing, 100)!r}, which its other timepoints have. It may be one "
            "of several files of an image: save the image as one."
        )
    found = [opened[each] for each in volume.keys]
    for each in found:
        require_readable(each, path)
    if len({(each.shape, each.dtype) for each in found}) > 1:
        raise InputError(f"{shorten(str(path))} holds volumes that differ in size. Choose one with --key.")
    along = {axis: count for axis, count in volume.counts.items() if count > 1}
    leading = tuple(along.values())
    signed = np.dtype(found[0].dtype)
    unsigned = volume.kind.endswith("BigDataViewer") and signed.kind == "i"
    sizes = tuple(int(size) for size in volume.levels[volume.level][1])
    return FileImage(
        key=volume.key,
        shape=(*leading, *sizes),
        dtype=np.dtype(f"u{signed.itemsize}") if unsigned else signed.newbyteorder("="),
        chunk=(1,) * len(leading) + chunk_of(found[0]),
        kind=volume.kind,
        copies=COPIES,
        place=Parts(volume.keys, leading, unsigned),
        axes="".join(along) + "zyx",
        spacing=None if volume.spacing is None else dict(zip("zyx", map(float, volume.spacing), strict=True)),
        unit=volume.unit,
        channel_names=volume.names if "c" in along else (),
        level=volume.level if len(volume.levels) > 1 else None,
        levels=tuple((name, (*leading, *map(int, size))) for name, size in volume.levels)
        if len(volume.levels) > 1
        else (),
    )


def _key(inner: str, path: Path) -> tuple[str | None, int | None]:
    """Return the setup and the level that a key names."""
    match = re.fullmatch(r"(?:(s\d{2,6})(?:/|\Z))?(\d{1,4})?", inner)
    if match is None:
        raise InputError(
            f"{printable(inner)!r} names nothing in {shorten(str(path))}. It has levels, such as --key 0, and setups, "
            "such as --key s00/0."
        )
    return match[1], int(match[2]) if match[2] else None


def _level(path: Path, level: int | None, count: int) -> int:
    if level is None or 0 <= level < count:
        return level or 0
    raise InputError(
        f"--level {level} was asked of {shorten(str(path))}, which has {count} levels. Use 0 (the finest) to "
        f"{count - 1}."
    )


def _numbered(group: Any, what: str) -> list[str]:
    """Return the names of a group that are a word and a number, in order of the numbers."""
    found = [name for name in group if re.fullmatch(rf"{what} \d{{1,8}}", name)]
    return sorted(found, key=lambda name: int(name.rpartition(" ")[2]))


def _imaris_shape(group: Any, level: int, time: str, channel: str) -> tuple[int, ...]:
    """Return the shape of a level without its padding."""
    found = group[f"ResolutionLevel {level}"][time][channel]
    sizes = [_number(found, f"ImageSize{axis}") for axis in "ZYX"]
    return tuple(
        min(int(size), stored) if size else stored
        for size, stored in zip(sizes, found["Data"].shape, strict=True)
    )


def _letters(node: Any, name: str) -> str:
    """Return a text that Imaris wrote as an array of single letters, "" if there is none."""
    try:
        return (
            b"".join(np.asarray(node.attrs[name], "S1").ravel().tolist()).decode("utf-8", "replace").strip()
        )
    except (KeyError, TypeError, ValueError, OSError):
        return ""


def _number(node: Any, name: str) -> float | None:
    try:
        return float(_letters(node, name))
    except ValueError:
        return None
