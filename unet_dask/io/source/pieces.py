"""Windows read a few chunks at a time, so that what decoding takes beside them is bounded and can be planned.

Zarr decodes ten chunks of a window at once, of any size, and keeps a task for every one of them. Here a window is cut
into pieces of few chunks; where chunks are large, one is decoded at a time in a process.
"""

from __future__ import annotations

import itertools
import math
import threading
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from zarr.core.buffer import default_buffer_prototype
from zarr.core.metadata import ArrayV2Metadata

from unet_dask.config import format_bytes
from unet_dask.errors import InputError
from unet_dask.io.decoding import JOINED, BoundedCodec

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from unet_dask.io.bounded import OpenedArray

#: Decoded bytes of a piece, unless one chunk has more; and chunks in it.
PIECE_BYTES, PIECE_CHUNKS = 32 << 20, 1024
#: Bytes of the tasks and descriptions that Zarr keeps for the chunks of a piece: 5 KiB each.
_TASKS = PIECE_CHUNKS * 5 << 10
#: Bytes of a chunk that is decoded alone.
LARGE = 8 << 20
#: Bytes of a shard's index for each of its chunks: encoded, decoded, checked.
_INDEX = 48

#: Windows up to this size are read without a look at the machine.
_SMALL = 1 << 30

Bytes = TypeVar("Bytes", int, "NDArray[np.float64]")

alone = threading.Lock()


@dataclass(frozen=True, slots=True)
class Decoding:
    """What reading an array takes beside the window that is read.

    Attributes
    ----------
    chunk : values that are decoded as a whole, in stored order of axes
    chunk_bytes : of these
    copies : of a chunk at once: as it is encoded, decoded, and after filters, or joined
    index_bytes : of the index of a shard
    """

    chunk: tuple[int, ...] = (1,)
    chunk_bytes: int = 1
    copies: int = 1
    index_bytes: int = 0

    def beside(self, window: Bytes) -> Bytes:
        """Return the bytes taken at once beside a window of so many bytes, one or an array of them."""
        piece: Bytes = np.maximum(np.minimum(window, PIECE_BYTES), self.chunk_bytes)
        return self.copies * piece + self.index_bytes + _TASKS


#: Of values that nobody stores in chunks.
WITHOUT = Decoding()


def decoding(array: OpenedArray) -> Decoding:
    """Return what reading an array takes."""
    chunk = math.prod(array.chunks)
    in_shard = math.prod(array.shards) // max(chunk, 1) if array.shards else 0
    return Decoding(
        tuple(map(int, array.chunks)), chunk * array.dtype.itemsize, _copies(array), _INDEX * in_shard
    )


def _copies(array: OpenedArray) -> int:
    """Return how many times a chunk is in memory while it is decoded: as in the file, decoded, and after filters.

    Or joined from the parts that it is decoded to.
    """
    packed = max((3 if _name(each) in JOINED else 2 for each in array.compressors), default=1)
    if array.shards:  # and joined to the part of the shard
        return max(packed + 1, 3)
    metadata = array.metadata
    if isinstance(metadata, ArrayV2Metadata):
        return max(packed, 1 + bool(metadata.compressor) + bool(metadata.filters))
    return max(packed, min(len(metadata.codecs), 3))


def _name(codec: Any) -> str:
    """Return the name that numcodecs knows a codec by, of either version of Zarr."""
    if isinstance(codec, BoundedCodec):
        codec = codec.codec
    name = codec.to_dict()["name"] if hasattr(codec, "to_dict") else codec.codec_id
    return str(name).removeprefix("numcodecs.")


def read(array: OpenedArray, selection: tuple[slice, ...]) -> NDArray[np.generic]:
    """Return the values of a selection, one slice without a step per axis.

    Raises
    ------
    InputError
        If they are more than the memory of this machine.
    """
    require_room(math.prod(part.stop - part.start for part in selection) * array.dtype.itemsize)
    chunk_bytes = math.prod(array.chunks) * array.dtype.itemsize
    whole = np.empty([part.stop - part.start for part in selection], array.dtype)
    for piece in _pieces(selection, array.chunks, chunk_bytes):
        place = tuple(
            slice(part.start - first.start, part.stop - first.start)
            for part, first in zip(piece, selection, strict=True)
        )
        out = default_buffer_prototype().nd_buffer.from_numpy_array(whole[place])
        with alone if chunk_bytes > LARGE else nullcontext():
            array.get_basic_selection(piece, out=out)
    return whole


def require_room(wanted: int) -> None:
    """Refuse to read more bytes of values at once than this machine has memory.

    Raises
    ------
    InputError
        Saying how many.
    """
    if wanted <= _SMALL:
        return
    import psutil

    room = psutil.virtual_memory().total
    if wanted > room:
        raise InputError(
            f"{format_bytes(wanted)} of values were to be read at once, but this machine has {format_bytes(room)} of "
            "memory. Name a part of the image, or a coarser level."
        )


def _pieces(
    selection: Sequence[slice], chunks: Sequence[int], chunk_bytes: int
) -> Iterator[tuple[slice, ...]]:
    """Yield the parts of a selection that are read at once: whole chunks, in order.

    Examples
    --------
    >>> [part[0] for part in _pieces([slice(5, 30)], [10], 16 << 20)]
    [slice(5, 20, None), slice(20, 30, None)]
    """
    if any(part.start >= part.stop for part in selection):
        return
    room = max(min(PIECE_BYTES // max(chunk_bytes, 1), PIECE_CHUNKS), 1)
    along = []
    for part, chunk in zip(reversed(selection), reversed(chunks), strict=True):
        first, last = part.start // chunk, -(-part.stop // chunk)
        taken = min(room, last - first)
        room = max(room // taken, 1)
        along.append(
            [
                slice(max(at * chunk, part.start), min((at + taken) * chunk, part.stop))
                for at in range(first, last, taken)
            ]
        )
    yield from itertools.product(*reversed(along))
