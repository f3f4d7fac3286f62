"""Make what was written survive a power cut. A rename alone may reach the disk before the data it names."""

from __future__ import annotations

import errno
import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

#: Of a file system that cannot flush folders, and of a folder that may be written and not be read.
_CANNOT = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EACCES)


def write(path: str | os.PathLike[str], pieces: Iterable[Any], *, mode: int = 0o666) -> None:
    """Write a local file and flush it: whole under its name, or not at all.

    Parameters
    ----------
    path : of the file; an earlier one is replaced
    pieces : bytes, or whatever offers a buffer of them
    mode : of the file, less what the user never lets others do
    """
    place = Path(path)
    partial = place.with_name(f".{place.name}.{secrets.token_hex(4)}.partial")
    try:
        with open(partial, "xb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
            file.writelines(pieces)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, place)  # noqa: PTH105
    finally:
        partial.unlink(missing_ok=True)
    try:
        sync_folder(place.parent)
    except OSError as error:
        if error.errno not in _CANNOT:
            raise


def sync_file(path: str | os.PathLike[str]) -> None:
    """Flush a local file's data to disk."""
    _sync(path)


def sync_folder(path: str | os.PathLike[str]) -> None:
    """Flush a local folder, so that files renamed into it keep their names."""
    _sync(path)


def _sync(path: str | os.PathLike[str]) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
