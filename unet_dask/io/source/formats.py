"""The formats that images are read from: a module each, and a line here.

Which one a place is told by what lies there, never by its name. The modules are imported when they are asked, because
some import large libraries.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, cast

from unet_dask.io import remote
from unet_dask.io.source import not_zarr

if TYPE_CHECKING:
    from pathlib import Path

    from unet_dask.io.source.protocol import Format

#: Module of each format, by the name that specs carry. The first that holds a place reads it.
FORMATS: dict[str, str] = {
    "zarr": "unet_dask.io.source.zarr_source",
    "tiff": "unet_dask.io.source.tiff_source",
    "picture": "unet_dask.io.source.picture_source",
    "hdf5": "unet_dask.io.source.hdf5_source",
    "mrc": "unet_dask.io.source.mrc_source",
    "nifti": "unet_dask.io.source.nifti_source",
    "folder": "unet_dask.io.source.folder_source",
}
#: The format that says what is wrong with a place that none holds.
_LAST = "zarr"


def named(name: str) -> Format:
    """Return a format by its name."""
    return cast("Format", import_module(FORMATS[name]))


def format_of(place: str) -> str:
    """Return the name of the format of a path or URL, or of a file or folder that such a path leads into."""
    if not remote.is_local(place):
        return _LAST
    there = path = remote.local_path(place).absolute()
    try:
        there = next((found for found in (path, *path.parents) if found.exists()), path)
        if there != path and there.is_dir():  # a folder that the path does not lead into
            return _LAST
        return next((name for name in FORMATS if name != _LAST and named(name).holds(there)), _LAST)
    except OSError as error:
        remote.Location(str(there)).refuse(error)


def reads_zarr(place: str) -> bool:
    """Return whether a path or URL is read as a Zarr store."""
    return format_of(place) == _LAST


def in_store(path: Path) -> bool:
    """Return whether a folder of this machine is a Zarr store, or lies in one."""
    return any(not_zarr.is_store(at) for at in (path, *path.parents))


def split_file(place: str, key: str | None) -> tuple[Path, str]:
    """Return the file that a path is or leads into, and the path in it that the rest and `key` mean together."""
    path = remote.local_path(place).absolute()
    file = next(found for found in (path, *path.parents) if found.exists())
    inner = path.relative_to(file).parts
    return file, "/".join((*inner, *(part for part in (key or "").split("/") if part)))


def stem(name: str) -> str:
    """Return a name without what its format adds to it.

    Examples
    --------
    >>> stem("big.ome.zarr"), stem("a.b")
    ('big', 'a.b')
    """
    suffixes = (suffix for format_ in FORMATS for suffix in named(format_).SUFFIXES)
    ending = next((suffix for suffix in suffixes if name.lower().endswith(suffix)), "")
    return name[: len(name) - len(ending)]
