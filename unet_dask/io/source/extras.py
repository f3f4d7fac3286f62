"""Libraries that only some formats need: what is not installed says which extra brings it."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from unet_dask.errors import InputError
from unet_dask.io.remote import shorten

if TYPE_CHECKING:
    from pathlib import Path

#: The extra of this package that brings a library, and what the library reads.
EXTRAS = {"h5py": ("hdf5", "HDF5")}


def needed(module: str, path: Path) -> Any:
    """Return a library.

    Raises
    ------
    InputError
        If it is not installed.
    """
    try:
        return import_module(module)
    except ImportError as error:
        extra, kind = EXTRAS[module]
        raise InputError(
            f"{shorten(str(path))} needs {module}, which reads {kind} and is not installed. Install it with "
            f"pip install 'unet-dask[{extra}]'."
        ) from error
