"""Whether what was read of a source is what lies there: nothing was lost, moved or changed while it was read.

A disk that is unmounted, or a folder that is moved away, makes every chunk absent, and absent chunks are fill value
to Zarr. So the files of a window are looked at before it is read and afterwards: their sizes, their times of change,
the folders that they lie in; of a zip archive, of the archive. Both looks must be the same, what was found absent
must be absent, and the document of the array must still say what it said when the source was opened. In an object
store, where a look would cost a request for each chunk, the document and the absent chunks alone are asked for again.
"""

from __future__ import annotations

import itertools
import os
import posixpath
from typing import TYPE_CHECKING

from unet_dask.io import remote
from unet_dask.io.remote import UnreachableError
from unet_dask.io.source import node
from unet_dask.io.source.stamps import ChangedError, Look, file_at
from unet_dask.paths import archive_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from unet_dask.io.bounded import OpenedArray
    from unet_dask.io.remote import Location
    from unet_dask.io.source.node import Node

#: Documents of an array, by the version of Zarr.
DOCUMENTS = {2: (".zarray", ".zattrs"), 3: ("zarr.json",)}


def look(place: Node, array: OpenedArray, selection: tuple[slice, ...]) -> Look | None:
    """Look at the files that hold a part of an array; None where there are no files.

    Parameters
    ----------
    place : of the array
    array : opened
    selection : one slice per stored axis
    """
    archive = archive_of(place.location.url)
    if archive is not None:
        return Look({archive.name: file_at(str(archive))}, {})
    if not remote.is_local(place.location.url):
        return None
    root = str(remote.local_path(place.location.url))
    chunks = {key: file_at(posixpath.join(root, key)) for key in _keys(place, array, selection)}
    documents = (posixpath.join(place.key, name) for name in DOCUMENTS[place.zarr_format])
    others: dict[str, tuple[int, ...]] = {
        key: file_at(posixpath.join(root, key)) or (-1,) for key in documents
    }
    folders = {place.key}
    while "" not in folders:  # a folder that is moved away and back has another time of change
        folders.add(posixpath.dirname(min(folders, key=len)))
    for key, found in chunks.items():
        folder = posixpath.dirname(key) if found else _nearest(root, key)
        while folder not in folders:
            folders.add(folder)
            folder = posixpath.dirname(folder)
    return Look(chunks, others | {folder: _folder(posixpath.join(root, folder)) for folder in folders})


def _keys(place: Node, array: OpenedArray, selection: tuple[slice, ...]) -> Iterator[str]:
    """Yield the keys of the chunks, or shards, that hold a part of an array."""
    units = array.shards or array.chunks
    touched = (
        range(part.start // unit, -(-part.stop // unit)) if part.stop > part.start else range(0)
        for part, unit in zip(selection, units, strict=True)
    )
    for position in itertools.product(*touched):
        yield posixpath.join(place.key, array.metadata.encode_chunk_key(position))


def _folder(path: str) -> tuple[int, ...]:
    """Return what changes when a folder is moved, or something in it comes or goes."""
    try:
        found = os.stat(path)  # noqa: PTH116
    except (FileNotFoundError, NotADirectoryError):
        return (-1,)
    return found.st_ino, found.st_ctime_ns


def _nearest(root: str, key: str) -> str:
    """Return the innermost folder that is there of those that a chunk would lie in."""
    while key and not os.path.isdir(posixpath.join(root, key)):  # noqa: PTH112
        key = posixpath.dirname(key)
    return key


def require_same(
    place: Node, written_then: int, before: Look | None, after: Look | None, absent: Iterable[str]
) -> None:
    """Raise unless what was read between two looks is what lies there.

    Parameters
    ----------
    place : of the array, with its documents when it was opened
    written_then : time of change (ns) of the document when the source was chosen; 0 for any
    before, after : of a window
    absent : keys that were asked for and not found

    Raises
    ------
    UnreachableError
        If the array is not there any more.
    ChangedError
        If it has changed, or a part of it was away.
    """
    location, shown = place.location, place.shown
    found = node.read_node(location, place.key)
    if found is None:
        raise UnreachableError(
            f"The array {shown} is no longer there. Check that its disk is mounted or its service running, and resume."
        )
    # Another array may have the same document, byte for byte.
    another = written_then and written(location, place.key, place.zarr_format) != written_then
    if another or found.document != place.document:
        raise ChangedError(
            f"The array {shown} was replaced while it was read. Put back what it was, and resume."
        )
    if after is None:
        lost = [key for key in absent if location.sample(key, 1) is not None]
    else:
        lost = [key for key in absent if after.chunks.get(key) is not None]
    if lost or before != after:
        what = f"its chunk {lost[0]!r} was away" if lost else "its files were changed"
        raise ChangedError(
            f"The array {shown} was not whole while it was read: {what}. Let nobody write or move it, and resume."
        )


def written(location: Location, key: str, zarr_format: int) -> int:
    """Return the time of change (ns) of the document of an array; 0 where stores do not tell.

    Two arrays may have the same document, byte for byte; made at different times they are told apart.
    """
    archive = archive_of(location.url)
    if archive is not None:
        packed = file_at(str(archive))
        return packed[1] if packed else 0
    if not remote.is_local(location.url):
        return 0
    found = file_at(str(remote.local_path(location.url) / key / DOCUMENTS[zarr_format][0]))
    return found[1] if found else 0
