"""Sessions: what keeps a worker that was given up from writing over what has been finished since.

A worker may be suspended, or its disk may stall, for any time; its region is then done again by another, the run ends,
perhaps another run takes the place of the sink; and at last the worker wakes, in the middle of a write. To ask before
a write whether it is still wanted leaves the moment between question and write. So on a local file system workers never
write where a result lies. Each attempt at a piece of work has a folder of its own, where files are written and flushed;
the driver moves them to their places, by renames, once it holds the attempt's record, and enters them in the ledger.
What comes late was never moved, and never will be.

The folders of attempts lie in that of the driver's session. A driver that leaves takes it away, and so does the next
one, by a rename, which is one step; and they are made within a session that is there, or not at all: whoever wakes
after that finds no place to write to.

In an object store nothing can be renamed. There a session is an object, every write asks first whether it is still
there, and what remains is the time of one request.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import uuid
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from zarr.abc.store import Store
from zarr.core.buffer import default_buffer_prototype
from zarr.storage import FsspecStore, LocalStore, WrapperStore

from unet_dask.durable import sync_file, sync_folder
from unet_dask.errors import SinkError, SinkLostError
from unet_dask.io.remote import redact_url
from unet_dask.io.sink.place import ASIDE, RUN_FOLDER, SESSION, is_local, locate, names_in

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zarr.core.buffer import Buffer

#: A file in a session's folder, which nobody but its driver makes.
_OPEN = "open"
#: End of the name of a session's folder while it is removed.
_ENDED = ".ended"
#: Times that the end of a session is tried: where a disk refuses a call, the next may succeed.
_TRIES = 2
#: Folders from that of a sink to that of an array: product and level, or the run's folder and what is its own.
_DEPTH = 2


class Session:
    """The driver's side: where its workers stage, and how what they staged comes to its place.

    Parameters
    ----------
    url : of the sink
    """

    def __init__(self, url: str) -> None:
        self.name = f"{SESSION}{uuid.uuid4().hex}"
        self._url = url
        self._fs, path = locate(url)
        self._root = Path(path)
        self._local = is_local(self._fs)
        self._key = f"{path}/{RUN_FOLDER}/{self.name}"
        #: Folders whose own names are known to be on disk.
        self._durable: set[Path] = set()

    def begin(self) -> None:
        """Open the session."""
        if self._local:
            Path(self._key).mkdir(parents=True)
            Path(self._key, _OPEN).touch()
        else:
            self._fs.pipe_file(self._key, b"unet-dask")

    def end(self) -> None:
        """End it: from here on nothing that belongs to it can be written, or put in its place."""
        _end(self._fs, self._key)

    def place(self, attempt: str, files: int) -> None:
        """Move what an attempt has staged to its place, durably.

        Parameters
        ----------
        attempt : its name; "" if it wrote in place, as in an object store
        files : that it has staged

        Raises
        ------
        SinkError
            If the sink has lost an array.
        SinkLostError
            If some of the files are not there, or its file system refuses.
        """
        if not attempt:
            return
        staged = Path(self._key) / attempt
        try:
            found = [Path(folder, name) for folder, _, names in os.walk(staged) for name in names]
            if len(found) != files:  # where older ones lie in their place, nobody would miss them there
                raise SinkLostError(
                    f"{len(found)} of {files} files that were written to {redact_url(self._url)} are there: its folder "
                    f"{RUN_FOLDER}/{self.name} was changed or removed. What is done is kept; --resume."
                )
            for file in found:
                place = self._root / file.relative_to(staged)
                self._make(place.parent)
                os.replace(file, place)  # noqa: PTH105
            for folder in {self._root / file.relative_to(staged).parent for file in found}:
                sync_folder(folder)
        except OSError as error:
            if isinstance(error, SinkError):
                raise
            raise SinkLostError(
                f"The sink {redact_url(self._url)} cannot be written: {error.strerror or error}. What is done is kept; "
                "mend the cause and --resume."
            ) from error
        shutil.rmtree(staged, ignore_errors=True)

    def _make(self, folder: Path) -> None:
        """Make a folder of chunks within its array, and flush the names above it: another driver may have made them.

        The array itself must be there: without it its chunks are nothing.
        """
        array = Path(*folder.relative_to(self._root).parts[:_DEPTH])
        if not (self._root / array / "zarr.json").is_file():
            remedy = "--resume" if str(array) in ASIDE else "Restore it from a copy and --resume"
            raise SinkError(
                f"The array {array} of {redact_url(self._url)} was removed while the run was going on. {remedy}, or "
                "start over with --overwrite."
            )
        if folder == self._root / array or (folder in self._durable and folder.is_dir()):
            return
        self._make(folder.parent)
        with suppress(FileExistsError):
            folder.mkdir()
        sync_folder(folder.parent)
        self._durable.add(folder)


@contextmanager
def session(url: str) -> Iterator[Session]:
    """Open a session on a sink, and end it whatever happens.

    Raises
    ------
    SinkLostError
        If it cannot be opened.
    """
    opened = Session(url)
    try:
        opened.begin()
    except OSError as error:
        raise SinkLostError(
            f"The sink {redact_url(url)} cannot be written: {error.strerror or error}. What is done is kept; mend the "
            "cause and --resume."
        ) from error
    try:
        yield opened
    finally:
        with suppress(OSError):  # what ended the run is what is to be told
            opened.end()


def end_all(url: str, *, but: str = "") -> None:
    """End whatever sessions others have left on a sink, but one; no other driver may be at work there."""
    fs, path = locate(url)
    folder = f"{path}/{RUN_FOLDER}"
    for name in names_in(fs, folder):
        if name.startswith(SESSION) and name != but:
            _end(fs, f"{folder}/{name}")


def _end(fs: object, key: str) -> None:
    if not is_local(fs):
        with suppress(FileNotFoundError):
            fs.rm_file(key)  # type: ignore[attr-defined] # fsspec has no types
        return
    gone = key if key.endswith(_ENDED) else f"{key}{_ENDED}"
    if gone != key:
        _rename(key, gone)  # one step, after which no late worker finds a way in
    for _ in range(_TRIES):
        shutil.rmtree(gone, ignore_errors=True)
    with suppress(FileNotFoundError):
        sync_folder(os.path.dirname(gone))  # noqa: PTH120 # a power cut does not bring it back


def _rename(key: str, gone: str) -> None:
    """Rename the folder of a session, if it is there."""
    for left in reversed(range(_TRIES)):
        try:
            os.rename(key, gone)  # noqa: PTH104
        except FileNotFoundError:
            return
        except OSError:
            if not left:
                raise
        else:
            return


@contextmanager
def attempt(url: str, name: str) -> Iterator[str]:
    """Make the folder of an attempt, on a worker, and yield its name; "" in an object store, which has none.

    Parameters
    ----------
    url : of the sink
    name : of the session

    Raises
    ------
    SinkLostError
        If the session has ended.
    """
    fs, path = locate(url)
    if not is_local(fs):
        yield ""
        return
    made = uuid.uuid4().hex
    folder = Path(path, RUN_FOLDER, name, made)
    try:
        folder.mkdir()  # in a session that is there, or not at all
    except FileNotFoundError as error:
        raise SinkLostError(ended(url)) from error
    try:
        yield made
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)  # a full disk has no room for what nobody will move
        raise


def ended(url: str) -> str:
    """Return what a worker is told whose session has ended."""
    return (
        f"The run that this work on {redact_url(url)} belonged to has ended, or another has taken its place; nothing "
        "was written. What is done is kept; use --resume."
    )


class StagedFiles(LocalStore):
    """The files of an attempt, for Zarr to write chunks to; each is flushed.

    Parameters
    ----------
    url : of the sink
    name, made : of the session and of the attempt
    """

    def __init__(self, url: str, name: str, made: str) -> None:
        self._url = url
        self._session = Path(locate(url)[1], RUN_FOLDER, name)
        super().__init__(self._session / made)

    async def set(self, key: str, value: Buffer) -> None:
        """Write and flush a file."""
        await super().set(key, value)
        await asyncio.to_thread(self._keep, key)

    def _keep(self, key: str) -> None:
        if not (self._session / _OPEN).exists():  # Zarr has made the folders of a session that has ended
            shutil.rmtree(self._session, ignore_errors=True)
            raise SinkLostError(ended(self._url))
        sync_file(self.root / key)


class GuardedObjects(WrapperStore[Store]):
    """An object store that is written only while a session is open.

    Parameters
    ----------
    url : of the sink
    name : of the session
    """

    def __init__(self, url: str, name: str) -> None:
        super().__init__(FsspecStore.from_url(url))
        self._url = url
        self._session = f"{RUN_FOLDER}/{name}"

    async def set(self, key: str, value: Buffer) -> None:
        """Write an object, unless the session has ended."""
        if await super().get(self._session, default_buffer_prototype()) is None:
            raise SinkLostError(ended(self._url))
        await super().set(key, value)
