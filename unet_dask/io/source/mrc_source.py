"""MRC and CCP4: volumes of electron tomography, with the size of a voxel in angstrom; also in a gzip."""

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
from unet_dask.kinds import MRC

if TYPE_CHECKING:
    from pathlib import Path
    from typing import BinaryIO

    from numpy.typing import NDArray

SUFFIXES = (".mrc.gz", ".map.gz", ".mrcs", ".mrc", ".map", ".rec", ".ccp4", ".st", ".ali")
_HEADER = 1024
#: Types of values by their mode; those of complex numbers and of half bytes are no image.
_MODES = {0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2"}
#: Volumes of a stack have space groups from here on.
_VOLUMES = 401


class MrcReader:
    """Reads the header of MRC2014 (Cheng and others, 2015) and the values behind it."""

    def image(self, file: BinaryIO, path: Path, inner: str, level: int | None) -> FileImage:
        """Return the volume of a file."""
        no_level(path, inner, level, "volume")
        header, packed = raw_values.header(file, _HEADER)
        order = "<" if header[212:213] in (b"\x44", b"\x00") else ">"
        nx, ny, nz, mode = struct.unpack(f"{order}4i", header[:16])
        grid = struct.unpack(f"{order}3i", header[28:40])
        cell = struct.unpack(f"{order}3f", header[40:52])
        group, extended = struct.unpack(f"{order}2i", header[88:96])
        if mode not in _MODES or min(nx, ny, nz) < 1 or extended < 0:
            raise InputError(
                f"{shorten(str(path))} is an MRC volume of mode {mode} and {nz} x {ny} x {nx} values, which is not "
                "read. Save it in mode 0, 1, 2, 6 or 12."
            )
        shape: tuple[int, ...] = (nz, ny, nx)
        if group >= _VOLUMES and grid[2] > 0:
            shape = (nz // grid[2], grid[2], ny, nx)
        elif group == 0 and nz == 1:
            shape = (ny, nx)
        stored = np.dtype(order + _MODES[mode])
        raw = Raw(_HEADER + extended, stored.str, packed=packed)
        raw_values.require_whole(file, path, raw, shape)
        return FileImage(
            key="",
            shape=shape,
            dtype=stored.newbyteorder("="),
            chunk=raw_values.chunk_of(shape, packed=packed),
            kind="MRC, gzip" if packed else "MRC",
            copies=2 if packed else 1,
            place=raw,
            axes="tzyx"[-len(shape) :],
            spacing=_voxel(cell, grid, len(shape)),
            unit="angstrom",
        )

    def values(self, file: BinaryIO, image: FileImage, selection: tuple[slice, ...]) -> NDArray[np.generic]:
        """Return a part of the values."""
        assert isinstance(image.place, Raw)
        return raw_values.read(file, image.place, image.shape, image.dtype, selection)


_FORMAT = FileFormat(MrcReader())
find, opened, digest, levels = _FORMAT.find, _FORMAT.opened, _FORMAT.digest, _FORMAT.levels


def holds(path: Path) -> bool:
    """Tell whether a file is MRC, or a gzip of one."""
    return raw_values.is_kind(path, MRC)


def _voxel(cell: tuple[float, ...], grid: tuple[int, ...], dims: int) -> dict[str, float] | None:
    """Return the size of a voxel in angstrom; None where the header leaves it at zero."""
    sizes = {axis: side / count for axis, side, count in zip("xyz", cell, grid, strict=True) if count > 0}
    known = {axis: sizes.get(axis, 0.0) for axis in ("yx" if dims == 2 else "zyx")}
    return known if all(0 < size < math.inf for size in known.values()) else None
