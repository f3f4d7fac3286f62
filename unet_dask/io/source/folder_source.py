"""A folder of numbered images, each a plane of one stack: TIFF or PNG, all of one shape and type.

Each file is read through its own format. Planes of a stack follow each other along z, or along t where the files are
volumes.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import TYPE_CHECKING, NoReturn

import numpy as np

from unet_dask.axes import has_depth
from unet_dask.errors import DataError, InputError
from unet_dask.io.remote import local_path, shorten
from unet_dask.io.source import content, formats, not_zarr
from unet_dask.io.source.numbered import SUFFIXES as IMAGES
from unet_dask.io.source.numbered import in_order
from unet_dask.io.source.protocol import Found, Wanted
from unet_dask.io.source.stamps import ChangedError, File, Look, file_at

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from unet_dask.io.source.pieces import Decoding
    from unet_dask.io.source.protocol import SourceSpec, Stored

SUFFIXES: tuple[str, ...] = ()
#: Files that are kept open, each with what was decoded last.
_OPEN = 4


@dataclass(eq=False)
class FolderArray:
    """The images of a folder as one array, along a first axis.

    Attributes
    ----------
    folder : that holds them
    names : of the files, in order
    first : the first of them, opened
    """

    folder: Path
    names: Sequence[str]
    first: Found
    _open: OrderedDict[int, Stored] = field(default_factory=OrderedDict, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    @property
    def shape(self) -> tuple[int, ...]:
        """Files, and shape of an image."""
        return (len(self.names), *self.first.stored.shape)

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """Type of the values."""
        return self.first.stored.dtype

    @property
    def unit(self) -> tuple[int, ...]:
        """What lies in one segment of one file."""
        return (1, *self.first.stored.unit)

    @property
    def decoding(self) -> Decoding:
        """What reading takes beside what is read: files are read one after the other, and the last ones are kept."""
        one = self.first.stored.decoding
        return replace(one, chunk=(1, *one.chunk), copies=one.copies + _OPEN)

    @property
    def facts(self) -> Mapping[str, object]:
        """How many files there are, and what the first of them is."""
        one = dict(self.first.stored.facts)
        return one | {"chunks": list(self.unit), "format": f"{len(self.names)} files, {one['format']}"}

    def look(self, selection: tuple[slice, ...]) -> Look:
        """Look at the files that hold a part."""
        names = self.names[selection[0]]
        return Look({name: file_at(str(self.folder / name)) for name in names}, {})

    def read(self, selection: tuple[slice, ...]) -> tuple[NDArray[np.generic], Look]:
        """Return a part of the values, and the files that it was read from."""
        first, inner = selection[0], selection[1:]
        values = np.empty([part.stop - part.start for part in selection], self.dtype.newbyteorder("="))
        seen: dict[str, File] = {}
        for place, number in enumerate(range(first.start, first.stop)):
            stored = self._stored(number)
            try:
                values[place], look = stored.read(inner)
            except ChangedError:
                self._open.pop(number, None)  # what is there now may be read at the next try
                raise
            except (InputError, MemoryError):
                raise
            except Exception as error:
                stored.refuse(f"of plane {number}", error)
            seen |= look.chunks if look else {}
        return values, Look(seen, {})

    def refuse(self, window: str, error: BaseException) -> NoReturn:
        """Raise our own error for what went wrong in reading a window."""
        self.first.stored.refuse(window, error)

    def _stored(self, number: int) -> Stored:
        """Return a file, opened."""
        if number == 0:
            return self.first.stored
        with self._lock:
            if number not in self._open:
                found = _member(self.folder / self.names[number])
                self._open[number] = _require_like(self.first, found).stored
                while len(self._open) > _OPEN:
                    self._open.popitem(last=False)
            return self._open[number]


def holds(path: Path) -> bool:
    """Tell whether a folder holds images, and is no Zarr store."""
    if not path.is_dir() or not_zarr.is_store(path):
        return False
    with os.scandir(path) as entries:
        return any(
            entry.name.lower().endswith(tuple(IMAGES)) and not entry.name.startswith(".") and entry.is_file()
            for entry in entries
        )


def find(place: str, wanted: Wanted) -> Found:
    """Return the stack of the images of a folder.

    Raises
    ------
    InputError
        If they are not numbered, or differ.
    """
    folder = local_path(place).absolute()
    if wanted.key or wanted.level is not None:
        raise InputError(
            f"{shorten(str(folder))} is a folder of images, which has no key and no levels. Leave them out."
        )
    files = in_order(folder)
    inner = replace(wanted, axes=wanted.axes[1:] if wanted.axes else None)
    first = _member(files[0], inner)
    for path in files[1:]:
        _require_like(first, _member(path, inner))
    array = FolderArray(folder, tuple(path.name for path in files), first)
    axes = wanted.axes or ("t" if has_depth(first.axes) else "z") + first.axes
    if len(set(axes)) < len(axes):
        raise InputError(
            f"The files of {shorten(str(folder))} have the axes {first.axes}, and so cannot be stacked."
        )
    return replace(
        first,
        url=str(folder),
        key="",
        metadata=_described(array),
        written=0,
        axes=axes,
        origin="--axes" if wanted.axes else f"files, {first.origin}",
        stored=array,
        name=folder.name,
        shown=shorten(str(folder)),
        spacing=None if first.spacing is None else [1.0, *first.spacing],
        units=None if first.units is None else [None, *first.units],
    )


def opened(spec: SourceSpec, *, keep: bool) -> FolderArray:  # each file keeps what it decoded last
    """Return the stack of a spec, in any process; only the first file is opened.

    Raises
    ------
    DataError
        If it is gone or another one is in its place.
    """
    folder = local_path(spec.url)
    try:
        files = in_order(folder)
        array = FolderArray(folder, tuple(path.name for path in files), _member(files[0]))
    except (InputError, OSError) as error:
        raise DataError(f"The folder {shorten(spec.url)} cannot be opened any more: {error}") from error
    if _described(array) != spec.metadata:
        raise DataError(
            f"The images of {shorten(spec.url)} were replaced since they were opened. Open the source again."
        )
    return array


def digest(spec: SourceSpec) -> str:
    """Return a digest of names, sizes and times of the files, and of samples of their bytes."""
    return content.folder_digest(local_path(spec.url))


def levels(_: SourceSpec) -> list[dict[str, object]]:
    """Return nothing: a folder has no levels."""
    return []


def _member(path: Path, wanted: Wanted | None = None) -> Found:
    name = formats.format_of(str(path))
    return formats.named(name).find(str(path), wanted or Wanted())


def _require_like(first: Found, other: Found) -> Found:
    """Refuse an image that is not like the first one of its folder."""
    one, two = first.stored, other.stored
    if (one.shape, one.dtype, first.axes) != (two.shape, two.dtype, other.axes):
        raise InputError(
            f"{other.shown} is {two.shape} of {two.dtype} ({other.axes}) and {first.shown} {one.shape} of {one.dtype} "
            f"({first.axes}), so they are no planes of one stack. Segment them one by one."
        )
    return other


def _described(array: FolderArray) -> str:
    said = (tuple(array.names), array.shape, array.dtype.name, array.first.metadata)
    return sha256(repr(said).encode("utf-8", "surrogateescape")).hexdigest()
