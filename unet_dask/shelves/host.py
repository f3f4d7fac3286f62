"""The image that something is put into: a local OME-Zarr image in a version that is written today."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from unet_dask.axes import has_channel, is_channel, without_channel
from unet_dask.errors import InputError
from unet_dask.io import remote
from unet_dask.io.source import node, ome
from unet_dask.io.source.zarr_source import open_array

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from unet_dask.io.source.node import Node
    from unet_dask.io.source.ome import Multiscale
    from unet_dask.io.source.volume import Source

#: Versions of OME-Zarr that are written, and the version of Zarr that goes with each.
_WRITTEN = {"0.4": 2, "0.5": 3}


@dataclass(frozen=True, slots=True)
class HostLevel:
    """A level of an image, without its channels.

    Attributes
    ----------
    shape : in voxels
    chunks, shards : in which it is stored; None for no shards
    scale, translation : physical size of a voxel, and where the first one lies
    """

    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    shards: tuple[int, ...] | None
    scale: tuple[float, ...]
    translation: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Host:
    """A local OME-Zarr image.

    Attributes
    ----------
    folder : of its group
    version : of OME-Zarr
    axes : one letter each, without that of channels
    described : the same axes as its metadata describe them
    levels : the finest first
    chosen : level that a result is of
    """

    folder: Path
    version: str
    axes: str
    described: Sequence[dict[str, Any]]
    levels: tuple[HostLevel, ...]
    chosen: int

    @property
    def zarr_format(self) -> Literal[2, 3]:
        """Version of Zarr."""
        return 2 if _WRITTEN[self.version] == 2 else 3

    @property
    def hierarchy(self) -> list[Path]:
        """Folders of its group and of all groups around it, the innermost first."""
        groups = [self.folder]
        while any((groups[-1].parent / name).is_file() for name in ("zarr.json", ".zgroup")):
            groups.append(groups[-1].parent)
        return groups


def host_of(source: Source) -> Host:
    """Return the image that an array is a level of.

    Raises
    ------
    InputError
        If it is none on this machine, or one of a version that is not written.
    """
    spec = source.spec
    shown = remote.redact_url(spec.url)
    if not (remote.is_local(spec.url) and spec.zarr_format):
        raise InputError(
            f"Nothing is put into {shown}: it is no Zarr store in a folder of this machine. Convert it to OME-Zarr, "
            "or write a file with -o."
        )
    found, key = _image_around(remote.Location(spec.url), spec.key)
    image = ome.multiscale(found) if found is not None else None
    if found is None or image is None or image.axes is None or source.level is None:
        raise InputError(
            f"Nothing is put into {shown}: it is a bare array, and labels belong to an OME-Zarr image. Write a file "
            "with -o."
        )
    if _WRITTEN.get(image.version) != found.zarr_format:
        raise InputError(
            f"Nothing is put into {shown}: it is OME-Zarr {remote.printable(image.version)} in Zarr "
            f"{found.zarr_format}, and labels are written as 0.4 in Zarr 2 or 0.5 in Zarr 3. Convert it, or write a "
            "file with -o."
        )
    return Host(
        folder=remote.local_path(spec.url) / key,
        version=image.version,
        axes=without_channel(image.axes),
        described=_described(found, image.axes),
        levels=tuple(_level(found, image, number) for number in range(len(image.levels))),
        chosen=source.level,
    )


def _image_around(location: remote.Location, key: str) -> tuple[Node | None, str]:
    """Return the group of the image that an array lies in, and its key."""
    while key:
        key = posixpath.dirname(key)
        found = node.read_node(location, key)
        if found is not None and found.is_image:
            return found, key
    return None, ""


def _described(found: Node, axes: str) -> list[dict[str, Any]]:
    """Return what metadata say of axes; `axes` is known of them, so they are what they should be."""
    entries: Any = found.ome["multiscales"]
    return [
        dict(entry) if isinstance(entry, dict) else {"name": entry}
        for axis, entry in zip(axes, entries[0]["axes"], strict=True)
        if not is_channel(axis)
    ]


def _level(found: Node, image: Multiscale, number: int) -> HostLevel:
    level, axes = image.levels[number], image.axes or ""
    array = node.read_node(found.location, posixpath.join(found.key, level.path))
    if array is None or not array.is_array or len(array.shape) != len(axes):
        raise InputError(
            f"The image {found.shown} lacks its level {remote.printable(level.path)}, so no label image fits it. "
            "Restore it from a copy."
        )
    opened = open_array(array)
    kept = [place for place, axis in enumerate(axes) if not has_channel(axis)]

    def of_kept(values: Sequence[Any]) -> tuple[Any, ...]:
        return tuple(values[place] for place in kept)

    return HostLevel(
        of_kept(opened.shape),
        of_kept(opened.chunks),
        None if opened.shards is None else of_kept(opened.shards),
        of_kept(level.scale),
        of_kept(level.translation),
    )
