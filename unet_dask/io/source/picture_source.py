"""Pictures: a PNG or a JPEG, which is decoded as a whole, with all of its bits and without alpha."""

from __future__ import annotations

import math
import os
import threading
from contextlib import nullcontext
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING

import numpy as np

from unet_dask import axes as axes_
from unet_dask.errors import DataError, InputError
from unet_dask.io.remote import Location, local_path, shorten
from unet_dask.io.source import content, node, pieces
from unet_dask.io.source.chunk_cache import LIMIT
from unet_dask.io.source.formats import split_file, stem
from unet_dask.io.source.headers import jpeg_is_whole, jpeg_shape, png_shape
from unet_dask.io.source.pieces import Decoding
from unet_dask.io.source.protocol import Found
from unet_dask.io.source.single_file import SingleFile
from unet_dask.io.source.stamps import Look, file_of
from unet_dask.kinds import JPEG, PNG, kind_of
from unet_dask.regular import IrregularError, open_regular

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import BinaryIO

    from numpy.typing import NDArray

    from unet_dask.io.source.protocol import SourceSpec, Wanted

SUFFIXES = (".png", ".jpeg", ".jpg")
#: Bytes in which the header of a picture lies; before that of a JPEG there may be a profile and a preview.
_HEADER = 4 << 20
#: Bytes of a file beyond those of its values: profiles, comments.
_GROWTH = 16 << 20
#: Copies of a picture at once: as it is encoded, decoded, and without alpha.
_COPIES = 3


@dataclass(eq=False)
class PictureArray(SingleFile):
    """A picture as an array of (y, x) or (y, x, c).

    Attributes
    ----------
    path : of the file
    kind : "PNG" or "JPEG"
    shape : without alpha
    dtype : of the values
    version : size and time of change (ns) of the file when it was found
    """

    path: Path
    kind: str
    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]
    version: tuple[int, int]
    _kept: tuple[tuple[int, ...], NDArray[np.generic]] | None = field(default=None, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    @property
    def unit(self) -> tuple[int, ...]:
        """All of it."""
        return tuple(max(size, 1) for size in self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of its values."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def decoding(self) -> Decoding:
        """What reading takes beside what is read."""
        return Decoding(self.unit, self.nbytes, _COPIES)

    @property
    def facts(self) -> Mapping[str, object]:
        """That it is one picture."""
        return {"chunks": list(self.unit), "shards": None, "format": self.kind}

    def read(self, selection: tuple[slice, ...]) -> tuple[NDArray[np.generic], Look]:
        """Return a part of the values, and what the file was that it was read from."""
        # One thread decodes, the others wait for what it keeps.
        with (
            self.reopened() as (file, version),
            self._lock,
            pieces.alone if self.nbytes > pieces.LARGE else nullcontext(),
        ):
            values = self._values(file, version)
        return values[selection].copy(), Look({self.path.name: version}, {})

    def _values(self, file: BinaryIO, version: tuple[int, ...]) -> NDArray[np.generic]:
        if self._kept is not None and self._kept[0] == version:
            return self._kept[1]
        if version[0] > self.nbytes + self.nbytes // 8 + _GROWTH:
            raise ValueError(f"a file of {version[0]} bytes, more than its values can need")
        values = _decoded(file.read(), self.kind)
        if values.shape != self.shape or values.dtype != self.dtype:
            raise ValueError(f"it decodes to {values.shape} {values.dtype}, and its header says {self.shape}")
        self._kept = (version, values) if values.nbytes <= LIMIT else None
        return values


def holds(path: Path) -> bool:
    """Tell whether a file is a PNG or a JPEG."""
    return path.is_file() and kind_of(path) in (PNG, JPEG)


def find(place: str, wanted: Wanted) -> Found:
    """Return the picture of a file.

    Raises
    ------
    InputError
        If its header is damaged, or a key or a level was asked for.
    """
    path, inner = split_file(place, wanted.key)
    shown = shorten(str(path))
    if inner or wanted.level is not None:
        asked = f"--key {inner}" if inner else f"--level {wanted.level}"
        raise InputError(f"{asked} was asked of {shown}, which is a single picture. Leave it out.")
    array = _found(path)
    node.require_sizes(array.shape, shown)
    if array.nbytes > node.CHUNK_LIMIT:
        raise InputError(
            f"{shown} is {array.nbytes / 1024**3:.1f} GiB in memory, more than the {node.CHUNK_LIMIT // 1024**3} GiB "
            "that a worker decodes at once. Save it as a tiled TIFF or as Zarr."
        )
    named = "yxc"[: len(array.shape)]
    axes = axes_.validate(wanted.axes) if wanted.axes is not None else named
    if len(axes) != len(array.shape):
        raise InputError(
            f"--axes {wanted.axes} names {len(axes)} axes, but {shown} has {len(array.shape)} dimensions ({named})."
        )
    return Found(
        url=str(path),
        key="",
        zarr_format=0,
        metadata=_described(array),
        written=array.version[1],
        axes=axes,
        origin="--axes" if wanted.axes is not None else array.kind,
        stored=array,
        name=stem(path.name),
        shown=shown,
    )


def opened(spec: SourceSpec, *, keep: bool) -> PictureArray:  # what was decoded last is always kept
    """Return the picture of a spec, in any process.

    Raises
    ------
    DataError
        If the file is gone or another one is in its place.
    """
    try:
        array = _found(local_path(spec.url))
        same = _described(array) == spec.metadata and (not spec.written or array.version[1] == spec.written)
    except InputError as error:
        raise DataError(f"The picture {shorten(spec.url)} cannot be opened any more: {error}") from error
    if not same:
        raise DataError(
            f"The picture {shorten(spec.url)} was replaced since it was opened. Open the source again."
        )
    return array


def digest(spec: SourceSpec) -> str:
    """Return a digest of size and time of the file, and of samples of its bytes."""
    return content.file_digest(local_path(spec.url))


def levels(_: SourceSpec) -> list[dict[str, object]]:
    """Return nothing: a picture has no levels."""
    return []


def _described(array: PictureArray) -> str:
    return sha256(repr((array.kind, array.shape, array.dtype.name)).encode()).hexdigest()


def _open(path: Path) -> BinaryIO:
    try:
        return open_regular(path)
    except IrregularError as error:
        raise DataError(f"{shorten(str(path))} is {error}, not a regular file.") from error
    except OSError as error:
        Location(str(path)).refuse(error)


def _found(path: Path) -> PictureArray:
    """Read the header of a picture."""
    with _open(path) as file:
        version = file_of(os.fstat(file.fileno()))[:2]
        header = file.read(_HEADER)
    png = png_shape(header)
    if png is not None:
        height, width, samples, bits = png
        return PictureArray(
            path, "PNG", _shape(height, width, samples), np.dtype("u2" if bits == 16 else "u1"), version
        )
    jpeg = jpeg_shape(header)
    if jpeg is None or jpeg[2] not in (1, 3):
        why = (
            "is damaged: its header says no size"
            if jpeg is None
            else f"has {jpeg[2]} colour components, as in print"
        )
        raise InputError(f"{shorten(str(path))} {why}. Save it again, as PNG or TIFF.")
    return PictureArray(path, "JPEG", _shape(*jpeg), np.dtype("u1"), version)


def _shape(height: int, width: int, samples: int) -> tuple[int, ...]:
    """Return the shape without alpha, of which there is one where samples are even."""
    colours = samples - 1 + samples % 2
    return (height, width) if colours == 1 else (height, width, colours)


def _decoded(encoded: bytes, kind: str) -> NDArray[np.generic]:
    """Return the values of a picture; palettes come as their colours, alpha goes."""
    import imagecodecs

    if kind == "JPEG":
        if not jpeg_is_whole(encoded):  # its decoder would fill what is missing with grey
            raise ValueError("the file ends before the picture does")
        values = np.asarray(imagecodecs.jpeg8_decode(encoded))
    else:
        values = np.asarray(imagecodecs.png_decode(encoded))
    if values.ndim == 3:
        colours = values.shape[-1] - 1 + values.shape[-1] % 2
        values = values[..., 0] if colours == 1 else np.ascontiguousarray(values[..., :colours])
    return values
