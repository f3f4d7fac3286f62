"""Arrays whose chunks are files of bounded size and decode to no more than a chunk holds.

Zarr reads whatever stands at the place of a chunk, to its end, and decodes whatever comes out of it. In a store from
anywhere that can be a pipe that nobody writes to, a device without an end, or a bomb.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numcodecs
import numpy as np
import zarr
from zarr.abc.codec import BytesBytesCodec
from zarr.abc.store import OffsetByteRequest, RangeByteRequest, SuffixByteRequest
from zarr.codecs import BytesCodec, ShardingCodec
from zarr.core.array import AsyncArray
from zarr.core.metadata import ArrayV2Metadata, ArrayV3Metadata
from zarr.storage import LocalStore, StorePath

from unet_dask.errors import DataError
from unet_dask.io.decoding import COMPRESSORS, BoundedCodec, bounded
from unet_dask.io.remote import METADATA_LIMIT, is_local, local_path, shorten
from unet_dask.regular import IrregularError, open_regular

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from zarr.abc.codec import Codec
    from zarr.abc.numcodec import Numcodec
    from zarr.abc.store import ByteRequest, Store
    from zarr.core.array_spec import ArraySpec
    from zarr.core.buffer import Buffer, BufferPrototype
    from zarr.core.common import JSON

#: An array of either version of Zarr.
OpenedArray = zarr.Array[ArrayV2Metadata] | zarr.Array[ArrayV3Metadata]

#: Bytes by which values may grow in encoding, beside an eighth: headers, padding, checksums.
_GROWTH = 1 << 20
#: The same for each chunk in a shard, its entry in the index included.
_GROWTH_IN_SHARD = 64
#: Bytes of the largest number; a filter may store small numbers as large ones.
_LARGEST_ITEM = 16


class RegularFiles(LocalStore):
    """A folder of which only regular files are read, and of these no more than they can need.

    Parameters
    ----------
    root : of the store
    read_only : whether nothing may be written
    limit : bytes of the largest file
    """

    def __init__(self, root: Path | str, *, read_only: bool = True, limit: int = METADATA_LIMIT) -> None:
        super().__init__(root, read_only=read_only)
        self._limit = limit

    def limited(self, limit: int) -> RegularFiles:
        """Return the same store, of which files of at most so many bytes are read."""
        return RegularFiles(self.root, read_only=self.read_only, limit=max(limit, METADATA_LIMIT))

    async def get(
        self, key: str, prototype: BufferPrototype | None = None, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Return the bytes of a file or a part of them, None where there is none.

        Raises
        ------
        DataError
            If something else than a file is there, or a larger one.
        """
        prototype = prototype or zarr.core.buffer.default_buffer_prototype()
        found = await asyncio.to_thread(self._read, self.root / key, byte_range)
        return None if found is None else prototype.buffer.from_bytes(found)

    def _read(self, path: Path, byte_range: ByteRequest | None) -> bytes | None:
        try:
            file = open_regular(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except IrregularError as error:
            raise DataError(
                f"{shorten(str(path))} is {error}, not a regular file. Restore it from a copy."
            ) from error
        with file:
            size = file.seek(0, 2)
            start, stop = _span(byte_range, size)
            if stop - start > self._limit:
                raise DataError(
                    f"{shorten(str(path))} is {size} bytes, more than a chunk of this array can be ({self._limit}). "
                    "Restore it from a copy."
                )
            file.seek(start)
            return file.read(max(stop - start, 0))


def _span(wanted: ByteRequest | None, size: int) -> tuple[int, int]:
    """Return where the bytes that are asked for begin and end in a file."""
    if isinstance(wanted, RangeByteRequest):
        return wanted.start, min(wanted.end, size)
    if isinstance(wanted, OffsetByteRequest):
        return wanted.offset, size
    if isinstance(wanted, SuffixByteRequest):
        return max(size - wanted.suffix, 0), size
    return 0, size


@dataclass(frozen=True)
class _Bounded(BytesBytesCodec):
    """A compressor of Zarr version 3 that decodes to no more than a chunk holds.

    Attributes
    ----------
    codec : the compressor, of numcodecs
    growth : bytes that may be there beyond the values of a chunk, and an eighth of these; None for no byte more
    """

    codec: Numcodec
    growth: int | None
    is_fixed_size = False

    def to_dict(self) -> dict[str, JSON]:
        return {"name": self.codec.codec_id, "configuration": self.codec.get_config()}

    def compute_encoded_size(self, _input_byte_length: int, _chunk_spec: ArraySpec) -> int:
        raise TypeError(
            f"the size of what {self.codec.codec_id} encodes is not fixed, and this one only decodes"
        )

    async def _decode_single(self, chunk_bytes: Buffer, chunk_spec: ArraySpec) -> Buffer:
        size = math.prod(chunk_spec.shape) * chunk_spec.dtype.to_native_dtype().itemsize
        limit = size if self.growth is None else _grown(size, self.growth)
        found = await asyncio.to_thread(bounded, self.codec, chunk_bytes.as_numpy_array(), limit)
        return chunk_spec.prototype.buffer.from_array_like(np.frombuffer(found, np.uint8))


def described_array(url: str, path: str) -> OpenedArray:
    """Return an array of a result as its document describes it, to look at and not to read."""
    store = RegularFiles(local_path(url)) if is_local(url) else url
    return zarr.open_array(store, path=path, mode="r")


def bounded_array(array: OpenedArray, around: Callable[[Store], Store] | None = None) -> OpenedArray:
    """Return an array that reads and decodes within bounds.

    Parameters
    ----------
    array : as Zarr has opened it
    around : makes the store that it is read through from that of the array
    """
    opened = array.async_array
    store, metadata = opened.store_path.store, opened.metadata
    if isinstance(store, RegularFiles):
        store = store.limited(_encoded_limit(array))
    place = StorePath(around(store) if around else store, opened.store_path.path)
    if isinstance(metadata, ArrayV2Metadata):
        return zarr.Array(AsyncArray(_bounded_v2(metadata), place, opened.config))
    codecs = _bounded_v3(metadata.codecs, _chunks_in_shard(array))
    return zarr.Array(AsyncArray(replace(metadata, codecs=codecs), place, opened.config))


def _grown(size: int, growth: int) -> int:
    return size + size // 8 + growth


def _chunks_in_shard(array: OpenedArray) -> int:
    return math.prod(array.shards) // max(math.prod(array.chunks), 1) if array.shards else 1


def _encoded_limit(array: OpenedArray) -> int:
    """Return the bytes that the file of a chunk, or of a shard, can need."""
    values = math.prod(array.shards or array.chunks) * max(array.dtype.itemsize, _LARGEST_ITEM)
    return _grown(values, _GROWTH + _GROWTH_IN_SHARD * _chunks_in_shard(array))


def _bounded_v2(metadata: ArrayV2Metadata) -> ArrayV2Metadata:
    item = max(metadata.dtype.to_native_dtype().itemsize, _LARGEST_ITEM if metadata.filters else 1)
    size = math.prod(metadata.chunks) * item
    filters = [_within(each, _grown(size, _GROWTH)) for each in metadata.filters or ()]
    within = _grown(size, _GROWTH) if filters else size
    return replace(
        metadata,
        compressor=metadata.compressor and _within(metadata.compressor, within),
        filters=tuple(filters) or None,
    )


def _within(codec: Numcodec, limit: int) -> Numcodec:
    return BoundedCodec(codec, limit) if codec.codec_id in COMPRESSORS else codec


def _bounded_v3(codecs: tuple[Codec, ...], in_shard: int) -> tuple[Codec, ...]:
    made: list[Codec] = []
    for codec in codecs:
        if isinstance(codec, ShardingCodec):
            made.append(replace(codec, codecs=_bounded_v3(codec.codecs, 1)))
        elif isinstance(codec, BytesBytesCodec):
            exact = isinstance(made[-1], BytesCodec)  # the first to encode, and the last to decode
            made.append(_bounded_codec(codec, None if exact else _GROWTH + _GROWTH_IN_SHARD * in_shard))
        else:
            made.append(codec)
    return tuple(made)


def _bounded_codec(codec: BytesBytesCodec, growth: int | None) -> BytesBytesCodec:
    described = codec.to_dict()
    name = str(described["name"])
    short = name.removeprefix("numcodecs.")
    if short not in COMPRESSORS:
        return codec
    settings = described.get("configuration") if name != short else {}  # else only of encoding
    settings = settings if isinstance(settings, dict) else {}
    return _Bounded(numcodecs.get_codec({"id": short, **settings}), growth)
