"""Which array of a store is meant, and what its axes are: every rule of choosing, in one place.

The rules are tried in a fixed order and the first that applies wins; whatever stays ambiguous is an error
that lists the possibilities. A wrong guess would segment a volume along the wrong axis without a word.
"""

from __future__ import annotations

import posixpath
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn
from urllib.parse import urlsplit

from unet_dask import axes as axes_
from unet_dask.errors import InputError
from unet_dask.io import remote
from unet_dask.io.remote import Location
from unet_dask.io.source import node, not_zarr, ome, zipped
from unet_dask.paths import is_chained

if TYPE_CHECKING:
    from pathlib import Path

    from unet_dask.io.source.node import Node

#: Entries that an error lists at most.
_LISTED = 8


@dataclass(frozen=True, slots=True)
class Chosen:
    """The array that is meant.

    Attributes
    ----------
    node : the array
    image : the OME-Zarr image that it is a level of, if it is one
    level : number of that level
    """

    node: Node
    image: ome.Multiscale | None = None
    level: int | None = None

    @property
    def level_of(self) -> ome.Level | None:
        """The level itself."""
        return None if self.image is None or self.level is None else self.image.levels[self.level]


def locate(url: str, key: str | None) -> tuple[Location, str]:
    """Return the root of the store and the path in it that `url` and `key` mean together.

    Raises
    ------
    InputError
        If there is nothing at `url`, or no Zarr store.
    """
    below = _clean_key(key or "")
    location, inner = _locate_local(url) if remote.is_local(url) else _locate_remote(url)
    return location, posixpath.join(inner, below) if inner and below else inner or below


def _clean_key(key: str) -> str:
    parts = [part for part in key.split("/") if part]
    if parts and not ome.stays_inside("/".join(parts)):
        raise InputError(
            f"The key {key!r} is no path inside a store. Use names separated by /, such as --key volumes/raw."
        )
    return "/".join(parts)


def _locate_local(url: str) -> tuple[Location, str]:
    path = remote.local_path(url).absolute()
    if ".." in path.parts:
        path = path.resolve()  # by text alone, ".." is wrong behind a symbolic link
    try:
        root = _root_of(path)
        packed = zipped.located(path) if root is None else None
        if packed is not None:
            return packed
        if root is None:
            raise not_zarr.no_store(path) if path.exists() else not_zarr.missing(path)
    except OSError as error:
        Location(str(path)).refuse(error)
    return Location(str(root)), "" if root == path else path.relative_to(root).as_posix()


def _root_of(path: Path) -> Path | None:
    """Return the topmost of the nested Zarr groups that `path` lies in or is."""
    root: Path | None = None
    for folder in (path, *path.parents):
        if not_zarr.is_store(folder):
            root = folder
        elif root is not None or folder.exists():
            break
    return root


def _locate_remote(url: str) -> tuple[Location, str]:
    """Split at the first component that ends in .zarr, if there is a store; parents are not probed."""
    if is_chained(url):
        return Location(url.rstrip("/")), ""
    parts = urlsplit(url)
    names = parts.path.rstrip("/").split("/")
    whole = Location(parts._replace(path="/".join(names)).geturl())
    cut = next((i + 1 for i, name in enumerate(names) if name.endswith(".zarr")), len(names))
    if cut < len(names):
        root = Location(parts._replace(path="/".join(names[:cut])).geturl())
        if node.read_node(root, "") is not None:
            return root, "/".join(names[cut:])
    return whole, ""


def choose(location: Location, key: str, level: int | None) -> Chosen:
    """Return the array that a node means: itself, a level of an image, or the only one in a group.

    Raises
    ------
    InputError
        If there is none, or more than one.
    """
    found = node.read_node(location, key)
    if found is None:
        _refuse_missing(location, key)
    if found.is_array:
        if level is not None:
            raise InputError(
                f"--level {level} was given, but {found.shown} is a single array without levels. Leave out "
                f"--level, or name the group of an OME-Zarr image."
            )
        return _with_image(found)
    image = ome.multiscale(found)
    if image is not None:
        return _level(found, image, level or 0)
    ome.refuse_collection(found)
    first = ome.default_key(found)
    if first is not None and node.read_node(location, first) is not None:
        return choose(location, first, level)
    return _only_array(found, level)


def _refuse_missing(location: Location, key: str) -> NoReturn:
    if not key:
        raise InputError(
            f"There is no Zarr store at {location.describe('')}: it has no zarr.json, .zgroup or .zarray. "
            f"Check the address; it must name the folder of the store itself."
        )
    above = node.read_node(location, posixpath.dirname(key)) or node.read_node(location, "")
    inside = _listing(list(node.descend(above))) if above is not None and not above.is_array else ""
    raise InputError(
        f"The store {location.describe('')} has no array or group {key!r}. "
        + (f"It holds: {inside}. Choose one with --key." if inside else "Check the key.")
    )


def _level(group: Node, image: ome.Multiscale, level: int) -> Chosen:
    count = len(image.levels)
    if not 0 <= level < count:
        raise InputError(
            f"--level {level} was asked of {group.shown}, which has {count} level{'s' * (count > 1)}. Use "
            f"{'0' if count == 1 else f'0 (the finest) to {count - 1}'}."
        )
    key = posixpath.join(group.key, image.levels[level].path)
    array = node.read_node(group.location, key)
    if array is None or not array.is_array:
        raise InputError(
            f"The OME-Zarr metadata of {group.shown} names {image.levels[level].path!r} as level {level}, "
            f"but there is no array. Restore it, or choose another level with --level."
        )
    return Chosen(array, image, level)


def _with_image(array: Node) -> Chosen:
    """Look for the OME-Zarr image above that an array is a level of: it knows the axes."""
    above = array.key
    while above:
        above = posixpath.dirname(above)
        try:
            group = node.read_node(array.location, above)
            image = ome.multiscale(group) if group is not None else None
        except InputError:
            return Chosen(array)  # damaged metadata above must not keep the array itself from being read
        for level, entry in enumerate(image.levels if image else ()):
            if posixpath.join(above, entry.path) == array.key:
                return Chosen(array, image, level)
    return Chosen(array)


def _only_array(group: Node, level: int | None) -> Chosen:
    below = list(node.descend(group))
    found = [child for child in below if child.is_array or child.is_image]
    images = [child for child in found if not (child.is_array and _is_coordinate(child, below))]
    if len(images) == 1:
        return choose(group.location, images[0].key, level)
    if not found:
        raise InputError(
            f"{group.shown} is a Zarr group, but no array was found in it. Name the array with --key; some "
            f"servers cannot list what a group holds."
        )
    raise InputError(
        f"{group.shown} holds {len(images) or len(found)} arrays: {_listing(images or found)}. Choose one "
        f"with --key."
    )


def _is_coordinate(array: Node, among: list[Node]) -> bool:
    """Tell whether an array holds coordinates in the sense of xarray and CF."""
    name = posixpath.basename(array.key)
    if len(array.shape) == 0 or (len(array.shape) == 1 and array.dimension_names == [name]):
        return True
    return any(name in str(other.attributes.get("coordinates", "")).split() for other in among)


def _listing(nodes: list[Node]) -> str:
    entries = [
        f"{remote.printable(child.key, 200)} {child.shape} {child.dtype_name}"
        if child.is_array
        else f"{remote.printable(child.key, 200)} (OME-Zarr image)"
        for child in nodes
        if child.is_array or child.is_image
    ]
    rest = len(entries) - _LISTED
    return ", ".join(entries[:_LISTED]) + (f" and {rest} more" if rest > 0 else "")


def decide_axes(
    chosen: Chosen, axes: str | None, *, dims: int | None, network_channels: int | None
) -> tuple[str, str]:
    """Return the axes of the stored array and where they were learnt.

    Raises
    ------
    InputError
        If they do not fit the array, or nothing says what they are.
    """
    array = chosen.node
    count = len(array.shape)
    if axes is not None:
        given = axes_.validate(axes)
        if len(given) != count:
            raise InputError(
                f"--axes {axes} names {len(given)} axes, but {array.shown} has {count} dimensions, "
                f"{array.shape}. Name each dimension once."
            )
        return given, "--axes"
    named = named_axes(chosen)
    if named is not None:
        return named
    guessed = guess(tuple(array.shape), array.shown, dims=dims, network_channels=network_channels)
    return guessed, f"guessed from {count} dimensions"


def named_axes(chosen: Chosen) -> tuple[str, str] | None:
    """Return the axes that a store names, and where; None if it does not."""
    array, image = chosen.node, chosen.image
    if image is not None:
        # OME-Zarr 0.1 and 0.2 have no axes: there, every image is tczyx.
        named = image.axes if image.units else "tczyx"
        if named is not None:
            if len(named) != len(array.shape):
                raise InputError(
                    f"The OME-Zarr metadata of {array.shown} names {len(named)} axes, {named}, but the array "
                    f"has {len(array.shape)} dimensions, {array.shape}. Say what they are with --axes."
                )
            return named, "OME-Zarr metadata"
    names = array.dimension_names
    known = axes_.from_names(names) if names else None
    if known is None:
        return None
    return known, "dimension_names" if array.metadata.get("dimension_names") else "_ARRAY_DIMENSIONS"


def guess(shape: tuple[int, ...], shown: str, *, dims: int | None, network_channels: int | None) -> str:
    """Return the axes of an array that does not name them, if only one reading makes sense.

    Raises
    ------
    InputError
        If there are several; the message lists them.
    """
    if len(shape) == 2:
        return "yx"
    if len(shape) == 3:
        readings = _readings_of_three(shape, dims, network_channels)
    elif len(shape) == 4:
        readings = _readings_of_four(shape, dims, network_channels)
    else:
        readings = ["tczyx"] if len(shape) == 5 else []
    if len(readings) == 1 and len(shape) < 5:
        return readings[0]
    options = " or ".join(f"--axes {reading}" for reading in readings) or "--axes with one letter each"
    raise InputError(
        f"The array {shown} has {len(shape)} dimensions, {shape}, and does not say what they are. Say "
        f"it with {options}."
    )


def _readings_of_three(shape: tuple[int, ...], dims: int | None, network_channels: int | None) -> list[str]:
    if dims == 3 or shape[2] not in (3, 4):
        # Channels first only where a stack of planes would not fit the network at all.
        first = dims == 2 and (network_channels or 1) > 1 and shape[0] == network_channels
        return ["cyx"] if first else ["zyx"]
    return ["yxc"] if network_channels in (3, shape[2]) else ["yxc", "zyx"]


def _readings_of_four(shape: tuple[int, ...], dims: int | None, network_channels: int | None) -> list[str]:
    every = ["czyx", "zyxc", "tzyx", "tcyx"]
    if dims != 3 or (network_channels or 1) == 1:
        return every
    ends = (("czyx", shape[0]), ("zyxc", shape[3]))
    return [reading for reading, size in ends if size == network_channels] or every
