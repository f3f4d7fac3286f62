"""The ledger: the only truth about which regions of a run are done.

A chunk in the store proves nothing: it may be torn, from another run, or missing because its region is
background. So the driver appends one line per finished region, after the worker has flushed the region's
chunks to disk, and flushes the line too. Every line carries its own checksum; a torn last line counts as
never written, and so does one whose checksum is right and whose content no run writes. Each driver writes a file of its
own, so that drivers never share one.

When all is done the files are replaced by one, sorted and free of times, so that a run which was killed
and resumed leaves the same bytes as one that was not.
"""

from __future__ import annotations

import json
import os
import re
import uuid
import zlib
from contextlib import ExitStack
from dataclasses import dataclass, field
from heapq import merge
from itertools import groupby, islice
from operator import attrgetter
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Self

import fsspec
from fsspec.implementations.local import LocalFileSystem

from unet_dask.durable import sync_folder, write
from unet_dask.errors import IncompleteError, SinkError, SinkLostError
from unet_dask.products import PRODUCTS
from unet_dask.regular import IrregularError, open_regular

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
    from types import TracebackType

#: What makes a piece of work unique: level and index.
Key = tuple[int, tuple[int, ...]]

_FINAL = "ledger.jsonl"
_FOLDER = "ledger"
#: Entries that are sorted in memory at a time, some 60 MB.
_RUN = 100_000
#: Bytes of a line; that of an entry has a few hundred.
_LONGEST = 1 << 13
#: Numbers of an index: axes, and before those of a block the product.
_MOST_NUMBERS = 6
_LEVELS = range(-1, 64)
_CHECKSUM = re.compile(r"[0-9a-f]{32}")
_STAMP = re.compile(r"[0-9a-f]{16}")
_FIELDS = {"checksums", "index", "level"}


@dataclass(frozen=True, slots=True)
class Entry:
    """One finished piece of work.

    Attributes
    ----------
    index : of the region, or of the block of a pyramid level
    level : 0 for a region, else the pyramid level
    checksums : of the values written, per product, bound to their place
    stamp : of the files of the source that a region was computed from, see `io.source.witness`; "" for none
    """

    index: tuple[int, ...]
    level: int = 0
    checksums: Mapping[str, str] = field(default_factory=dict)
    stamp: str = ""

    @property
    def key(self) -> Key:
        """What makes the work unique."""
        return self.level, self.index


class Ledger:
    """Append-only record of finished regions in the folder of a run.

    Parameters
    ----------
    folder : path or URL of the run's `_unet_dask` folder
    planned : whether an entry can be of the run; what cannot counts as never written. None takes all
    """

    def __init__(self, folder: str, planned: Callable[[Entry], bool] | None = None) -> None:
        self._fs, root = fsspec.core.url_to_fs(folder)
        self._root = root.rstrip("/")
        self._planned = planned
        self._local = isinstance(self._fs, LocalFileSystem)
        self._name = uuid.uuid4().hex
        self._count = 0
        self._file: int | None = None

    def __enter__(self) -> Self:
        """Return the ledger itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the driver's file."""
        self.close()

    def entries(self) -> dict[Key, Entry]:
        """Return all finished work, of all drivers so far; damaged lines count as never written."""
        return {entry.key: entry for entry in self.unsorted()}

    def finished(self) -> set[Key]:
        """Return what makes all finished work unique, of all drivers so far."""
        return {entry.key for entry in self.unsorted()}

    def senseless(self) -> int:
        """Return the number of lines whose checksum is right and whose content is no entry: no run wrote them."""
        return sum(_is_sealed(line) and _decode(line) is None for line in self._lines())

    def contradictions(self) -> set[Key]:
        """Return the finished work of which several lines say different things."""
        first: dict[Key, Mapping[str, str]] = {}
        return {
            entry.key
            for entry in self.unsorted()
            if first.setdefault(entry.key, entry.checksums) != entry.checksums
        }

    def complete(self) -> bool:
        """Return whether the run came to its end: one file stands for those of all drivers."""
        return self._fs.exists(f"{self._root}/{_FINAL}") and not self._fs.isdir(f"{self._root}/{_FOLDER}")

    def unsorted(self) -> Iterator[Entry]:
        """Yield all finished work one at a time, of all drivers so far; what was done twice comes twice."""
        return self._sound(self._lines())

    def own(self) -> Iterator[Entry]:
        """Yield what this driver has recorded, unless it was replaced since."""
        for path in self._files():
            if path.rpartition("/")[2].startswith(self._name):
                yield from self._sound(self._lines_in(path))

    def append(self, entry: Entry) -> None:
        """Record finished work, durably: when this returns, a power cut does not lose it."""
        data = _encode(entry)
        try:
            if self._local:
                self._append_local(data)
            else:
                self._fs.pipe_file(f"{self._root}/{_FOLDER}/{self._name}-{self._count:09d}.jsonl", data)
                self._count += 1
        except OSError as error:
            raise SinkLostError(
                f"The ledger in {self._root} cannot be written: {error.strerror or error}. What is done is kept; "
                "make room and --resume."
            ) from error

    def compact(self, work: int) -> None:
        """Replace the files of all drivers by one that depends on the result alone.

        Parameters
        ----------
        work : pieces that it must hold

        Raises
        ------
        IncompleteError
            If it would not: files were lost at the last moment. Nothing is replaced then.
        """
        self.close()
        self._put(f"{self._root}/{_FINAL}", _all(work, self._sorted()))
        if self._fs.isdir(f"{self._root}/{_FOLDER}"):
            self._fs.rm(f"{self._root}/{_FOLDER}", recursive=True)

    def forget(self, keys: Collection[Key]) -> None:
        """Take finished work out of the record, durably: when this returns, the next run does it again.

        What is kept is written before the old files go. Killed in between, the ledger says what it said before,
        and never less than what is kept. The run is no longer complete, even if nothing is taken out.
        """
        self.close()
        kept = b"".join(_encode(entry) for key, entry in sorted(self.entries().items()) if key not in keys)
        old = list(self._files())
        name = f"{self._root}/{_FOLDER}/{uuid.uuid4().hex}.jsonl"
        if self._local:
            os.makedirs(f"{self._root}/{_FOLDER}", exist_ok=True)  # noqa: PTH103
            sync_folder(self._root)
        self._put(name, [kept])
        for path in old:
            self._fs.rm_file(path)
        if self._local:
            sync_folder(f"{self._root}/{_FOLDER}")
            sync_folder(self._root)

    def close(self) -> None:
        """Close the driver's file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _put(self, path: str, lines: Iterable[bytes]) -> None:
        """Write a file, durably: whole under its name, or not at all."""
        if self._local:
            write(path, lines)
        else:
            self._fs.pipe_file(path, b"".join(lines))

    def _append_local(self, data: bytes) -> None:
        if self._file is None:
            folder = f"{self._root}/{_FOLDER}"
            os.makedirs(folder, exist_ok=True)  # noqa: PTH103
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
            self._file = os.open(f"{folder}/{self._name}.jsonl", flags, 0o644)
            sync_folder(folder)
            sync_folder(self._root)
        while data:  # a disk that fills up takes a part of a line and reports no error
            data = data[os.write(self._file, data) :]
        os.fsync(self._file)

    def _sound(self, lines: Iterable[bytes]) -> Iterator[Entry]:
        """Yield the entries in lines that are whole and can be of the run."""
        for line in lines:
            entry = _decode(line)
            if entry is not None and (self._planned is None or self._planned(entry)):
                yield entry

    def _lines(self) -> Iterator[bytes]:
        """Yield the lines of all drivers; of one that no run writes, because it is so long, the parts."""
        for path in self._files():
            yield from self._lines_in(path)

    def _lines_in(self, path: str) -> Iterator[bytes]:
        try:
            file = open_regular(path) if self._local else self._fs.open(path, "rb")
        except IrregularError as error:
            raise SinkError(
                f"The ledger {path} is {error}, not a regular file. Restore it from a copy, or start over with "
                "--overwrite."
            ) from error
        except FileNotFoundError:  # another driver has just put it into the final file, which comes last
            return
        with file:
            while line := file.readline(_LONGEST):
                yield line.rstrip(b"\n")

    def _sorted(self) -> Iterator[bytes]:
        """Yield the lines of all entries in order, each once, without holding them: sorted runs are merged."""
        with ExitStack() as opened:
            runs = []
            entries = self.unsorted()
            while batch := sorted(islice(entries, _RUN), key=attrgetter("key")):
                runs.append(opened.enter_context(TemporaryFile()))
                runs[-1].writelines(map(_encode, batch))
                runs[-1].seek(0)
            decoded = (map(_decode_written, run) for run in runs)
            for _, same in groupby(merge(*decoded, key=attrgetter("key")), key=attrgetter("key")):
                *_, last = same  # a piece of work that was done twice has the values of the last time
                yield _encode(last)

    def _files(self) -> Iterator[str]:
        """Yield the drivers' files, then the final one: whoever replaces them by it makes it first."""
        self._fs.invalidate_cache()
        folder = f"{self._root}/{_FOLDER}"
        if self._fs.isdir(folder):
            yield from sorted(self._fs.ls(folder, detail=False))
        self._fs.invalidate_cache()
        final = f"{self._root}/{_FINAL}"
        if self._fs.exists(final):
            yield final


def _all(work: int, lines: Iterable[bytes]) -> Iterator[bytes]:
    """Yield lines, and raise after the last unless there is one for each piece of work."""
    count = 0
    for line in lines:
        count += 1
        yield line
    if count != work:
        raise IncompleteError(
            f"{work - count} of {work} blocks are not in the record of the run any more: it was changed or "
            "removed just now. --resume does them again."
        )


def _encode(entry: Entry) -> bytes:
    record: dict[str, object] = {
        "checksums": dict(entry.checksums),
        "index": list(entry.index),
        "level": entry.level,
    }
    if entry.stamp:
        record["stamp"] = entry.stamp
    text = json.dumps(record, sort_keys=True).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _decode_written(line: bytes) -> Entry:
    """Return the entry in a line that this process has just written."""
    entry = _decode(line.rstrip(b"\n"))
    assert entry is not None
    return entry


def _decode(line: bytes) -> Entry | None:
    """Return the entry in a line, None if it is damaged, or no run could have written it."""
    if not _is_sealed(line):
        return None
    try:
        record = json.loads(line.partition(b" ")[2])
    except (ValueError, RecursionError):
        return None
    if type(record) is not dict or not _FIELDS <= set(record) <= _FIELDS | {"stamp"}:
        return None
    index, level, checksums = record["index"], record["level"], record["checksums"]
    stamp = record.get("stamp", "")
    sound = (
        _is_index(index)
        and type(level) is int
        and level in _LEVELS
        and _are_checksums(checksums)
        and type(stamp) is str
        and (not stamp or _STAMP.fullmatch(stamp))
    )
    return Entry(tuple(index), level, checksums, stamp) if sound else None


def _is_sealed(line: bytes) -> bool:
    """Return whether a line's checksum is that of its content."""
    checksum, _, text = line.partition(b" ")
    return bool(text) and checksum == b"%08x" % zlib.crc32(text)


def _is_index(value: object) -> bool:
    return (
        type(value) is list
        and 0 < len(value) <= _MOST_NUMBERS
        and all(type(number) is int and 0 <= number < 1 << 40 for number in value)
    )


def _are_checksums(value: object) -> bool:
    return type(value) is dict and all(
        name in PRODUCTS and type(digest) is str and _CHECKSUM.fullmatch(digest)
        for name, digest in value.items()
    )
