"""Values that lie in a file as they are, one after the other, or in a gzip of it: MRC and NIfTI.

Of the file itself, what a window touches is read. A gzip has no places that could be read alone: it is unpacked up to
its last value, so all of it is one chunk, which the plan counts.
"""

from __future__ import annotations

import gzip
import math
import zlib
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from unet_dask.errors import InputError
from unet_dask.io.remote import shorten
from unet_dask.io.source.segments import bands, exactly
from unet_dask.kinds import GZIP, LOOKED_AT, kind_of, kind_of_bytes

if TYPE_CHECKING:
    from pathlib import Path
    from typing import BinaryIO

    from numpy.typing import NDArray

    from unet_dask.kinds import Kind

#: What is called a chunk of values that lie in the file as they are: rows and columns.
_ROWS, _COLUMNS = 256, 1024


@dataclass(frozen=True)
class Raw:
    """Where values lie.

    Attributes
    ----------
    offset : of the first one, in bytes, in the file once it is unpacked
    stored : type of the values, with its byte order
    slope, intercept : what makes the values of those that are stored
    packed : whether the file is a gzip
    """

    offset: int
    stored: str
    slope: float = 1.0
    intercept: float = 0.0
    packed: bool = False

    @property
    def scaled(self) -> bool:
        """Whether the values are other ones than those that are stored."""
        return (self.slope, self.intercept) != (1.0, 0.0)


def unpacked(file: BinaryIO) -> tuple[BinaryIO, bool]:
    """Return a file as it reads, and whether it is a gzip."""
    start = file.read(2)
    file.seek(0)
    packed = kind_of_bytes(start + bytes(8)) is GZIP
    opened: Any = gzip.GzipFile(fileobj=file) if packed else file
    return opened, packed


def header(file: BinaryIO, count: int) -> tuple[bytes, bool]:
    """Return the first bytes of a file, unpacked, and whether it is a gzip."""
    opened, packed = unpacked(file)
    return opened.read(count), packed


def chunk_of(shape: tuple[int, ...], *, packed: bool) -> tuple[int, ...]:
    """Return what is read together: parts of planes, of a gzip all."""
    if packed:
        return tuple(max(size, 1) for size in shape)
    plane = (min(shape[-2], _ROWS), min(shape[-1], _COLUMNS))
    return (1,) * (len(shape) - 2) + tuple(max(side, 1) for side in plane)


def require_whole(file: BinaryIO, path: Path, raw: Raw, shape: tuple[int, ...]) -> None:
    """Refuse a file that ends before its values do; of a gzip that is seen when it is read.

    Raises
    ------
    InputError
        Saying how many bytes are missing.
    """
    end = raw.offset + math.prod(shape) * np.dtype(raw.stored).itemsize
    size = file.seek(0, 2)
    if not raw.packed and size < end:
        raise InputError(
            f"{shorten(str(path))} is damaged or was cut off: it has {size} bytes, and its values reach to {end}. Copy "
            "it again."
        )


def read(
    file: BinaryIO,
    raw: Raw,
    shape: tuple[int, ...],
    dtype: np.dtype[np.generic],
    selection: tuple[slice, ...],
) -> NDArray[np.generic]:
    """Return a part of the values, whose last axis is the one along which they follow each other.

    Raises
    ------
    ValueError
        If the file ends before.
    """
    found = _unpacked(file, raw, shape)[selection] if raw.packed else _rows(file, raw, shape, selection)
    if raw.scaled:
        return np.asarray(found.astype(dtype) * dtype.type(raw.slope) + dtype.type(raw.intercept))
    return found.astype(dtype)


def _unpacked(file: BinaryIO, raw: Raw, shape: tuple[int, ...]) -> NDArray[np.generic]:
    stored = np.dtype(raw.stored)
    count = math.prod(shape) * stored.itemsize
    with gzip.GzipFile(fileobj=file) as opened:
        opened.seek(raw.offset)
        content = opened.read(count)
    if len(content) < count:
        raise ValueError(f"{len(content)} bytes of values, {count} are described")
    return np.frombuffer(content, stored).reshape(shape)


def _rows(
    file: BinaryIO, raw: Raw, shape: tuple[int, ...], selection: tuple[slice, ...]
) -> NDArray[np.generic]:
    stored = np.dtype(raw.stored)
    values = np.empty([part.stop - part.start for part in selection], stored)
    *lead, rows, columns = selection
    height, width = shape[-2:]
    row_bytes = width * stored.itemsize
    for at in product(*(range(part.start, part.stop) for part in lead)):
        plane = int(np.ravel_multi_index(at, shape[:-2])) if at else 0
        base = raw.offset + plane * height * row_bytes
        target = values[tuple(n - part.start for n, part in zip(at, lead, strict=True))]
        for first, last, left, right in bands(rows, columns, row_bytes, width):
            count = (last - first - 1) * row_bytes + (right - left) * stored.itemsize
            content = exactly(file.fileno(), base + first * row_bytes + left * stored.itemsize, count)
            found = np.frombuffer(content, stored).reshape(last - first, right - left)
            target[first - rows.start : last - rows.start] = found[
                :, columns.start - left : columns.stop - left
            ]
    return values


def is_kind(path: Path, kind: Kind) -> bool:
    """Tell whether a file is of a kind, or a gzip of one."""
    if not path.is_file():
        return False
    found = kind_of(path)
    if found is not GZIP:
        return found is kind
    try:
        with path.open("rb") as file:
            return kind_of_bytes(header(file, LOOKED_AT)[0]) is kind
    except (OSError, EOFError, zlib.error):
        return False
