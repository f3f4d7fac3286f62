"""Make what was written survive a power cut. A rename alone may reach the disk before the data it names."""

from __future__ import annotations

import os


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
