"""Folders for what this user alone may read, in the temporary folder that she shares with others.

Their names cannot be guessed, nobody else may look into them, and each is removed by the process that made it. What a
process that was killed has left is removed by the next one of the same user that makes a folder: a folder is locked in
the kernel as long as its owner lives, so that the two can be told apart, whatever became of the numbers of processes.
"""

from __future__ import annotations

import atexit
import os
import shutil
import stat
import tempfile
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from unet_dask import durable
from unet_dask.errors import OptionError

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Whether the kernel has locks and owners of files, as Linux and macOS do.
ON_POSIX = os.name == "posix"
#: Of the names of such folders, and of nothing else: what is left of them is removed unasked.
_PREFIX = "unet-dask-private-"
#: Seconds in which a folder that is not locked may be one that is just being made.
_YOUNG = 60.0

_making = threading.Lock()
_lasting: dict[int, Path] = {}


@contextmanager
def folder() -> Iterator[Path]:
    """Make a folder that only this user can enter, and remove it in the end.

    Raises
    ------
    OptionError
        If there is no place for temporary files.
    """
    path, lock = _make()
    try:
        yield path
    finally:
        _remove(path, lock)


def lasting() -> Path:
    """Return the folder of this process, for files that others of hers may open as long as it lives.

    Raises
    ------
    OptionError
        If there is no place for temporary files.
    """
    with _making:
        process = os.getpid()  # a fork has to have its own: the first to end would remove the other's
        if process not in _lasting or not _lasting[process].is_dir():
            path, lock = _make()
            _lasting[process] = path
            atexit.register(_leave, process, path, lock)
        return _lasting[process]


def write(path: Path, content: bytes) -> None:
    """Write a file that only this user can read; nobody ever sees a part of it."""
    durable.write(path, [content], mode=0o600)


def _leave(process: int, path: Path, lock: int | None) -> None:
    if process == os.getpid():
        _remove(path, lock)


def _make() -> tuple[Path, int | None]:
    """Return a new folder and what keeps it locked."""
    try:
        _sweep()
        path = Path(tempfile.mkdtemp(prefix=_PREFIX))  # mode 0700
    except OSError as error:
        raise OptionError(
            f"No folder for temporary files can be made: {error.strerror or error}. Set TMPDIR to a place that can be "
            "written."
        ) from error
    return path, _locked(path, shared=True)


def _remove(path: Path, lock: int | None) -> None:
    shutil.rmtree(path, ignore_errors=True)
    if lock is not None:
        os.close(lock)


def _sweep() -> None:
    """Remove the folders of this user's processes that are no more."""
    if not ON_POSIX:
        return
    for path in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with suppress(OSError):
            found = path.lstat()
            ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()
            if ours and not found.st_mode & 0o077 and time.time() - found.st_mtime > _YOUNG:
                lock = _locked(path)
                if lock is not None:
                    _remove(path, lock)


def _locked(path: Path, *, shared: bool = False) -> int | None:
    """Return the descriptor of a folder that was locked; None if it is another's, or cannot be locked here."""
    if not ON_POSIX:
        return None
    import fcntl

    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor
