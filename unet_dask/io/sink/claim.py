"""Which of several drivers that start together creates their sink; the others wait for its manifest.

A claim is a file that only one driver can create, and whose content its owner changes every few seconds. A claim
that falls silent, because its owner was killed, is followed by one with the next number; the highest number counts.
Claims are not taken back while anybody could look at them, so there is nothing to race for: on every POSIX file
system, shared or not, exclusive creation has one winner. An object store has one where its driver for fsspec offers
conditional writes, as those for S3 and Google Cloud Storage do; elsewhere two drivers may both create the sink, with
the same content if they were given the same command.
"""

from __future__ import annotations

import os
import re
import threading
import time
import uuid
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from fsspec.implementations.local import LocalFileSystem

from unet_dask.errors import SinkError, SinkLostError
from unet_dask.io.remote import redact_url
from unet_dask.io.sink.lock import held
from unet_dask.io.sink.place import LOCK, RUN_FOLDER, locate, names_in, read_manifest
from unet_dask.private import ON_POSIX

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fsspec import AbstractFileSystem

    from unet_dask.io.sink.manifest import Manifest

#: Seconds between two signs of life of an owner.
BEAT = 5.0
#: Seconds without one after which an owner counts as dead; clocks of machines are never compared.
SILENCE = 60.0
#: Seconds that a driver waits for the manifest while its creator is alive: statistics of a large volume take long.
PATIENCE = 3600.0
#: Seconds between two looks.
_LOOK = 0.2


@contextmanager
def joined(url: str) -> Iterator[Manifest | None]:
    """Yield the manifest of a sink once it is there, or None if it is this driver's to create.

    Raises
    ------
    SinkLostError
        If another driver is creating it for longer than `PATIENCE`.
    """
    watch = _Watch(url)
    began = time.monotonic()
    while True:
        manifest = read_manifest(url)
        if manifest is not None:
            yield manifest
            return
        claim = watch.take()
        if claim is not None:
            break
        if time.monotonic() - began > PATIENCE:
            raise SinkLostError(
                f"{redact_url(url)} is being created by {watch.owner}, and still has no manifest after "
                f"{PATIENCE / 60:.0f} minutes. Wait for it, then start this part again; what is done is kept."
            )
        time.sleep(_LOOK)
    with _beating(claim):
        yield read_manifest(url)  # an earlier owner may have finished after the last look


class _Watch:
    """What a driver has seen of the claims on a sink."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._fs, path = locate(url)
        self._folder = f"{path}/{RUN_FOLDER}"
        self._seen: tuple[int, bytes, float] = (-1, b"", 0.0)
        self.owner = "nobody"

    def take(self) -> _Claim | None:
        """Return a claim if there was none or its owner is dead, else None."""
        highest = _highest(self._fs, self._folder)
        if highest >= 0 and not self._silent(highest):
            return None
        claim = _Claim(self._fs, self._folder, highest + 1)
        return claim if claim.won(self._url) else None

    def _silent(self, number: int) -> bool:
        """Return whether the owner of a claim gives no sign of life."""
        path = _path(self._folder, number)
        try:
            content = self._fs.cat_file(path)
        except OSError:  # just withdrawn
            self._seen = (-1, b"", 0.0)
            return False
        if (number, content) != self._seen[:2]:
            self._seen = (number, content, time.monotonic())
        owner = content.decode(errors="replace").partition(";")[0]
        self.owner = owner or "another process"
        if isinstance(self._fs, LocalFileSystem) and owner.endswith(f" on {_machine()}"):
            return ON_POSIX and not held(Path(path))  # the kernel knows its own processes
        return time.monotonic() - self._seen[2] > SILENCE


class _Claim:
    """The right to create a sink."""

    def __init__(self, fs: AbstractFileSystem, folder: str, number: int) -> None:
        self._fs = fs
        self._folder = folder
        self._path = _path(folder, number)
        self._number = number
        self._descriptor: int | None = None
        self._identity = f"process {os.getpid()} on {_machine()}; {uuid.uuid4().hex}"

    def won(self, url: str) -> bool:
        """Return whether the claim is ours: nobody has made it before, and nobody a higher one."""
        try:
            if isinstance(self._fs, LocalFileSystem):
                self._create_locally()
            else:
                self._fs.pipe_file(self._path, self._content(0), mode="create")
        except FileExistsError:
            return False
        except OSError as error:
            raise SinkError(
                f"The sink {redact_url(url)} cannot be created: {error.strerror or error}. Name a place that can be "
                "written with -o."
            ) from error
        if _highest(self._fs, self._folder) == self._number:
            return True
        self.withdraw()
        return False

    def beat(self, count: int) -> None:
        """Give a sign of life."""
        with suppress(OSError):  # the next one may come through
            if self._descriptor is None:
                self._fs.pipe_file(self._path, self._content(count))
            else:
                os.pwrite(self._descriptor, self._content(count), 0)
                os.fsync(self._descriptor)

    def withdraw(self) -> None:
        """Leave the creation to others, or to nobody if the manifest is there."""
        with suppress(OSError):
            self._fs.rm_file(self._path)
        if self._descriptor is not None:
            os.close(self._descriptor)  # only now, so that nobody takes what is being withdrawn for silent

    def _create_locally(self) -> None:
        os.makedirs(self._folder, exist_ok=True)  # noqa: PTH103 # the file system's own path
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
        if ON_POSIX:
            import fcntl

            with suppress(OSError):  # a file system without locks has the signs of life
                fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        self.beat(0)

    def _content(self, count: int) -> bytes:
        return f"{self._identity}; {count:012d}".encode()


@contextmanager
def _beating(claim: _Claim) -> Iterator[None]:
    """Give signs of life until the block is left."""
    ended = threading.Event()

    def beat() -> None:
        count = 0
        while not ended.wait(BEAT):
            count += 1
            claim.beat(count)

    thread = threading.Thread(target=beat, name="claim", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        claim.withdraw()


def _highest(fs: AbstractFileSystem, folder: str) -> int:
    """Return the number of the claim that counts, -1 if there is none."""
    fs.invalidate_cache()
    found = (re.fullmatch(rf"{LOCK}\.creator-(\d+)", name) for name in names_in(fs, folder))
    return max((int(each[1]) for each in found if each), default=-1)


def _path(folder: str, number: int) -> str:
    return f"{folder}/{LOCK}.creator-{number}"


def _machine() -> str:
    return os.uname().nodename if ON_POSIX else os.environ.get("COMPUTERNAME", "")
