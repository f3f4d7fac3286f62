"""Decompression that stops at a given size, whatever a chunk claims: a few kilobytes can decode to gigabytes.

Formats that state the decoded size are believed only up to the bound; the others are decompressed no further than it.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numcodecs.abc import Codec
from numcodecs.lzma import LZMA

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from zarr.core.common import JSON

    #: What codecs take and give.
    Values = bytes | memoryview | NDArray[np.generic]

#: Memory that decompressing LZMA may take beside the values: its largest preset asks for 65 MiB.
_LZMA_MEMORY = 128 << 20
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
#: The most that one block of a zstd frame decodes to.
_ZSTD_BLOCK = 1 << 17
#: zlib's window, with the header of gzip.
_GZIP = 16 + zlib.MAX_WBITS


class OversizedError(ValueError):
    """A chunk decodes to more than it can hold."""


class _Codec(Protocol):
    """A codec of numcodecs, which has no types."""

    codec_id: str

    def encode(self, buf: Values) -> Values: ...
    def decode(self, buf: Values, out: Values | None = None) -> Values: ...
    def get_config(self) -> dict[str, JSON]: ...


class _Decompressor(Protocol):
    """What bz2, lzma and zlib have in common."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes | memoryview, max_length: int, /) -> bytes: ...


@dataclass(frozen=True)
class BoundedCodec(Codec):  # type: ignore[misc] # numcodecs has no types
    """A codec of numcodecs whose values are at most so large.

    Attributes
    ----------
    codec : to decode with
    limit : bytes that it may decode to
    """

    codec_id = "bounded"  # Zarr asks the class for it

    codec: _Codec
    limit: int

    def encode(self, buf: Values) -> Values:
        """Return encoded values."""
        return self.codec.encode(buf)

    def decode(self, buf: Values, out: Values | None = None) -> Values:
        """Return decoded values; see `bounded`."""
        return bounded(self.codec, buf, self.limit)

    def get_config(self) -> dict[str, JSON]:
        """Return the configuration, as in metadata."""
        return self.codec.get_config()


def bounded(codec: _Codec, encoded: Values, limit: int) -> Values:
    """Return what a codec decodes to, if that is at most `limit` bytes.

    Parameters
    ----------
    codec : of numcodecs; what is no compressor is run as it is, since it changes the size by a factor of 8 at most
    encoded : a buffer
    limit : bytes of the result

    Raises
    ------
    OversizedError
        If it is more, before the memory for it is taken.
    ValueError
        If the bytes are damaged.
    """
    view = memoryview(np.ascontiguousarray(encoded).reshape(-1).view("u1"))  # type: ignore[arg-type] # numpy is stricter than it needs
    how = _HOW.get(codec.codec_id)
    decoded = codec.decode(view) if how is None else how(codec, view, limit)
    size = decoded.nbytes if isinstance(decoded, np.ndarray) else memoryview(decoded).nbytes
    if size > limit * (1 if how else 8):
        raise _oversized(limit)
    return decoded


def _oversized(limit: int) -> OversizedError:
    return OversizedError(f"it decodes to more than the {limit} bytes that a chunk holds")


def _with_header(codec: _Codec, view: memoryview, limit: int) -> Values:
    """Decode LZ4 as numcodecs frames it: the size comes first."""
    if int.from_bytes(view[:4], "little") > limit:
        raise _oversized(limit)
    return codec.decode(view)


def _blosc(codec: _Codec, view: memoryview, limit: int) -> Values:
    """Decode Blosc, whose header states both sizes; the library does not ask how many bytes there are."""
    size, stored = (int.from_bytes(view[at : at + 4], "little") for at in (4, 12))
    if size > limit:
        raise _oversized(limit)
    if len(view) < 16 or stored > len(view):
        raise ValueError("it is cut short")
    return codec.decode(view)


def _zstd(codec: _Codec, view: memoryview, limit: int) -> Values:
    """Decode Zstandard, whose frames may state their size, and consist of blocks of at most 128 KiB."""
    size = _zstd_size(view)
    if size is not None:
        if size > limit:
            raise _oversized(limit)
        return codec.decode(view)
    try:
        return codec.decode(view, np.empty(limit, np.uint8))  # all that a chunk holds, and no byte more
    except RuntimeError:
        if _zstd_blocks(view) * _ZSTD_BLOCK > limit + _ZSTD_BLOCK:
            raise
        return codec.decode(view)


def _zstd_header(view: memoryview) -> tuple[int, int]:
    """Return where the field of the decoded size begins in a frame, and how long it is."""
    if bytes(view[:4]) != _ZSTD_MAGIC or len(view) < 6:
        raise ValueError("it is no frame of Zstandard")
    described = view[4]
    single, dictionary = described >> 5 & 1, (0, 1, 2, 4)[described & 3]
    return 5 + (not single) + dictionary, (single, 2, 4, 8)[described >> 6]


def _zstd_size(view: memoryview) -> int | None:
    """Return the size that a frame states, if it does."""
    start, length = _zstd_header(view)
    stated = int.from_bytes(view[start : start + length], "little") + 256 * (length == 2)
    return stated if length else None


def _zstd_blocks(view: memoryview) -> int:
    """Return the number of blocks of the first frame."""
    at, count, last = sum(_zstd_header(view)), 0, False
    while not last and at + 3 <= len(view):
        block = int.from_bytes(view[at : at + 3], "little")
        last, kind, size = bool(block & 1), block >> 1 & 3, block >> 3
        at += 3 + (1 if kind == 1 else size)  # a run is stored as one byte
        count += 1
    return count


def _streams(
    make: Callable[[], _Decompressor], view: memoryview, limit: int, more: Callable[[bytes], bytes] = bytes
) -> bytes:
    """Decode streams, one after another; `more` is what goes on after one, given what it has not used."""
    parts: list[bytes] = []
    rest: bytes | memoryview = view
    left = limit
    while rest:
        stream = make()
        parts.append(stream.decompress(rest, left + 1))
        left -= len(parts[-1])
        if left < 0:
            raise _oversized(limit)
        if not stream.eof:
            raise ValueError("it is cut short")
        rest = more(stream.unused_data)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _gzip(_: _Codec, view: memoryview, limit: int) -> bytes:
    return _streams(lambda: zlib.decompressobj(_GZIP), view, limit, lambda rest: rest.lstrip(b"\0"))  # padded


def _zlib(_: _Codec, view: memoryview, limit: int) -> bytes:
    return _streams(zlib.decompressobj, view, limit, lambda _: b"")


def _bz2(_: _Codec, view: memoryview, limit: int) -> bytes:
    return _streams(bz2.BZ2Decompressor, view, limit)


def _lzma(codec: _Codec, view: memoryview, limit: int) -> bytes:
    assert isinstance(codec, LZMA)
    raw = codec.format == lzma.FORMAT_RAW  # which states no memory that could be refused
    return _streams(
        lambda: lzma.LZMADecompressor(codec.format, None if raw else _LZMA_MEMORY, codec.filters), view, limit
    )


_HOW: dict[str, Callable[[_Codec, memoryview, int], Values]] = {
    "zstd": _zstd,
    "blosc": _blosc,
    "lz4": _with_header,
    "gzip": _gzip,
    "zlib": _zlib,
    "bz2": _bz2,
    "lzma": _lzma,
}
#: Names of the codecs of numcodecs whose size is bounded here; no other changes it much.
COMPRESSORS = frozenset(_HOW)
#: Of these, those that decode by parts, which are in memory once more when they are joined.
JOINED = COMPRESSORS - {"zstd", "blosc", "lz4"}
