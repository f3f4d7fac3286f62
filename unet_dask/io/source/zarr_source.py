"""Zarr, versions 2 and 3, and OME-Zarr: opened once per process, decoded by Zarr, distrusted.

Zarr reads missing data as fill value without a word. That is right where nothing was stored, and wrong
where a write was cut short or a mount was lost; the two are told apart by :mod:`unet_dask.io.source.witness`.
"""

from __future__ import annotations

import posixpath
import warnings
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING, NoReturn

import numpy as np
import zarr
from zarr.storage import FsspecStore

from unet_dask import axes as axes_
from unet_dask.errors import DataError, InputError
from unet_dask.io import remote
from unet_dask.io.bounded import OpenedArray, RegularFiles, bounded_array
from unet_dask.io.remote import Location
from unet_dask.io.source import content, node, not_zarr, ome, pieces, resolve, witness
from unet_dask.io.source.absent import NotedAbsences, noted
from unet_dask.io.source.chunk_cache import ChunkCache, file_versions
from unet_dask.io.source.protocol import Found
from unet_dask.paths import archive_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray
    from zarr.abc.store import Store

    from unet_dask.io.source.node import Node
    from unet_dask.io.source.pieces import Decoding
    from unet_dask.io.source.protocol import SourceSpec, Wanted
    from unet_dask.io.source.stamps import Look

SUFFIXES = (".ome.zarr.zip", ".zarr.zip", ".ome.zarr", ".zarr", ".ozx", ".zip")


@dataclass(frozen=True, slots=True)
class ZarrArray:
    """An opened Zarr array.

    Attributes
    ----------
    node : where it is, and its documents when it was opened
    array : as Zarr reads it
    written : time of change (ns) of the document that it was chosen by; 0 for any
    """

    node: Node
    array: OpenedArray
    written: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Stored shape."""
        return tuple(self.array.shape)

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """Type of the values, in any byte order."""
        return np.dtype(self.array.dtype)

    @property
    def unit(self) -> tuple[int, ...]:
        """The shard, or the chunk where there are no shards."""
        return tuple(self.array.shards or self.array.chunks)

    @property
    def decoding(self) -> Decoding:
        """What reading takes beside what is read."""
        return pieces.decoding(self.array)

    @property
    def facts(self) -> Mapping[str, object]:
        """Chunks, shards and version of Zarr."""
        shards = self.array.shards
        return {
            "chunks": list(self.array.chunks),
            "shards": None if shards is None else list(shards),
            "zarr_format": self.node.zarr_format,
        }

    def look(self, selection: tuple[slice, ...]) -> Look | None:
        """Look at the files that hold a part, one slice per axis; None in a store without files."""
        return witness.look(self.node, self.array, selection)

    def read(self, selection: tuple[slice, ...]) -> tuple[NDArray[np.generic], Look | None]:
        """Return stored values, if what lay there before they were read is what lies there afterwards."""
        before = self.look(selection)
        if before is not None and before.others and self.array.shards is not None:
            _refuse_empty_shards(self.node, before)
        with noted() as absent:
            stored = pieces.read(self.array, selection)
        after = self.look(selection)
        witness.require_same(self.node, self.written, before, after, absent)
        return stored, after

    def refuse(self, window: str, error: BaseException) -> NoReturn:
        """Raise our own error for what went wrong in reading a window."""
        location = self.node.location
        if remote.is_unreachable(error):
            location.refuse(error)
        cause = "a chunk is damaged or cut short"
        if self.array.shards is not None and not remote.is_local(location.url):
            cause += ", or the service ignores byte ranges"
        remote.wrap(
            error,
            f"Cannot decode the window {window} of the array {self.node.shown}: {cause} "
            f"({type(error).__name__}: {remote.one_line(error)}). Restore the chunk from a copy.",
            DataError,
        )


def holds(path: Path) -> bool:
    """Tell whether a folder is a Zarr store."""
    return not_zarr.is_store(path)


def find(place: str, wanted: Wanted) -> Found:
    """Return the array that is meant by the rules of :mod:`unet_dask.io.source.resolve`.

    Raises
    ------
    InputError
        If there is none, or it cannot be read.
    """
    location, inner = resolve.locate(place, wanted.key)
    chosen = resolve.choose(location, inner, wanted.level)
    array = open_array(chosen.node)
    stored, origin = resolve.decide_axes(
        chosen, wanted.axes, dims=wanted.dims, network_channels=wanted.network_channels
    )
    level, image = chosen.level_of, chosen.image
    known = level is not None and len(level.scale) == len(stored)
    written = witness.written(location, chosen.node.key, chosen.node.zarr_format)
    return Found(
        url=location.url,
        key=chosen.node.key,
        zarr_format=chosen.node.zarr_format,
        metadata=sha256(chosen.node.document).hexdigest(),
        written=written,
        axes=stored,
        origin=origin,
        stored=ZarrArray(chosen.node, array, written),
        name=_name(location, chosen),
        shown=chosen.node.shown,
        spacing=level.scale if known and level else None,
        translation=level.translation if known and level else None,
        units=image.units if known and image else None,
        level=chosen.level,
        channel_names=_channel_names(image, stored, array.shape),
    )


def _channel_names(image: ome.Multiscale | None, axes: str, shape: tuple[int, ...]) -> tuple[str, ...]:
    """Return the names that OMERO's part gives the channels, () if it does not name every one."""
    names = image.channel_names if image else ()
    count = axes_.by_axis(axes, shape).get("c")
    return names if all(names) and len(names) == count else ()


def _name(location: Location, chosen: resolve.Chosen) -> str:
    if chosen.image is not None and chosen.image.name.strip("/ "):
        return remote.printable(" ".join(chosen.image.name.split()), 200)
    root = posixpath.basename(location.shown.rstrip("/")) or "source"
    for suffix in (".zip", ".ozx", ".zarr", ".ome"):
        root = root.removesuffix(suffix)
    return posixpath.join(root, chosen.node.key) if chosen.image is None and chosen.node.key else root


def opened(spec: SourceSpec, *, keep: bool) -> ZarrArray:
    """Return the array of a spec, in any process.

    Raises
    ------
    DataError
        If the array is gone or another one is in its place.
    """
    found = _found(spec)
    return ZarrArray(found, open_array(found, keep=keep), spec.written)


def digest(spec: SourceSpec) -> str:
    """Return a digest of what the array holds, see :mod:`unet_dask.io.source.content`."""
    archive = archive_of(spec.url)
    if archive is not None:
        return content.file_digest(archive)
    from unet_dask.io.source import window

    stored = window.opened(spec)
    assert isinstance(stored, ZarrArray)
    return content.digest(Location(spec.url), spec.key, stored.array)


def levels(spec: SourceSpec) -> list[dict[str, object]]:
    """Return path and shape of every level of the pyramid; the shape of one that is missing is []."""
    location, above = Location(spec.url), posixpath.dirname(spec.key)
    while True:
        found = node.read_node(location, above)
        image = ome.multiscale(found) if found is not None and not found.is_array else None
        if image is not None or not above:
            break
        above = posixpath.dirname(above)
    entries: list[dict[str, object]] = []
    for level in image.levels if image else ():
        array = node.read_node(location, posixpath.join(above, level.path))
        shape = [] if array is None or not array.is_array else list(array.shape)
        entries.append({"path": level.path, "shape": shape})
    return entries


def _found(spec: SourceSpec) -> Node:
    location = Location(spec.url)
    found = node.read_node(location, spec.key)
    same = found is not None and sha256(found.document).hexdigest() == spec.metadata
    if spec.written and same:  # another array may have the same document, byte for byte
        same = witness.written(location, spec.key, spec.zarr_format) == spec.written
    if found is None or not found.is_array or not same:
        raise DataError(
            f"The array {location.describe(spec.key)} was replaced since it was opened. Open the source "
            f"again."
        )
    return found


def open_array(found: Node, *, keep: bool = False) -> OpenedArray:
    """Return an array opened with Zarr, after our own checks of its document.

    Parameters
    ----------
    found : where it is
    keep : whether to keep the chunks that were read last, see `ChunkCache`

    Raises
    ------
    InputError
        If it is not numeric, not safe or not sound.
    """
    node.check_array(found)
    try:
        with warnings.catch_warnings():
            # An array that numcodecs wrote is ours to read, whatever the specification says of it.
            warnings.filterwarnings("ignore", message="Numcodecs codecs are not in", category=UserWarning)
            array = zarr.open_array(
                store=store_of(found.location), path=found.key, mode="r", zarr_format=found.zarr_format
            )
    except InputError:
        raise
    except (Exception, RecursionError) as error:
        if remote.is_unreachable(error):
            found.location.refuse(error)
        remote.wrap(
            error,
            f"The metadata of the array {found.shown} is damaged or of a kind that Zarr {zarr.__version__} "
            f"does not read: {remote.one_line(error)} ({type(error).__name__}). Restore it from a copy, or "
            f"write the array again.",
        )
    _refuse_bomb(found, array)
    return bounded_array(array, partial(_watched, found.location, keep=keep))


def store_of(location: Location) -> Store:
    """Return what Zarr reads a place through."""
    if remote.is_local(location.url):
        return RegularFiles(remote.local_path(location.url))
    url, options = location.options()
    return FsspecStore.from_url(url, storage_options=options, read_only=True)


def _watched(location: Location, store: Store, *, keep: bool) -> Store:
    """Return a store that notes what it does not hold, and may keep what was read last until that changes."""
    return NotedAbsences(ChunkCache(store, version=file_versions(location)) if keep else store)


def _refuse_bomb(found: Node, array: OpenedArray) -> None:
    if min(array.chunks) < 1 and min(array.shape) > 0:
        raise InputError(
            f"The metadata of the array {found.shown} is damaged: its chunks are {array.chunks}, which hold nothing. "
            f"Restore it from a copy, or write the store again."
        )
    count = 1
    for size in array.chunks:
        count *= int(size)
    decoded = count * np.dtype(array.dtype).itemsize
    if decoded > node.CHUNK_LIMIT:
        raise InputError(
            f"One chunk of the array {found.shown} is {decoded / 1024**3:.1f} GiB in memory, more than the "
            f"{node.CHUNK_LIMIT // 1024**3} GiB that a worker decodes at once. Write it again with smaller "
            f"chunks, such as {'x'.join(['128'] * min(len(array.shape), 3))}."
        )


def _refuse_empty_shards(found: Node, look: Look) -> None:
    """Refuse shards of zero length, what a power cut can leave: Zarr would read them as fill value."""
    for key, file in look.chunks.items():
        if file is not None and file[0] == 0:
            raise DataError(
                f"The shard {key!r} of the array {found.shown} has zero length: "
                f"its writing was cut short. Write it again."
            )
