"""Chunks that are no files, that are too large, or that decode to more than a chunk holds."""

from __future__ import annotations

import bz2
import json
import lzma
import os
import resource
import struct
import subprocess
import sys
import zlib
from typing import TYPE_CHECKING, Any

import numcodecs
import numpy as np
import pytest
import zarr

from unet_dask.config import configured
from unet_dask.errors import DataError, InputError, ModelError, OptionError
from unet_dask.io.decoding import COMPRESSORS, OversizedError, bounded
from unet_dask.io.source import pieces
from unet_dask.io.source.volume import open_source
from unet_dask.model.file import inspect_model

if TYPE_CHECKING:
    from pathlib import Path

BOMB = 64 << 20


def read(path: Path) -> np.ndarray[Any, Any]:
    source = open_source(str(path))
    return source.read(tuple(slice(0, size) for size in source.shape))


def store(path: Path, **options: Any) -> Path:
    values = np.arange(48 * 48, dtype="u1").reshape(48, 48)
    zarr.create_array(path, data=values, **{"chunks": (24, 24), **options})
    return path


def put(kind: str, place: Path) -> None:
    place.unlink()
    if kind == "pipe":
        os.mkfifo(place)
    elif kind == "link to a device":
        place.symlink_to("/dev/urandom")
    elif kind == "link to a pipe":
        os.mkfifo(place.with_name("beside"))
        place.symlink_to("beside")
    elif kind == "link to nothing":
        place.symlink_to("nowhere")
    elif kind == "folder":
        place.mkdir()
    else:
        with place.open("wb") as file:
            file.truncate(1 << 40)


@pytest.mark.parametrize(
    "kind", ["pipe", "link to a device", "link to a pipe", "link to nothing", "folder", "sparse file"]
)
@pytest.mark.parametrize(
    ("chunk", "options"),
    [
        ("c/1/0", {}),
        ("1.0", {"zarr_format": 2}),
        ("c/0/0", {"chunks": (12, 12), "shards": (48, 48)}),
    ],
)
def test_what_is_no_chunk_is_refused_at_once(
    tmp_path: Path, kind: str, chunk: str, options: dict[str, Any]
) -> None:
    path = store(tmp_path / "a.zarr", **options)
    put(kind, path / chunk)
    with pytest.raises(DataError) as raised:
        read(path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("kind", ["pipe", "link to a device"])
def test_metadata_that_is_no_file_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    path = store(tmp_path / "a.zarr")
    put(kind, path / "zarr.json")
    with pytest.raises(InputError, match="not a regular file"):
        open_source(str(path))


def test_model_that_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").symlink_to("/dev/zero")
    with pytest.raises(ModelError):
        inspect_model(tmp_path / "model.safetensors")


def zstd_of_unknown_size(size: int) -> bytes:
    """Return a frame that states no size, of runs of one byte."""
    blocks = size >> 17
    runs = [struct.pack("<I", 1 << 20 | 2 | (at == blocks - 1))[:3] + b"\7" for at in range(blocks)]
    return b"\x28\xb5\x2f\xfd\x00\x58" + b"".join(runs)


def bomb(name: str) -> bytes:
    if name == "zstd of unknown size":
        return zstd_of_unknown_size(BOMB)
    zeros = bytes(BOMB)
    own = {
        "gzip": lambda: zlib.compress(zeros, wbits=31),
        "zlib": lambda: zlib.compress(zeros),
        "bz2": lambda: bz2.compress(zeros),
        "lzma": lambda: lzma.compress(zeros, preset=0),
    }
    return own[name]() if name in own else bytes(numcodecs.get_codec({"id": name}).encode(zeros))


@pytest.mark.parametrize("name", [*sorted(COMPRESSORS), "zstd of unknown size"])
def test_bomb_is_not_decoded(name: str) -> None:
    encoded = bomb(name)
    code = f"""
import re, sys, numcodecs
from unet_dask.io.decoding import bounded
peak = lambda: int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
encoded, before = sys.stdin.buffer.read(), peak()
try:
    bounded(numcodecs.get_codec({{"id": {name.split(maxsplit=1)[0]!r}}}), encoded, 5000)
except (ValueError, RuntimeError):
    print(peak() - before)
"""
    done = subprocess.run([sys.executable, "-c", code], input=encoded, capture_output=True, check=True)
    assert int(done.stdout) < 24 << 10


@pytest.mark.parametrize("name", sorted(COMPRESSORS))
@pytest.mark.parametrize("version", [2, 3])
def test_what_fits_is_decoded_and_one_byte_more_is_not(name: str, version: int, tmp_path: Path) -> None:
    codec, values = numcodecs.get_codec({"id": name}), np.arange(5000, dtype="u1")
    encoded = codec.encode(values)
    assert bytes(bounded(codec, encoded, 5000)) == values.tobytes()
    with pytest.raises(OversizedError):
        bounded(codec, encoded, 4999)
    if version == 2:
        path = store(tmp_path / "a.zarr", zarr_format=2, compressors=codec)
        assert (read(path).ravel() == np.arange(48 * 48, dtype="u1")).all()


def test_streams_of_unknown_size_that_fit_are_decoded() -> None:
    decoded = bounded(numcodecs.Zstd(), zstd_of_unknown_size(1 << 18), 1 << 18)
    assert bytes(decoded) == b"\7" * (1 << 18)
    two = zlib.compress(b"ab", wbits=31) + zlib.compress(b"cd", wbits=31)
    assert bytes(bounded(numcodecs.GZip(), two, 4)) == b"abcd"


@pytest.mark.parametrize("piece", [1, 700, 1 << 20])
@pytest.mark.parametrize("options", [{}, {"chunks": (6, 12), "shards": (24, 48)}, {"zarr_format": 2}])
def test_pieces_make_the_window(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece: int, options: dict[str, Any]
) -> None:
    monkeypatch.setattr(pieces, "PIECE_BYTES", piece)
    path = store(tmp_path / "a.zarr", **options)
    array = zarr.open_array(path, mode="r")
    for window in (np.s_[0:48, 0:48], np.s_[5:31, 23:25], np.s_[7:7, 0:48]):
        assert np.array_equal(pieces.read(array, window), array[window])


@pytest.mark.parametrize(
    ("shape", "chunks"),
    [
        ([1 << 40, 1 << 40], [64, 64]),
        ([64, 1 << 62], [64, 64]),
        ([1 << 40, 1], [1, 1]),
        ([48, 48], [0, 24]),
        ([1] * 40, [1] * 40),
        ([1 << 40, 1 << 40], [1 << 40, 1 << 40]),
    ],
)
def test_sizes_that_cannot_be_are_refused(tmp_path: Path, shape: list[int], chunks: list[int]) -> None:
    path = store(tmp_path / "a.zarr")
    document = json.loads((path / "zarr.json").read_text())
    document["shape"], document["chunk_grid"]["configuration"]["chunk_shape"] = shape, chunks
    (path / "zarr.json").write_text(json.dumps(document))
    with pytest.raises(InputError) as raised:
        open_source(str(path))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["tile", "region", "chunks"])
def test_absurd_sizes_are_refused(name: str) -> None:
    with pytest.raises(OptionError, match="go from 1 to"):
        configured(None, {name: (1 << 90, 1)})


def test_peak_of_a_process_is_not_its_parents() -> None:
    fat = np.ones(600 << 20, np.uint8)
    code = "from unet_dask.graph import peak_bytes; print(peak_bytes())"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert fat.all()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > 600 << 10
    assert int(found.stdout) < 400 << 20
