"""What holds several images: plates, wells, series of a converted file, folders of pictures or of stores.

Only documents and names are read. What is listed and cannot be opened is met by whoever opens it; a well whose own list
is damaged stands for the fields that nobody can name.
"""

from __future__ import annotations

import posixpath
from dataclasses import dataclass
from typing import TYPE_CHECKING

from unet_dask.errors import InputError
from unet_dask.io import remote
from unet_dask.io.remote import local_path, printable, shorten
from unet_dask.io.source import formats, node, not_zarr, numbered, ome, resolve

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from unet_dask.io.source.node import Node


@dataclass(frozen=True, slots=True)
class Member:
    """One of several images.

    Attributes
    ----------
    place : path or URL of its store or file
    key : path of it in there, "" if the place is the image
    name : by which it is known among the others, with slashes, such as "A/1/0"
    """

    place: str
    key: str
    name: str


def members(place: str, key: str | None = None, *, each: bool = False) -> list[Member] | None:
    """Return the images that a place holds, in order; None if it is one image, or nothing that is known.

    Parameters
    ----------
    place : path or URL
    key : path of a group in it
    each : whether the pictures of a folder are images by themselves, even if they could be planes of a stack

    Raises
    ------
    InputError
        If a document is damaged.
    """
    if remote.is_local(place) and _is_plain_folder(folder := local_path(place)):
        return _in_folder(folder, each=each)
    group = _group(place, key)
    if group is None:
        return None
    if isinstance(group.ome.get("plate"), dict):
        return list(_fields(group))
    if isinstance(group.ome.get("well"), dict):
        return list(_of_well(group, ""))
    names = _series(group)
    return [_member(group, name) for name in names] if len(names) > 1 else None


def series_key(place: str, number: int) -> str:
    """Return the key of one of the images of a converted file, or of a TIFF.

    Raises
    ------
    InputError
        If there is none of that number.
    """
    group = _group(place, None)
    if group is None:
        return str(number)
    names = _series(group)
    if not 0 <= number < len(names):
        raise InputError(
            f"--series {number} was asked of {group.shown}, which has {len(names)} series. "
            + (f"Use 0 to {len(names) - 1}." if names else "Name an image in it with --key.")
        )
    return posixpath.join(group.key, names[number])


def _group(place: str, key: str | None) -> Node | None:
    """Return the Zarr group at a place, None if something else is there, or nothing."""
    if not formats.reads_zarr(place):
        return None
    try:
        location, inner = resolve.locate(place, key)
    except InputError:  # whoever opens it says what is wrong
        return None
    found = node.read_node(location, inner)
    return None if found is None or found.is_array else found


def _member(group: Node, name: str) -> Member:
    return Member(group.location.url, posixpath.join(group.key, name), name)


def _fields(plate: Node) -> Iterator[Member]:
    """Yield all fields of all wells of a plate, in the order of its list."""
    for path in _paths(plate, "plate", "wells"):
        try:
            well = node.read_node(plate.location, posixpath.join(plate.key, path))
            fields = None if well is None else list(_of_well(well, path))
        except InputError:
            fields = None
        yield from [_member(plate, path)] if fields is None else fields


def _of_well(well: Node, name: str) -> Iterator[Member]:
    """Yield the fields of a well."""
    for path in _paths(well, "well", "images"):
        yield Member(
            well.location.url, posixpath.join(well.key, path), posixpath.join(name, path) if name else path
        )


def _paths(group: Node, kind: str, entries: str) -> list[str]:
    """Return the paths that the document of a plate or a well lists.

    Raises
    ------
    InputError
        If it is no list of paths within the group.
    """
    described = group.ome.get(kind)
    listed = described.get(entries) if isinstance(described, dict) else None
    paths = (
        [entry.get("path") for entry in listed if isinstance(entry, dict)] if isinstance(listed, list) else []
    )
    for path in paths or [None]:
        if not isinstance(path, str) or not ome.stays_inside(path):
            raise InputError(
                f"The OME-Zarr metadata of {group.shown} is damaged: {printable(path)!r} is no path among its "
                f"{entries}. Correct it, or name an image in it with --key."
            )
    return [str(path).strip("/") for path in dict.fromkeys(paths)]


def _series(group: Node) -> list[str]:
    """Return the names of the images of a converted file, as it lists them or by their numbers; [] for others."""
    if ome.default_key(group) is None:
        return []
    listing = node.read_node(group.location, posixpath.join(group.key, "OME"))
    named = listing.ome.get("series") if listing is not None else None
    if isinstance(named, list) and named:
        sound = [name for name in named if isinstance(name, str) and ome.stays_inside(name)]
        return [name.strip("/") for name in sound]
    numbers = sorted(int(name) for name in group.location.names(group.key) if name.isdecimal())
    return [str(number) for number in numbers]


def _is_plain_folder(path: Path) -> bool:
    """Tell whether a path is a folder that neither is a store nor lies in one."""
    return path.is_dir() and not formats.in_store(path.absolute())


def _in_folder(folder: Path, *, each: bool) -> list[Member] | None:
    """Return the images of a folder: of pictures that can be planes of a stack none, unless they are none."""
    try:
        found = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
        pictured = formats.format_of(str(folder.absolute())) == "folder"
        if pictured and not each and _is_stack(folder):
            return None
        images = [entry for entry in found if _is_image(entry)]
    except OSError as error:
        remote.Location(str(folder)).refuse(error)
    if not images:
        if each:
            raise InputError(f"The folder {shorten(str(folder))} holds no image that is read. Name another.")
        return None
    return [Member(str(path), "", formats.stem(path.name)) for path in images]


def _is_stack(folder: Path) -> bool:
    """Tell whether the pictures of a folder are numbered as the planes of a stack are."""
    try:
        numbered.in_order(folder)
    except InputError:
        return False
    return True


def _is_image(path: Path) -> bool:
    """Tell whether something in a folder is an image: a file of a format, or a store."""
    if path.is_dir():
        return not_zarr.is_store(path)
    return not formats.reads_zarr(str(path.absolute()))
