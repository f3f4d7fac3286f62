"""A digest of what an array holds, cheap enough to take before every run: a witness, not a proof."""

from __future__ import annotations

import math
import os
import posixpath
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from unet_dask.io import remote
from unet_dask.regular import IrregularError, open_regular

if TYPE_CHECKING:
    from collections.abc import Iterator

    from unet_dask.io.bounded import OpenedArray
    from unet_dask.io.remote import Location

#: Files of which path, size and time are taken.
FILES_LIMIT = 200_000
#: Chunks whose bytes are read, locally and over a network, and how much of each.
LOCAL_SAMPLES, REMOTE_SAMPLES, SAMPLE_BYTES = 16, 4, 8 * 1024**2
#: Bytes of each part of a file that holds a whole image.
FILE_SAMPLE_BYTES = 1024**2

_DOCUMENTS = frozenset({"zarr.json", ".zarray", ".zattrs", ".zgroup", ".zmetadata"})


def digest(location: Location, key: str, array: OpenedArray) -> str:
    """Return the digest that `Source.identity` describes.

    Raises
    ------
    UnreachableError
        If the store does not answer.
    """
    if not remote.is_local(location.url):
        return _remote_digest(location, key, array)
    try:
        return _local_digest(remote.local_path(location.url) / key)
    except OSError as error:
        location.refuse(error)


def file_digest(path: Path) -> str:
    """Return a digest of size and time of one file, and of evenly spread parts of it.

    Raises
    ------
    UnreachableError
        If it cannot be read.
    """
    try:
        with open_regular(path) as file:
            found = os.fstat(file.fileno())
            total = sha256(f"{found.st_size}\0{found.st_mtime_ns}\n".encode())
            for index in _spread(-(-found.st_size // FILE_SAMPLE_BYTES), LOCAL_SAMPLES):
                file.seek(index * FILE_SAMPLE_BYTES)
                total.update(file.read(FILE_SAMPLE_BYTES))
    except (OSError, IrregularError) as error:
        remote.Location(str(path)).refuse(error)
    return total.hexdigest()


def folder_digest(folder: Path) -> str:
    """Return a digest of path, size and time of every file below a folder, and of the first bytes of some.

    Raises
    ------
    UnreachableError
        If one cannot be looked at.
    """
    try:
        return _local_digest(folder)
    except OSError as error:
        remote.Location(str(folder)).refuse(error)


def _local_digest(root: Path) -> str:
    total, chunks = sha256(), []
    for count, entry in enumerate(_files(root)):
        if count == FILES_LIMIT:
            total.update(b"and more")
            break
        found = entry.stat()
        name = Path(entry.path).relative_to(root).as_posix()
        total.update(f"{name}\0{found.st_size}\0{found.st_mtime_ns}\n".encode("utf-8", "surrogateescape"))
        if entry.name not in _DOCUMENTS:
            chunks.append(entry.path)
    for index in _spread(len(chunks), LOCAL_SAMPLES):
        try:
            with open_regular(chunks[index]) as file:
                total.update(sha256(file.read(SAMPLE_BYTES)).digest())
        except IrregularError as error:  # a region that reads it will say so
            total.update(str(error).encode())
    return total.hexdigest()


def _files(folder: Path | str) -> Iterator[os.DirEntry[str]]:
    """Yield every file below a folder, in an order that depends on names alone."""
    with os.scandir(folder) as entries:
        ordered = sorted(entries, key=lambda entry: entry.name)
    for entry in ordered:
        if entry.is_dir():
            yield from _files(entry.path)
        elif not entry.name.startswith(".") or entry.name in _DOCUMENTS:  # not what a file manager left
            yield entry


def _remote_digest(location: Location, key: str, array: OpenedArray) -> str:
    grid = [-(-size // chunk) for size, chunk in zip(array.shape, array.shards or array.chunks, strict=True)]
    total = sha256()
    for index in _spread(math.prod(grid), REMOTE_SAMPLES):
        position = _unravel(index, grid)
        name = array.metadata.encode_chunk_key(position)
        stored = location.sample(posixpath.join(key, name), SAMPLE_BYTES)
        total.update(name.encode() + (b"\0missing" if stored is None else sha256(stored).digest()))
    return total.hexdigest()


def _spread(count: int, wanted: int) -> list[int]:
    """Return up to `wanted` evenly spread numbers below `count`, the first and the last among them."""
    if count <= wanted:
        return list(range(count))
    return [i * (count - 1) // (wanted - 1) for i in range(wanted)]


def _unravel(index: int, grid: list[int]) -> tuple[int, ...]:
    """Return the position of a chunk; numpy's own overflows on grids of hostile size."""
    position = []
    for size in reversed(grid):
        index, rest = divmod(index, size)
        position.append(rest)
    return tuple(reversed(position))
