"""How an HDF5 data set is stored: its chunks, and whether everything is here that decodes them."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from unet_dask.errors import InputError
from unet_dask.io.remote import printable, shorten

if TYPE_CHECKING:
    from pathlib import Path

#: Copies of a chunk at once: encoded, decoded, and after its filters.
COPIES = 3
#: What is called a chunk of values that are stored one after the other: rows and columns.
_ROWS, _COLUMNS = 256, 1024


def chunk_of(data: Any) -> tuple[int, ...]:
    """Return the shape of what is decoded together."""
    if data.chunks:
        return tuple(int(side) for side in data.chunks)
    shape = tuple(int(size) for size in data.shape)
    plane = (min(shape[-2], _ROWS), min(shape[-1], _COLUMNS))
    return (1,) * (len(shape) - 2) + tuple(max(side, 1) for side in plane)


def require_readable(data: Any, path: Path) -> None:
    """Refuse a data set whose values lie in other files, or whose filters are not installed.

    Raises
    ------
    InputError
        Saying what to do.
    """
    shown = f"{printable(data.name.strip('/'), 200)!r} of {shorten(str(path))}"
    if data.is_virtual or data.external:
        raise InputError(
            f"The values of {shown} lie in other files, which are not opened. Copy the data set into one file, with "
            "h5repack or h5py."
        )
    missing = [number for number in _filters(data) if not _available(number)]
    if missing:
        raise InputError(
            f"{shown} is compressed with the filter {missing[0]} of HDF5, which is not installed. Install it with "
            "pip install 'unet-dask[hdf5]'."
        )


def _filters(data: Any) -> list[int]:
    settings = data.id.get_create_plist()
    return [int(settings.get_filter(number)[0]) for number in range(settings.get_nfilters())]


def _available(number: int) -> bool:
    import h5py

    if h5py.h5z.filter_avail(number):
        return True
    try:
        import_module("hdf5plugin")  # brings Blosc, Zstandard, LZ4 and others
    except ImportError:
        return False
    return bool(h5py.h5z.filter_avail(number))
