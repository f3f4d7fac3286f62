"""NIfTI: volumes of medicine and of brain atlases, with their voxels; also in a gzip, as most are.

Axes are those of the file, x fastest; how they lie in the body is not asked. Scaled values come as nibabel scales them.
"""

from __future__ import annotations

import math
import struct
from typing import TYPE_CHECKING

import numpy as np

from unet_dask.errors import InputError
from unet_dask.io.remote import shorten
from unet_dask.io.source import raw_values
from unet_dask.io.source.file_format import FileFormat, FileImage, no_level
from unet_dask.io.source.raw_values import Raw
from unet_dask.kinds import NIFTI

if TYPE_CHECKING:
    from pathlib import Path
    from typing import BinaryIO

    from numpy.typing import NDArray

SUFFIXES = (".nii.gz", ".nii")
#: Bytes of the header of version 2; that of version 1 is shorter.
_HEADER = 540
_TYPES = {
    2: "u1",
    4: "i2",
    8: "i4",
    16: "f4",
    64: "f8",
    256: "i1",
    512: "u2",
    768: "u4",
    1024: "i8",
    1280: "u8",
}
_RGB = 128
#: Units of length by the lowest bits of `xyzt_units`.
_UNITS = {1: "meter", 2: "millimeter", 3: "micrometer"}


class NiftiReader:
    """Reads the header of NIfTI-1 or NIfTI-2 and the values behind it."""

    def image(self, file: BinaryIO, path: Path, inner: str, level: int | None) -> FileImage:
        """Return the volume of a file."""
        no_level(path, inner, level, "volume")
        header, packed = raw_values.header(file, _HEADER)
        dims, kind, sizes, offset, slope, intercept, units, order = _fields(header)
        count = dims[0]
        if kind not in (*_TYPES, _RGB) or not 2 <= count <= 7:
            raise InputError(
                f"{shorten(str(path))} is a NIfTI image of type {kind} in {count} dimensions, which is not read. Save "
                "it as whole numbers or floats."
            )
        shape, axes = _axes(dims[1 : 1 + count], path)
        if kind == _RGB:
            shape, axes = (*shape, 3), f"{axes}c"
        stored = np.dtype(order + _TYPES.get(kind, "u1"))
        if not math.isfinite(slope) or slope == 0:
            slope, intercept = 1.0, 0.0
        intercept = intercept if math.isfinite(intercept) else 0.0
        raw = Raw(offset, stored.str, slope, intercept, packed)
        raw_values.require_whole(file, path, raw, shape)
        known = {axis: abs(size) for axis, size in zip("xyz", sizes[1:4], strict=True) if axis in axes}
        return FileImage(
            key="",
            shape=shape,
            dtype=np.dtype("f8") if raw.scaled else stored.newbyteorder("="),
            chunk=raw_values.chunk_of(shape, packed=packed),
            kind="NIfTI, gzip" if packed else "NIfTI",
            copies=3 if packed else 1,
            place=raw,
            axes=axes,
            spacing=known if all(known.values()) and units in _UNITS else None,
            unit=_UNITS.get(units),
        )

    def values(self, file: BinaryIO, image: FileImage, selection: tuple[slice, ...]) -> NDArray[np.generic]:
        """Return a part of the values."""
        assert isinstance(image.place, Raw)
        return raw_values.read(file, image.place, image.shape, image.dtype, selection)


_FORMAT = FileFormat(NiftiReader())
find, opened, digest, levels = _FORMAT.find, _FORMAT.opened, _FORMAT.digest, _FORMAT.levels


def holds(path: Path) -> bool:
    """Tell whether a file is NIfTI, or a gzip of one."""
    return raw_values.is_kind(path, NIFTI)


def _fields(
    header: bytes,
) -> tuple[tuple[int, ...], int, tuple[float, ...], int, float, float, int, str]:
    """Return sizes, type, sizes of a voxel, offset, slope, intercept, units and byte order of a header."""
    second = header[4:7] == b"n+2"
    size = 540 if second else 348
    order = "<" if int.from_bytes(header[:4], "little") == size else ">"

    def take(form: str, place: int) -> tuple[int | float, ...]:
        return struct.unpack_from(order + form, header, place)

    if second:
        dims, (kind,), sizes = take("8q", 16), take("h", 12), take("8d", 104)
        (offset,), (slope, intercept), (units,) = take("q", 168), take("2d", 176), take("i", 500)
    else:
        dims, (kind,), sizes = take("8h", 40), take("h", 70), take("8f", 76)
        (offset,), (slope, intercept), (units,) = take("f", 108), take("2f", 112), take("B", 123)
    whole = tuple(int(number) for number in dims)
    return whole, int(kind), sizes, int(offset), float(slope), float(intercept), int(units) & 7, order


def _axes(sizes: tuple[int, ...], path: Path) -> tuple[tuple[int, ...], str]:
    """Return shape and axes in our order, of sizes along x, y, z, time and channels."""
    named = "xyztc"
    kept = [(axis, size) for axis, size in zip(named, sizes, strict=False) if axis in "xy" or size != 1]
    if (len(sizes) > len(named) and any(size != 1 for size in sizes[len(named) :])) or min(sizes) < 1:
        raise InputError(
            f"{shorten(str(path))} has {len(sizes)} dimensions, {sizes}, more than an image. Save a part of it."
        )
    if len(sizes) > 2 and "z" not in dict(kept):
        kept.insert(2, ("z", 1))
    kept.reverse()
    return tuple(size for _, size in kept), "".join(axis for axis, _ in kept)
