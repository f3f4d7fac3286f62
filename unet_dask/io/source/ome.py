"""The metadata of OME-Zarr images, 0.1 to 0.6: which arrays, which axes, how large a pixel is.

Only what a reader needs is parsed, and only the first multiscale of a group counts, as in every viewer.
The specification's word for the size of a pixel is *scale*; outside this module it is *spacing*.

References
----------
.. [1] https://ngff.openmicroscopy.org/0.5/ and /0.4/, sections "multiscales" and "axes".
"""

from __future__ import annotations

import posixpath
from dataclasses import dataclass
from typing import TYPE_CHECKING

from unet_dask import axes as axes_
from unet_dask.errors import InputError
from unet_dask.io.remote import printable
from unet_dask.io.source import ome_systems

if TYPE_CHECKING:
    from unet_dask.io.source.node import Json, Node

#: Beyond every physical size, in any unit.
_LARGEST = 1e100


@dataclass(frozen=True, slots=True)
class Level:
    """One resolution of an image.

    Attributes
    ----------
    path : of the array, relative to the group of the image
    scale : physical size of a pixel along each stored axis
    translation : physical position of the first pixel along each stored axis
    """

    path: str
    scale: tuple[float, ...]
    translation: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Multiscale:
    """An image in several resolutions.

    Attributes
    ----------
    version : of OME-Zarr, such as "0.5"
    name : of the image, "" if it has none
    axes : names as one letter each; None if the document has none or they are no letters of ours
    units : of each axis, None where none is given
    levels : from the finest to the coarsest
    channel_names : that OMERO's part gives, "" of a channel without one
    """

    version: str
    name: str
    axes: str | None
    units: tuple[str | None, ...]
    levels: tuple[Level, ...]
    channel_names: tuple[str, ...] = ()


def multiscale(node: Node) -> Multiscale | None:
    """Return the image that a group describes, or None if it describes none.

    Raises
    ------
    InputError
        If the description is damaged, or a path in it leaves the group.
    """
    entries = node.ome.get("multiscales")
    if not entries:
        return None
    image = ome_systems.plain(node, _first(node, entries, "multiscales"))
    datasets = image.get("datasets")
    _first(node, datasets, "datasets")
    names = image.get("axes")
    named = names if isinstance(names, list) else []
    outer = image.get("coordinateTransformations")
    version = image.get("version") or node.ome.get("version") or "0.4"
    return Multiscale(
        version=str(version),
        name=str(image.get("name") or ""),
        axes=_axes(named),
        units=tuple(_unit(axis) for axis in named),
        levels=tuple(_level(node, entry, outer, len(named)) for entry in datasets)
        if isinstance(datasets, list)
        else (),
        channel_names=_channel_names(node.ome.get("omero")),
    )


def _channel_names(omero: object) -> tuple[str, ...]:
    channels = omero.get("channels") if isinstance(omero, dict) else None
    listed = channels if isinstance(channels, list) else []
    labels = (each.get("label") if isinstance(each, dict) else None for each in listed)
    return tuple(label.strip() if isinstance(label, str) else "" for label in labels)


def refuse_collection(node: Node) -> None:
    """Refuse a group that holds images but is none.

    Raises
    ------
    InputError
        For a plate, a well or a group of labels; the message names what can be chosen.
    """
    found = node.ome
    plate = found.get("plate")
    if isinstance(plate, dict):
        wells = plate.get("wells")
        listed = [well for well in wells if isinstance(well, dict)] if isinstance(wells, list) else []
        first = printable(listed[0].get("path")) if listed else "A/1"
        raise InputError(
            f"{node.shown} is a plate of wells ({len(listed)} listed), and one image is meant here. "
            f"Choose a field of a well, such as --key {posixpath.join(node.key, first, '0')}."
        )
    if isinstance(found.get("well"), dict):
        raise InputError(
            f"{node.shown} is a well of a plate, and one image is meant here. Choose a field, such "
            f"as --key {posixpath.join(node.key, '0')}."
        )
    labels = found.get("labels")
    if isinstance(labels, list) and "multiscales" not in found:
        keys = ", ".join(posixpath.join(node.key, printable(name)) for name in labels[:8])
        raise InputError(
            f"{node.shown} is a group of labels, which are results and no image. Choose one with --key if "
            f"you mean it: {keys or 'it is empty'}."
        )


def default_key(node: Node) -> str | None:
    """Return the key of the first image of a bioformats2raw collection, or None for any other group."""
    if "bioformats2raw.layout" in node.ome or "bioformats2raw.layout" in node.attributes:
        return posixpath.join(node.key, "0")
    return None


def _first(node: Node, entries: object, what: str) -> Json:
    if isinstance(entries, list) and entries and isinstance(entries[0], dict):
        return entries[0]
    raise InputError(
        f"The OME-Zarr metadata of {node.shown} is damaged: {what} is not a list of objects. Name the array "
        f"itself with --key and its axes with --axes."
    )


def _axes(named: list[object]) -> str | None:
    """Return one letter per axis, by name or, for time and channels of any name, by type."""
    letters = []
    for axis in named:
        entry = axis if isinstance(axis, dict) else {"name": axis}
        by_type = {"time": "t", "channel": "c"}.get(str(entry.get("type")))
        letters.append(by_type or axes_.SYNONYMS.get(str(entry.get("name")).lower()))
    joined = "".join(letter or "" for letter in letters)
    sound = all(letters) and axes_.fit_an_image(joined)
    return joined if sound else None


def _unit(axis: object) -> str | None:
    unit = axis.get("unit") if isinstance(axis, dict) else None
    return unit if isinstance(unit, str) else None


def _level(node: Node, entry: object, outer: object, count: int) -> Level:
    path = entry.get("path") if isinstance(entry, dict) else None
    if not isinstance(entry, dict) or not isinstance(path, str) or not stays_inside(path):
        raise InputError(
            f"The OME-Zarr metadata of {node.shown} names the dataset {printable(path)!r}, which is no path "
            f"inside the group. Name the array itself with --key and its axes with --axes."
        )
    inner = entry.get("coordinateTransformations")
    scale, shift = _transform(node, inner, count)
    outer_scale, outer_shift = _transform(node, outer, count)
    return Level(
        path=path.strip("/"),
        scale=tuple(a * b for a, b in zip(scale, outer_scale, strict=True)),
        translation=tuple(a * b + c for a, b, c in zip(shift, outer_scale, outer_shift, strict=True)),
    )


def stays_inside(path: str) -> bool:
    """Tell whether a path from metadata stays below its group."""
    parts = path.strip("/").split("/")
    return (
        "\\" not in path and not path.startswith("/") and not any(part in ("", ".", "..") for part in parts)
    )


def _transform(node: Node, steps: object, count: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the scale and the translation of a list of transformations, applied in order."""
    scale, shift = (1.0,) * count, (0.0,) * count
    for step in steps if isinstance(steps, list) else ():
        kind = step.get("type") if isinstance(step, dict) else None
        if kind == "scale" and "scale" in step:
            factor = _numbers(node, step["scale"], count, positive=True)
            scale = tuple(a * b for a, b in zip(scale, factor, strict=True))
            shift = tuple(a * b for a, b in zip(shift, factor, strict=True))
        elif kind == "translation" and "translation" in step:
            offset = _numbers(node, step["translation"], count, positive=False)
            shift = tuple(a + b for a, b in zip(shift, offset, strict=True))
    return scale, shift


def _numbers(node: Node, values: object, count: int, *, positive: bool) -> tuple[float, ...]:
    given = values if isinstance(values, list) else []
    if len(given) == count and all(_is_size(value, positive=positive) for value in given):
        return tuple(float(value) for value in given)
    raise InputError(
        f"The OME-Zarr metadata of {node.shown} is damaged: {printable(values)} is no "
        f"{'scale' if positive else 'translation'} for {count} axes. Correct it, or name the array itself "
        f"with --key and its axes with --axes."
    )


def _is_size(value: object, *, positive: bool) -> bool:
    """Tell whether a value is a number that a float can hold; JSON's may be larger."""
    return (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        and abs(value) < _LARGEST
        and (value > 0 or not positive)
    )
