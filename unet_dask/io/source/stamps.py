"""What the files of a window were at a moment, compared before and after it is read, and kept as a stamp.

A stamp goes into the ledger with the region that was computed from these files, and says at the end of a run, or of one
that was resumed, whether they are still the same.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING

from unet_dask.io.remote import UnreachableError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

#: Size and time of change (ns) of a file, its inode and the time of change of that; None where there is none.
File = tuple[int, int, int, int] | None


class ChangedError(UnreachableError):
    """What was being read was changed, or was away for a moment; to read it again may help."""


@dataclass(frozen=True, slots=True)
class Look:
    """What the files of a window were at a moment.

    Attributes
    ----------
    chunks : files that hold values, by key from the root of the source
    others : documents, folders above them, and those in which chunks lie or are absent
    """

    chunks: Mapping[str, File]
    others: Mapping[str, tuple[int, ...]]


def file_at(path: str) -> File:
    """Return what a file is now, None where there is none."""
    try:
        found = os.stat(path)  # noqa: PTH116 # tens of thousands of them
    except (FileNotFoundError, NotADirectoryError):
        return None
    return file_of(found)


def file_of(found: os.stat_result) -> tuple[int, int, int, int]:
    """Return what an open file is."""
    return found.st_size, found.st_mtime_ns, found.st_ino, found.st_ctime_ns


def stamp(looks: Iterable[Look | None]) -> str:
    """Return a digest of names, sizes and times of change of files; "" where none were looked at."""
    digest, any_files = blake2b(digest_size=8), False
    for look in looks:
        for key, found in look.chunks.items() if look else ():
            any_files = True
            digest.update(f"{key}\0{found[:2] if found else None}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest() if any_files else ""
