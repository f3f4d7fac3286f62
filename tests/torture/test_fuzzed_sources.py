"""Sources whose metadata or chunks were damaged: the same image, or one line; never a foreign error, a hang, a lie.

A document that was changed may describe another image, and nobody can know: such are counted apart. A chunk that
has a checksum, as all of these have, may not read as anything but what was written.
"""

from __future__ import annotations

import gzip
import json
import random
import resource
import shutil
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import zarr
from numcodecs import zstd
from zarr.codecs import Crc32cCodec, GzipCodec, ShardingCodec, ZstdCodec

import unet_dask
from tests.torture import fuzz
from tests.torture.tier import SEED, Tier, counted, tiers
from tests.torture.watchdog import in_time
from unet_dask.errors import UnetDaskError
from unet_dask.io.source.volume import open_source

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    #: Returns the image at a path, or raises.
    Look = Callable[[Path], NDArray[Any]]

SIDE, CHUNK = 24, 12
#: Seconds within which a source is read or refused.
PROMPT = 10.0
#: Bytes that reading one may cost beyond what an undamaged one does.
ROOM = 256 << 20
OME: dict[str, Any] = {
    "version": "0.5",
    "multiscales": [
        {
            "name": "nuclei",
            "axes": [{"name": n, "type": "space", "unit": "micrometer"} for n in "yx"],
            "datasets": [
                {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [0.5, 0.25]}]}
            ],
        }
    ],
}


def image() -> NDArray[np.uint8]:
    """Return values that compress and are not alike."""
    rows, columns = np.indices((SIDE, SIDE))
    return ((rows * 7 + columns * 3) % 251).astype(np.uint8)


def _array(where: Any, **settings: Any) -> None:
    array = zarr.create_array(
        where,
        shape=(SIDE, SIDE),
        dtype="u1",
        **{"chunks": (CHUNK, CHUNK), "compressors": ZstdCodec(checksum=True), **settings},
    )
    array[...] = image()


def plain(path: Path) -> None:
    _array(str(path), dimension_names=["y", "x"])


def old(path: Path) -> None:
    _array(str(path), zarr_format=2, compressors=zstd.Zstd(level=1, checksum=True))


def zipped(path: Path) -> None:
    _array(str(path), compressors=GzipCodec(level=1))


def summed(path: Path) -> None:
    _array(str(path), compressors=[Crc32cCodec()])


def sharded(path: Path) -> None:
    codec = ShardingCodec(chunk_shape=(6, 6), codecs=[zarr.codecs.BytesCodec(), ZstdCodec(checksum=True)])
    _array(str(path), serializer=codec, compressors=None, filters=None)


def multiscale(path: Path) -> None:
    zarr.open_group(str(path), mode="w", attributes={"ome": OME})
    _array(str(path / "0"), dimension_names=["y", "x"])


def old_multiscale(path: Path) -> None:
    attributes: dict[str, Any] = {"multiscales": [{**OME["multiscales"][0], "version": "0.4"}]}
    zarr.open_group(str(path), mode="w", zarr_format=2, attributes=attributes)
    _array(str(path / "0"), zarr_format=2, compressors=zstd.Zstd(level=1, checksum=True))


METADATA = [plain, old, sharded, multiscale, old_multiscale]
CHUNKS = [plain, old, zipped, summed, sharded]


def opened(path: Path) -> NDArray[Any]:
    """Return the image as a run would read it; one that is far from ours in size is not read."""
    source = open_source(path, dims=2, network_channels=1)
    if np.prod([float(n) for n in source.shape]) > 1e6:
        return np.empty(0)
    values = source.read(tuple(slice(0, n) for n in source.shape))
    return values.reshape(values.shape[-2:]) if values.size == SIDE * SIDE else values


@dataclass
class Judge:
    """Reads what was damaged, and counts what came of it.

    Attributes
    ----------
    model : path, to plan with
    counts : of outcomes
    look : reads an image
    """

    model: Path
    counts: Counter[str]
    look: Look = opened

    def judge(self, path: Path, what: str) -> list[str]:
        """Return what is wrong with the answer to a damaged source."""
        self.counts["mutants"] += 1
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Zarr's, about what it does not know
                values = in_time(PROMPT, lambda: self._read(path))
        except UnetDaskError as error:
            self.counts["refused"] += 1
            lines = str(error).splitlines()
            return [] if len(lines) == 1 else [f"{what}: {len(lines)} lines: {lines}"]
        except Exception as error:  # that is the finding
            return [f"{what}: {type(error).__name__}: {error}"]
        if values.shape == (SIDE, SIDE) and np.array_equal(values, image()):
            self.counts["identical"] += 1
            return []
        self.counts["other_image"] += 1
        return []

    def _read(self, path: Path) -> NDArray[Any]:
        unet_dask.plan_store(path, self.model, memory=1 << 30, precision="float32")
        return self.look(path)


def peak() -> int:
    """Return the most memory that this process has had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def documents(path: Path) -> list[Path]:
    names = ("zarr.json", ".zarray", ".zattrs", ".zgroup")
    return sorted(each for each in path.rglob("*") if each.name in names)


def chunks(path: Path) -> list[Path]:
    return sorted(each for each in path.rglob("*") if each.is_file() and each not in documents(path))


@tiers
def test_damaged_metadata_is_one_line_or_harmless(tier: Tier, tiny_model: Path, ram: Path) -> None:
    draw = random.Random(SEED)
    with counted("D1 damaged metadata", tier) as counts:
        findings: list[str] = []
        judge = Judge(tiny_model, counts)
        for make in METADATA:
            make(ram / make.__name__)
            assert judge.judge(ram / make.__name__, make.__name__) == []
        assert counts.pop("identical") == counts.pop("mutants") == len(METADATA)
        before = peak()
        for number in range(tier.count(60, 2000)):
            store = ram / METADATA[number % len(METADATA)].__name__
            victim = draw.choice(documents(store))
            whole = victim.read_bytes()
            victim.write_bytes(fuzz.document(whole, draw))
            findings += judge.judge(store, f"{number} {store.name} {victim.read_bytes()[:3000]!r}")
            victim.write_bytes(whole)
        counts["peak_growth_mib"] = (peak() - before) >> 20
        assert findings == []
        assert counts["refused"] > counts["mutants"] / 4
        assert peak() - before < ROOM


@tiers
def test_damaged_chunk_is_one_line_or_harmless(tier: Tier, tiny_model: Path, ram: Path) -> None:
    draw = random.Random(SEED)
    with counted("D1 damaged chunks", tier) as counts:
        judge = Judge(tiny_model, counts)
        for make in CHUNKS:
            make(ram / make.__name__)
        findings: list[str] = []
        before = peak()
        for number in range(tier.count(60, 2000)):
            store = ram / CHUNKS[number % len(CHUNKS)].__name__
            findings += damaged_once(judge, store, draw, f"{number} {store.name}")
        counts["peak_growth_mib"] = (peak() - before) >> 20
        assert findings == []
        assert counts["other_image"] == 0
        assert counts["refused"] > counts["mutants"] / 2
        assert peak() - before < ROOM


def damaged_once(judge: Judge, store: Path, draw: random.Random, what: str) -> list[str]:
    """Damage a chunk, judge, and mend it; a lie about values is a finding."""
    victim = draw.choice(chunks(store))
    whole = victim.read_bytes()
    lies = judge.counts["other_image"]
    victim.write_bytes(fuzz.damaged(whole, draw))
    findings = judge.judge(store, what)
    if judge.counts["other_image"] != lies:
        findings.append(f"{what}: other values: {whole.hex()} -> {victim.read_bytes().hex()}")
    victim.write_bytes(whole)
    return findings


def test_control_foreign_error_is_found(tiny_model: Path, ram: Path) -> None:
    def raw(path: Path) -> NDArray[Any]:
        return np.asarray(zarr.open_array(str(path), mode="r")[...])

    plain(ram / "plain")
    draw = random.Random(SEED)
    with counted("control", Tier("small")) as counts:
        judge = Judge(tiny_model, counts, raw)
        findings = [each for n in range(40) for each in damaged_once(judge, ram / "plain", draw, str(n))]
    assert findings


def test_control_chunks_without_checksum_are_found(tiny_model: Path, ram: Path) -> None:
    _array(str(ram / "bare"), compressors=None)
    draw = random.Random(SEED)
    with counted("control", Tier("small")) as counts:
        judge = Judge(tiny_model, counts)
        findings = [each for n in range(20) for each in damaged_once(judge, ram / "bare", draw, str(n))]
    assert any("other values" in each for each in findings)


@pytest.mark.parametrize("make", [plain, zipped], ids=["zstd", "gzip"])
def test_bomb_is_one_line(make: Callable[[Path], None], tiny_model: Path, ram: Path) -> None:
    make(ram / "bomb")
    void = bytes(100 << 20)
    bomb = gzip.compress(void, 1) if make is zipped else zstd.Zstd(level=1, checksum=True).encode(void)
    assert len(bomb) < 1 << 20
    chunks(ram / "bomb")[0].write_bytes(bomb)
    with counted("control", Tier("small")) as counts:
        assert Judge(tiny_model, counts).judge(ram / "bomb", "bomb") == []
        assert counts["refused"] == 1
    shutil.rmtree(ram / "bomb")


def test_documents_are_really_changed() -> None:
    draw, data = random.Random(SEED), json.dumps(OME).encode()
    assert sum(fuzz.document(data, draw) != data for _ in range(100)) > 90
