"""Whether what was read of a source is what lies there: nothing was lost, moved or changed while it was read.

A disk that is unmounted, or a folder that is moved away, makes every chunk absent, and absent chunks are fill value to
Zarr. So the files of a window are looked at before it is read and afterwards: their sizes, their times of change, the
folders that they lie in. Both looks must be the same, what was found absent must be absent, and the document of the
array must still say what it said when the source was opened. In an object store, where a look would cost a request for
each chunk, the document and the absent chunks alone are asked for again.

A stamp is what remains of a look: it goes into the ledger with the region that was computed from these files, and says
at the end of a run, or of one that was resumed, whether they are still the same.
"""

from __future__ import annotations

import itertools
import os
import posixpath
from dataclasses import dataclass
from hashlib import blake2b, sha256
from typing import TYPE_CHECKING, Any

from unet_dask.io import remote
from unet_dask.io.remote import Location, UnreachableError
from unet_dask.io.source import node

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    import zarr

    from unet_dask.io.source.window import SourceSpec

#: Documents of an array, by the version of Zarr.
DOCUMENTS = {2: (".zarray", ".zattrs"), 3: ("zarr.json",)}

#: Size and time of change (ns) of a file, its inode and the time of change of that; None where there is none.
File = tuple[int, int, int, int] | None


class ChangedError(UnreachableError):
    """What was being read was changed, or was away for a moment; to read it again may help."""


@dataclass(frozen=True, slots=True)
class Look:
    """What the files of a window were at a moment.

    Attributes
    ----------
    chunks : by key from the root of the store
    others : documents, folders above them, and those in which chunks lie or are absent
    """

    chunks: Mapping[str, File]
    others: Mapping[str, tuple[int, ...]]


def look(spec: SourceSpec, array: zarr.Array[Any], selection: tuple[slice, ...]) -> Look | None:
    """Look at the files that hold a part of an array; None where there are no files.

    Parameters
    ----------
    spec : of the source
    array : opened
    selection : one slice per stored axis
    """
    if not remote.is_local(spec.url):
        return None
    root = str(remote.local_path(spec.url))
    chunks = {key: _file(posixpath.join(root, key)) for key in _keys(spec, array, selection)}
    documents = (posixpath.join(spec.key, name) for name in DOCUMENTS[spec.zarr_format])
    others: dict[str, tuple[int, ...]] = {key: _file(posixpath.join(root, key)) or (-1,) for key in documents}
    folders = {spec.key}
    while "" not in folders:  # a folder that is moved away and back has another time of change
        folders.add(posixpath.dirname(min(folders, key=len)))
    for key, found in chunks.items():
        folder = posixpath.dirname(key) if found else _nearest(root, key)
        while folder not in folders:
            folders.add(folder)
            folder = posixpath.dirname(folder)
    return Look(chunks, others | {folder: _folder(posixpath.join(root, folder)) for folder in folders})


def _keys(spec: SourceSpec, array: zarr.Array[Any], selection: tuple[slice, ...]) -> Iterator[str]:
    """Yield the keys of the chunks, or shards, that hold a part of an array."""
    units = array.shards or array.chunks
    touched = (
        range(part.start // unit, -(-part.stop // unit)) if part.stop > part.start else range(0)
        for part, unit in zip(selection, units, strict=True)
    )
    for position in itertools.product(*touched):
        yield posixpath.join(spec.key, array.metadata.encode_chunk_key(position))


def _file(path: str) -> File:
    try:
        found = os.stat(path)  # noqa: PTH116 # tens of thousands of them
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_size, found.st_mtime_ns, found.st_ino, found.st_ctime_ns


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


def require_same(spec: SourceSpec, before: Look | None, after: Look | None, absent: Iterable[str]) -> None:
    """Raise unless what was read between two looks is what lies there.

    Parameters
    ----------
    spec : of the source
    before, after : of a window
    absent : keys that were asked for and not found

    Raises
    ------
    UnreachableError
        If the array is not there any more.
    ChangedError
        If it has changed, or a part of it was away.
    """
    location = Location(spec.url)
    shown = location.describe(spec.key)
    found = node.read_node(location, spec.key)
    if found is None:
        raise UnreachableError(
            f"The array {shown} is no longer there. Check that its disk is mounted or its service running, and resume."
        )
    # Another array may have the same document, byte for byte.
    another = spec.written and written(location, spec.key, spec.zarr_format) != spec.written
    if another or sha256(found.document).hexdigest() != spec.metadata:
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


def stamp(looks: Iterable[Look | None]) -> str:
    """Return a digest of names, sizes and times of change of files; "" where none were looked at."""
    digest, any_files = blake2b(digest_size=8), False
    for each in looks:
        for key, found in each.chunks.items() if each else ():
            any_files = True
            digest.update(f"{key}\0{found[:2] if found else None}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest() if any_files else ""


def written(location: Location, key: str, zarr_format: int) -> int:
    """Return the time of change (ns) of the document of an array; 0 where stores do not tell.

    Two arrays may have the same document, byte for byte; made at different times they are told apart.
    """
    if not remote.is_local(location.url):
        return 0
    found = _file(str(remote.local_path(location.url) / key / DOCUMENTS[zarr_format][0]))
    return found[1] if found else 0
