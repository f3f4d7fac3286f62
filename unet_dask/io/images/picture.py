"""One file or Zarr array read whole: all of its pages, all of its bits, with the letters of its axes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from unet_dask.axes import space_of
from unet_dask.errors import InputError
from unet_dask.io.images.pairing import is_zarr
from unet_dask.io.images.stack import layout_of, open_stack
from unet_dask.io.source import formats, not_zarr
from unet_dask.kinds import kind_of
from unet_dask.paths import local_path
from unet_dask.spacing import known_spacing

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from unet_dask.io.images.stack import Layout, Stack


@dataclass(frozen=True, slots=True)
class Picture:
    """An array as it was stored, without alpha.

    Attributes
    ----------
    name : of the file, for messages
    array : its values
    axes : canonical, one letter per axis
    spacing : pixel size per axis of space, z first if known, None if nobody says
    unit : of the spacing
    digest : SHA-256 of the file, or of the values of an array in Zarr
    """

    name: str
    array: NDArray[np.generic]
    axes: str
    spacing: tuple[float, ...] | None
    unit: str | None
    digest: str

    def layout(self, dims: int) -> Layout:
        """Return where its planes, channels and space are for a network of `dims` dimensions."""
        return layout_of(self.array.shape, self.axes, dims=dims, name=self.name)

    def images(self, dims: int) -> NDArray[np.generic]:
        """Return it as (n, c, *spatial)."""
        return self.layout(dims).arranged(self.array)


def read_picture(place: str, key: str | None = None, *, dims: int = 2, axes: str | None = None) -> Picture:
    """Read one file or Zarr array whole; `key` and `axes` are those of an array in Zarr.

    Raises
    ------
    InputError
        If it is no image, cannot be read, or holds images of several kinds.
    """
    if is_zarr(place):
        return _read(open_stack(place, key, dims=dims, axes=axes))
    path = local_path(place)
    if not path.exists():
        raise not_zarr.missing(path)
    if not path.is_file() or formats.reads_zarr(str(path)):
        kind = "a folder" if path.is_dir() else kind_of(path).name
        raise InputError(
            f"{path} is {kind}, not a TIFF, PNG or HDF5 file, a folder of images, or a Zarr store."
        )
    return _read(open_stack(place, key, dims=dims, axes=axes), path)


def _read(stack: Stack, file: Path | None = None) -> Picture:
    """Read a stack whole; its digest is that of its file, if it is one."""
    source = stack.source
    values = source.read(tuple(slice(0, size) for size in source.shape))
    spacing, unit = known_spacing(source.spacing, source.unit, space_of(source.axes))
    content = file.read_bytes() if file else np.ascontiguousarray(values).tobytes()
    digest = hashlib.sha256(content).hexdigest()
    return Picture(stack.name, values, source.axes, spacing, unit, digest)
