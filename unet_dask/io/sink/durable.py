"""Make what was written survive a power cut. A rename alone may reach the disk before the data it names."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable


def write_whole(path: str | os.PathLike[str], pieces: Iterable[Any]) -> None:
    """Write a local file and flush it: whole under its name, or not at all. Its folder is not flushed.

    Parameters
    ----------
    path : of the file
    pieces : bytes, or whatever offers a buffer of them
    """
    partial = f"{os.fspath(path)}.partial"
    with open(partial, "wb") as file:  # noqa: PTH123 # the file system's own path
        file.writelines(pieces)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)  # noqa: PTH105


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
