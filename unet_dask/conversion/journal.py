"""What of an image is written already: a line for each shard, flushed after the shard itself.

The first line says what is converted, and how; a conversion goes on only with the same. A line that was torn by a
power cut is the last, and is written again. The file is locked while somebody writes, so two conversions never share
a folder.
"""

from __future__ import annotations

import fcntl
import json
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from unet_dask.errors import MismatchError, SinkError
from unet_dask.io.remote import shorten

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    #: Level, and index of a shard there.
    Place = tuple[int, tuple[int, ...]]

#: Of the file, within the folder that is being written.
NAME = "unet-dask-convert.jsonl"
_BLOCK = 1 << 20


class Journal:
    """The shards that are written, with the digest of the values of each."""

    def __init__(self, descriptor: int, found: Mapping[Place, str]) -> None:
        self._descriptor = descriptor
        self.digests: dict[Place, str] = dict(found)

    def add(self, place: Place, digest: str) -> None:
        """Enter a shard, which is on disk."""
        level, index = place
        self.append({"level": level, "index": index, "digest": digest})
        self.digests[place] = digest

    def forget(self, place: Place) -> None:
        """Enter that a shard is not as it was written, so that it is written again."""
        level, index = place
        self.append({"level": level, "index": index, "digest": None})
        self.digests.pop(place, None)

    def append(self, said: object) -> None:
        """Write a line and flush it."""
        os.write(self._descriptor, f"{json.dumps(said)}\n".encode())
        os.fsync(self._descriptor)


@contextmanager
def opened(folder: Path, begun: Mapping[str, object]) -> Iterator[Journal]:
    """Open the journal of a folder, or begin one.

    Parameters
    ----------
    folder : that is being written
    begun : what is converted, and how

    Raises
    ------
    SinkError
        If another conversion writes there now.
    MismatchError
        If it was begun with something else.
    """
    descriptor = os.open(folder / NAME, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise SinkError(
                f"Another conversion writes {shorten(str(folder))} now. Wait until it has ended."
            ) from error
        lines, torn = _lines(descriptor)
        if torn:
            os.ftruncate(descriptor, sum(len(line) + 1 for line in lines))
        journal = Journal(descriptor, _written(lines[1:]))
        if not lines:
            journal.append(begun)
        else:
            _require_same(json.loads(lines[0]), json.loads(json.dumps(begun)), folder)
        yield journal
    finally:
        os.close(descriptor)


def _lines(descriptor: int) -> tuple[list[bytes], bool]:
    """Return the whole lines of a file, and whether something follows them."""
    size = os.fstat(descriptor).st_size
    parts = [os.pread(descriptor, _BLOCK, start) for start in range(0, size, _BLOCK)]
    *lines, rest = b"".join(parts).split(b"\n")
    return lines, bool(rest)


def _written(lines: list[bytes]) -> dict[Place, str]:
    """Return the digests of shards by what lines say, the last of each."""
    found: dict[Place, str] = {}
    for line in lines:
        said = json.loads(line)
        place = (said["level"], tuple(said["index"]))
        if said["digest"] is None:
            found.pop(place, None)
        else:
            found[place] = said["digest"]
    return found


def _require_same(before: Mapping[str, object], now: Mapping[str, object], folder: Path) -> None:
    different = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    if different:
        raise MismatchError(
            f"The conversion in {shorten(str(folder))} was begun with another {different[0]}. Give the same, or begin "
            "anew with --overwrite."
        )
