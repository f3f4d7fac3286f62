"""HDF5: any data set, with what plantseg, ilastik and others say of it; volumes of BigDataViewer and Imaris.

A key names a data set, such as ``raw``. Links out of the file are not followed: a file may not lead to another one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from unet_dask.errors import InputError
from unet_dask.io.remote import printable, shorten
from unet_dask.io.source import hdf5_attributes, hdf5_stacks
from unet_dask.io.source.extras import needed
from unet_dask.io.source.file_format import FileFormat, FileImage
from unet_dask.io.source.hdf5_chunks import COPIES, chunk_of, require_readable
from unet_dask.kinds import HDF5, kind_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO

    from numpy.typing import NDArray

SUFFIXES = (".h5", ".hdf5", ".hdf", ".ims")
#: Data sets that an error lists at most, and nodes of a file that are looked at for them.
_LISTED, _LOOKED_AT = 8, 10_000


class Hdf5Reader:
    """Reads HDF5 through h5py, from a file that is open already, so that no other one can be in its place."""

    def image(self, file: BinaryIO, path: Path, inner: str, level: int | None) -> FileImage:
        """Return the data set, or the volume, that is meant."""
        h5py = needed("h5py", path)
        with h5py.File(file, "r") as opened:
            stack = hdf5_stacks.stack_of(opened, path, inner, level)
            if stack is not None:
                return stack
            if level is not None:
                raise InputError(
                    f"--level {level} was asked of {shorten(str(path))}, which has no levels. Leave it out, or name a "
                    "data set with --key."
                )
            return _plain(_data_set(opened, path, inner), path)

    def values(self, file: BinaryIO, image: FileImage, selection: tuple[slice, ...]) -> NDArray[np.generic]:
        """Return a part of the values."""
        import h5py

        with h5py.File(file, "r") as opened:
            if isinstance(image.place, hdf5_stacks.Parts):
                return hdf5_stacks.read(opened, image, selection)
            return np.asarray(opened[image.key][selection]).astype(image.dtype, copy=False)


_FORMAT = FileFormat(Hdf5Reader())
find, opened, digest, levels = _FORMAT.find, _FORMAT.opened, _FORMAT.digest, _FORMAT.levels


def holds(path: Path) -> bool:
    """Tell whether a file is HDF5."""
    return path.is_file() and kind_of(path) is HDF5


def _data_set(opened: Any, path: Path, inner: str) -> Any:
    """Return the data set of a key, or the only one that can be an image.

    Raises
    ------
    InputError
        If there is none or there are several; the message lists them.
    """
    found = list(_images(opened))
    if inner:
        exact = next((each for each in found if each.name.strip("/") == inner), None)
        below = [each for each in found if each.name.strip("/").startswith(f"{inner}/")]
        if exact is not None:
            return exact
        if len(below) != 1:
            raise InputError(
                f"{shorten(str(path))} has no data set {printable(inner)!r} that is an image. It holds: "
                f"{_listing(found) or 'none'}. Choose one with --key."
            )
        return below[0]
    if not found:
        raise InputError(
            f"{shorten(str(path))} holds no data set of numbers with two to five dimensions, as an image has."
        )
    if len(found) > 1:
        raise InputError(
            f"{shorten(str(path))} holds {len(found)} data sets: {_listing(found)}. Choose one with --key."
        )
    return found[0]


def _images(group: Any) -> Iterator[Any]:
    """Yield the data sets below a group that can be images, through hard links alone, each once."""
    import h5py

    waiting: list[Any] = [group]
    seen: set[int] = set()
    while waiting and len(seen) < _LOOKED_AT:
        above = waiting.pop(0)
        for name in above:
            if not isinstance(above.get(name, getlink=True), h5py.HardLink):
                continue
            child = above[name]
            address = h5py.h5o.get_info(child.id).addr
            if address in seen:
                continue
            seen.add(address)
            if isinstance(child, h5py.Group):
                waiting.append(child)
            elif isinstance(child, h5py.Dataset) and 2 <= child.ndim <= 5 and child.dtype.kind in "biuf":
                yield child


def _listing(found: list[Any]) -> str:
    names = [f"{printable(each.name.strip('/'), 200)} {each.shape} {each.dtype}" for each in found]
    rest = len(names) - _LISTED
    return ", ".join(names[:_LISTED]) + (f" and {rest} more" if rest > 0 else "")


def _plain(data: Any, path: Path) -> FileImage:
    """Return a data set with what its attributes say of it."""
    require_readable(data, path)
    shape = tuple(int(size) for size in data.shape)
    said = hdf5_attributes.read(data)
    return FileImage(
        key=data.name.strip("/"),
        shape=shape,
        dtype=np.dtype(data.dtype).newbyteorder("="),
        chunk=chunk_of(data),
        kind=f"HDF5, {said.origin}" if said.origin else "HDF5",
        copies=COPIES,
        place=(data.name, data.id.get_offset(), str(data.compression)),
        axes=said.axes,
        spacing=said.spacing,
        unit=said.unit,
        translation=said.translation,
        facts={"compression": str(data.compression or "none")},
    )
