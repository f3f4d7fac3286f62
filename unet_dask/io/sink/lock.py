"""Who may write at the place of a sink: one driver for each of its parts.

A lock is a file in the run's folder that its owner has locked in the kernel, which lets go when the process ends,
however it ends; that the file is still there means nothing. A driver is refused where a part that overlaps its own
is held; a run without parts overlaps all others. Two drivers of overlapping parts that start in the same instant
may each see the other and both be refused, but never both go on.

Locks of the kernel hold for one machine, and for several where the shared file system carries them, as NFS, Lustre
and GPFS do unless they are told not to. Without them, and in object stores, nobody is refused. Then two drivers of
one part do the same work twice; they write the same bytes, each file at once.
"""

from __future__ import annotations

import os
import re
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from fsspec.implementations.local import LocalFileSystem

from unet_dask.errors import SinkError
from unet_dask.io.remote import redact_url
from unet_dask.io.sink.place import LOCK, RUN_FOLDER, locate
from unet_dask.part import WHOLE, Part
from unet_dask.private import ON_POSIX
from unet_dask.regular import IrregularError, open_regular

#: Bytes of what a lock says of its owner that are shown.
_OWNER = 200

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def locked(url: str, part: Part = WHOLE) -> Iterator[None]:
    """Hold a part of a sink for one driver; the kernel lets go when the process ends, however it ends.

    Nothing of a sink may be removed, swept or created without the lock.

    Raises
    ------
    SinkError
        If another driver holds this part, or one that overlaps it.
    """
    folder = _folder(url)
    if folder is None:
        yield
        return
    name = LOCK if part == WHOLE else f"{LOCK}.{part.number}-of-{part.count}"
    descriptor = _lock(folder / name, url)
    try:
        shown = "" if part == WHOLE else f"part {part}, "
        os.truncate(descriptor, 0)
        os.write(descriptor, f"{shown}process {os.getpid()} on {os.uname().nodename}".encode())
        _require_none_held(folder, part, url, but=name)
        yield
    finally:
        _release(folder / name, descriptor)


def require_free(url: str, part: Part = WHOLE) -> None:
    """Raise if a part is held that overlaps this one; nothing is created there.

    Raises
    ------
    SinkError
        If the place is locked.
    """
    folder = _folder(url)
    if folder is not None:
        _require_none_held(folder, part, url)


@contextmanager
def finishing(url: str) -> Iterator[bool]:
    """Yield whether this driver, of all those that ended together, is to finish the run."""
    folder = _folder(url)
    if folder is None:
        yield True
        return
    file = folder / f"{LOCK}.finish"
    descriptor = _try_lock(file, url)
    try:
        yield descriptor is not None
    finally:
        if descriptor is not None:
            _release(file, descriptor)


def sweep(url: str) -> None:
    """Remove the locks of drivers that were killed, and the claims of those that created the sink."""
    folder = _folder(url)
    for file in folder.glob(f"{LOCK}*") if folder else ():
        with suppress(FileNotFoundError):
            descriptor = os.open(file, os.O_RDWR)
            try:
                if _flock(descriptor):
                    file.unlink()
            finally:
                os.close(descriptor)


def held(file: Path) -> bool:
    """Return whether some process of this machine holds a lock; the file is left as it is."""
    try:
        descriptor = os.open(file, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        return not _flock(descriptor)
    finally:
        os.close(descriptor)


def _folder(url: str) -> Path | None:
    """Return the folder of the locks, None where there are none."""
    fs, path = locate(url)
    return Path(path) / RUN_FOLDER if isinstance(fs, LocalFileSystem) and ON_POSIX else None


def _require_none_held(folder: Path, part: Part, url: str, *, but: str = "") -> None:
    for file in sorted(folder.glob(f"{LOCK}*")):
        other = _part(file.name)
        # Parts that do not overlap are not even looked at: a look holds the lock for a moment.
        if file.name != but and other is not None and part.overlaps(other) and held(file):
            raise _in_use(file, url)


def _part(name: str) -> Part | None:
    """Return the part that a lock is for, None if it is for none."""
    found = re.fullmatch(rf"{LOCK}(?:\.(\d+)-of-(\d+))?", name)
    return found and (Part(int(found[1]), int(found[2])) if found[1] else WHOLE)


def _in_use(file: Path, url: str) -> SinkError:
    owner = ""
    with suppress(OSError, IrregularError), open_regular(file) as opened:
        owner = opened.read(_OWNER).decode(errors="replace").strip()
    return SinkError(
        f"{redact_url(url)} is being written by {owner or 'another process'}. Wait for it, or stop it first."
    )


def _lock(file: Path, url: str) -> int:
    """Return the descriptor of a file that this process has locked."""
    descriptor = _try_lock(file, url)
    if descriptor is None:
        raise _in_use(file, url)
    return descriptor


def _try_lock(file: Path, url: str) -> int | None:
    """Return the descriptor of a file that this process has locked, None if another one has."""
    try:
        while True:
            file.parent.mkdir(parents=True, exist_ok=True)
            try:
                descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
            except FileNotFoundError:
                continue  # the last owner of another lock took the empty folder away
            if not _flock(descriptor):
                os.close(descriptor)
                return None
            # The last owner removes the file: what was locked may have lost its name meanwhile.
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), file.stat()):
                    return descriptor
            os.close(descriptor)
    except OSError as error:
        raise SinkError(
            f"The sink {redact_url(url)} cannot be locked: {error.strerror or error}. Name a place that can be written "
            "with -o."
        ) from error


def _flock(descriptor: int) -> bool:
    """Return whether a file could be locked."""
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _release(file: Path, descriptor: int) -> None:
    try:
        file.unlink(missing_ok=True)
    finally:
        os.close(descriptor)  # what is not closed stays locked as long as this process lives
    for folder in (file.parent, file.parent.parent):  # of a sink that came to nothing
        with suppress(OSError):
            folder.rmdir()
