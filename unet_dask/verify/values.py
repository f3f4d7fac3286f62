"""Stored values against the ledger: every region and every block, read, hashed and looked at for sentinels.

The ledger's checksums are bound to the place, so swapped chunks, chunks of another run and values that somebody
wrote in between are found like torn files are. Beyond the values, the bytes of local files are compared with those
that the sink's codec makes of them: one flipped bit in a hundred leaves no trace in the values (the format of zstd
has bits that decoders ignore), and such a file is damaged all the same.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from zarr.storage import MemoryStore

from unet_dask.errors import SinkLostError
from unet_dask.io import remote
from unet_dask.io.sink.store import checksum, new_array
from unet_dask.products.sentinel import is_sentinel
from unet_dask.tiling.box import hull
from unet_dask.verify.finding import Finding

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from zarr.core.buffer import Buffer

    from unet_dask.tiling.box import Box
    from unet_dask.verify.stored import Piece, Stored

#: More bytes than this do not change without changing the values: the file was made by another compressor.
_FEW_BYTES = 16


def examine(stored: Stored, piece: Piece, digest: str) -> tuple[int, list[Finding], int]:
    """Compare the values of a piece of work with its checksum.

    Parameters
    ----------
    stored : sink
    piece : to read
    digest : of its values, from the ledger

    Returns
    -------
    bytes of values read, what is wrong, and how many files were made by another compressor
    """
    try:
        values = stored.read(piece.product, piece.level, piece.box)
    except Exception as error:  # whatever Zarr makes of a damaged chunk
        _refuse_unreachable(stored, error)
        return 0, [_located(stored, piece)], 0
    if checksum(values, piece.start) != digest:
        return values.nbytes, [_located(stored, piece)], 0
    unwritten = int(is_sentinel(values).sum())
    if unwritten:
        text = f"{unwritten} voxels hold the sentinel, as if they had never been written"
        return values.nbytes, [_finding(stored, piece, "sentinel", text)], 0
    damaged, recompressed = _files(stored, piece, values) if stored.sink.local else ([], 0)
    if damaged:
        text = f"the values are right, but {len(damaged)} of its files are damaged: {', '.join(damaged[:3])}"
        return values.nbytes, [_finding(stored, piece, "bytes", text)], recompressed
    return values.nbytes, [], recompressed


def _refuse_unreachable(stored: Stored, error: BaseException) -> None:
    """Raise if a store did not answer, which says nothing about what it holds."""
    if not stored.sink.local and remote.is_unreachable(error):
        raise SinkLostError(
            f"The sink {remote.redact_url(stored.url)} cannot be read: {remote.one_line(error)}. Verify it again once "
            "its store answers."
        )


def _finding(stored: Stored, piece: Piece, kind: Any, text: str, box: Box | None = None) -> Finding:
    shown = stored.shown(piece.level, box or piece.box)
    return Finding(kind, text, piece.product, piece.level, shown, (piece.key,))


def _located(stored: Stored, piece: Piece) -> Finding:
    """Say which chunks of a wrong piece cannot be decoded or are missing; else, that its values are wrong."""
    array = stored.array(piece.product)
    undecodable: list[Box] = []
    missing: list[Box] = []
    reason, count = "", 0
    for chunk in piece.box.cut(array.chunks):
        count += 1
        try:
            if is_sentinel(stored.read(piece.product, piece.level, chunk)).all():
                missing.append(chunk)
        except Exception as error:  # as above
            _refuse_unreachable(stored, error)
            undecodable.append(chunk)
            reason = f"{type(error).__name__}: {remote.one_line(error)}"
    told = []
    if undecodable:
        told.append(f"{len(undecodable)} of {count} chunks cannot be decoded ({reason})")
    if missing:
        told.append(f"{len(missing)} of {count} chunks are missing")
    text = " and ".join(told) or "the values are not those that were written"
    wrong = [*undecodable, *missing]
    return _finding(stored, piece, "values", text, hull(wrong) if wrong else None)


def _files(stored: Stored, piece: Piece, values: NDArray[np.generic]) -> tuple[list[str], int]:
    """Compare files with what their values are encoded to.

    Returns
    -------
    names of damaged files, and the number of files that differ so much that another version of the compressor must
    have made them
    """
    array = stored.opened[piece.product, piece.level]
    again = _encoded(stored, piece, values)
    root = Path(remote.local_path(stored.url)) / piece.product / str(piece.level)
    first = [start // side for start, side in zip(piece.start, array.shards or array.chunks, strict=True)]
    damaged, recompressed = [], 0
    for index in np.ndindex(
        *(-(-n // side) for n, side in zip(values.shape, array.shards or array.chunks, strict=True))
    ):
        expected = again[array.metadata.encode_chunk_key(index)]
        name = array.metadata.encode_chunk_key(tuple(a + b for a, b in zip(first, index, strict=True)))
        found = (root / name).read_bytes()
        if found == expected:
            continue
        differing = (
            sum(a != b for a, b in zip(found, expected, strict=False))
            if len(found) == len(expected)
            else None
        )
        if differing is not None and differing <= _FEW_BYTES:
            damaged.append(name)
        else:
            recompressed += 1
    return damaged, recompressed


def _encoded(stored: Stored, piece: Piece, values: NDArray[np.generic]) -> dict[str, bytes]:
    """Return the files, by their names within the piece, that values are written as."""
    spec = stored.array(piece.product)
    files: dict[str, Buffer] = {}
    new_array(MemoryStore(files), spec, piece.level, shape=values.shape)[...] = values
    return {name: data.to_bytes() for name, data in files.items() if name != "zarr.json"}
