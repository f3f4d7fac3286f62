"""A group of an image that lists what it holds, and how something gets there whole."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from unet_dask.errors import OptionError, SinkError, UnetDaskError
from unet_dask.private import ON_POSIX
from unet_dask.regular import open_regular
from unet_dask.shelves.documents import DOCUMENTS, attributes_of, renew_copies, write_attributes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from unet_dask.shelves.host import Host

#: Attribute of what was put there by us; the mark of a result is another.
MARK = "unet_dask_export"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
#: In the folder where something is being made: who holds it, in the kernel, makes it.
_LOCK = "lock"


@dataclass(frozen=True, slots=True)
class Shelf:
    """A group of an image.

    Attributes
    ----------
    host : the image
    name : of the group, and of the list in its attributes: "labels" or "tables"
    """

    host: Host
    name: str

    @property
    def folder(self) -> Path:
        """Where it is."""
        return self.host.folder / self.name

    def _require_free(self, name: str, *, overwrite: bool) -> None:
        """Raise unless something can be put there under a name.

        Raises
        ------
        SinkError
            If there is something of that name, and it is not to be replaced, or not as we left it.
        """
        place = self.folder / name
        if not place.exists():
            return
        mark = attributes_of(place, self.host.zarr_format).get(MARK)
        if not isinstance(mark, dict):
            raise SinkError(
                f"{place} was not written by unet-dask, so it is not replaced. Choose another --name, or remove it "
                "yourself."
            )
        if overwrite and mark.get("content") != _content(place):
            raise SinkError(
                f"{place} was changed since unet-dask wrote it, perhaps corrected by hand, so it is not replaced. "
                "Choose another --name, or remove it yourself."
            )
        if not overwrite:
            raise SinkError(
                f"{place} is there already. Replace it with --overwrite, or choose another --name."
            )

    @contextmanager
    def put(self, name: str, *, overwrite: bool) -> Iterator[Path]:
        """Yield a place where a group can be made; when it is there, it gets its name in the image.

        Parameters
        ----------
        name : of the group
        overwrite : whether one of ours may be replaced

        Raises
        ------
        OptionError
            If the name is none.
        SinkError
            If something else has the name, somebody else puts something there at this moment, or it cannot be written.
        """
        if not _NAME.fullmatch(name):
            raise OptionError(
                f"{name!r} cannot name something in {self.name}/. Use letters, digits, - and _, such as nuclei."
            )
        try:
            with self._workshop() as workshop:
                self._require_free(name, overwrite=overwrite)
                yield workshop / name
                self._sign(workshop / name)
                if hasattr(os, "sync"):
                    os.sync()  # what gets a name has its bytes
                self._move_in(workshop, name)
        except (OSError, ValueError) as error:
            if isinstance(error, UnetDaskError):
                raise
            raise SinkError(f"{self.folder / name} cannot be written: {error}.") from error

    def _sign(self, place: Path) -> None:
        """Write into the attributes of what was made that it is ours, and by what it is known."""
        attributes = attributes_of(place, self.host.zarr_format)
        attributes[MARK] = {"content": _content(place)}
        write_attributes(place, self.host.zarr_format, attributes)

    def _move_in(self, workshop: Path, name: str) -> None:
        """Give what was made its name: what is listed is there, at any moment."""
        self.folder.mkdir(exist_ok=True)
        place = self.folder / name
        if place.exists():
            self._list(name, listed=False)
            place.rename(workshop / "before")
        (workshop / name).rename(place)
        self._list(name, listed=True)

    def _list(self, name: str, *, listed: bool) -> None:
        version, folder = self.host.zarr_format, self.folder
        attributes = attributes_of(folder, version)
        inner: dict[str, Any] = attributes
        if version == 3 and self.name == "labels":  # of OME-Zarr, which tables are no part of
            inner = attributes.setdefault("ome", {})
            inner.setdefault("version", self.host.version)
        others = [each for each in inner.get(self.name, []) if each != name]
        inner[self.name] = [*others, name] if listed else others
        write_attributes(folder, version, attributes)
        renew_copies(self.host.hierarchy, folder, version)

    @contextmanager
    def _workshop(self) -> Iterator[Path]:
        """Yield an empty folder beside the store, for one process at a time; what a killed one left is removed."""
        outermost = self.host.hierarchy[-1]
        inner = self.host.folder.relative_to(outermost).parts
        folder = outermost.parent / ".".join(["", outermost.name, *inner, self.name, "partial"])
        folder.mkdir(exist_ok=True)
        descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if not _locked(descriptor):
                raise SinkError(
                    f"Another process puts something into {self.folder} at this moment. Wait for it."
                )
            _clear(folder)
            yield folder
        finally:
            if _locked(descriptor):
                shutil.rmtree(folder, ignore_errors=True)
            os.close(descriptor)


def _content(place: Path) -> str:
    """Return a checksum of all files below a group but of its own documents, in which it stands."""
    found = hashlib.sha256()
    for path in sorted(path for path in place.rglob("*") if path.is_file()):
        if path.parent != place or path.name not in DOCUMENTS:
            found.update(path.relative_to(place).as_posix().encode() + b"\0")
            with open_regular(path) as file:
                for piece in iter(partial(file.read, 1 << 20), b""):
                    found.update(piece)
    return found.hexdigest()


def _clear(folder: Path) -> None:
    for left in folder.iterdir():
        if left.is_dir():
            shutil.rmtree(left)
        elif left.name != _LOCK:
            left.unlink()


def _locked(descriptor: int) -> bool:
    """Return whether a file is locked by this process, now or before; where there are no locks it always is."""
    if not ON_POSIX:
        return True
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
