"""What decoding a chunk takes is what is planned for it, whatever the codec."""

from __future__ import annotations

import tracemalloc
from typing import TYPE_CHECKING, Any

import numcodecs
import numpy as np
import pytest
import zarr
from zarr.codecs import BloscCodec, GzipCodec, ZstdCodec

from unet_dask.io.source.volume import open_source

if TYPE_CHECKING:
    from pathlib import Path

#: Of a chunk: 13.3 MiB, which Python's decompressors take in six blocks that are nearly full; what is taken and not
#: used is no memory, but would be counted here.
ROWS, COLUMNS = 6800, 1024
DELTA = [numcodecs.Delta(dtype="u2")]
ENCODINGS: dict[str, dict[str, Any]] = {
    "as it is": {"compressors": None},
    "zstd": {"compressors": [ZstdCodec(level=1)]},
    "blosc": {"compressors": [BloscCodec(clevel=1)]},
    "gzip": {"compressors": [GzipCodec(level=1)]},
    "gzip in shards": {"compressors": [GzipCodec(level=1)], "shards": (2 * ROWS, COLUMNS)},
    "zstd in shards": {"compressors": [ZstdCodec(level=1)], "shards": (2 * ROWS, COLUMNS)},
    "gzip, version 2": {"zarr_format": 2, "compressors": [numcodecs.GZip(1)]},
    "zlib, version 2": {"zarr_format": 2, "compressors": [numcodecs.Zlib(1)]},
    "bz2, version 2": {"zarr_format": 2, "compressors": [numcodecs.BZ2(1)]},
    "lzma, version 2": {"zarr_format": 2, "compressors": [numcodecs.LZMA(preset=0)]},
    "lz4, version 2": {"zarr_format": 2, "compressors": [numcodecs.LZ4()]},
    "gzip and a filter": {"zarr_format": 2, "compressors": [numcodecs.GZip(1)], "filters": DELTA},
    "zstd and a filter": {"zarr_format": 2, "compressors": [numcodecs.Zstd(1)], "filters": DELTA},
}


@pytest.mark.parametrize("encoding", list(ENCODINGS))
def test_decoding_takes_what_is_planned(encoding: str, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 1 << 16, (2 * ROWS, COLUMNS), dtype=np.uint16)
    zarr.create_array(tmp_path / "a.zarr", data=noise, chunks=(ROWS, COLUMNS), **ENCODINGS[encoding])
    source = open_source(str(tmp_path / "a.zarr"))
    window = (slice(0, 1), slice(0, 64), slice(0, 64))
    tracemalloc.start()
    try:
        values = source.read(window)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert np.array_equal(values[0], noise[:64, :64])
    assert source.decoding.chunk_bytes == 2 * ROWS * COLUMNS
    assert peak <= source.decoding.beside(values.nbytes)
    # And not for much too much.
    assert peak > (source.decoding.copies - 1.5) * source.decoding.chunk_bytes
