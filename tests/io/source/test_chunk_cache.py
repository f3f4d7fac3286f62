"""Chunks that were read last: asked for once, within a limit, and never beyond a run."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import zarr
from zarr.core.buffer import default_buffer_prototype
from zarr.storage import MemoryStore, WrapperStore

from unet_dask.errors import DataError
from unet_dask.io.remote import Location
from unet_dask.io.source import window, zarr_source
from unet_dask.io.source.chunk_cache import ChunkCache, file_versions
from unet_dask.io.source.volume import open_source

if TYPE_CHECKING:
    from pathlib import Path

EVERYTHING = (slice(0, 1), slice(0, 64), slice(0, 64))


class Counting(WrapperStore[Any]):
    """A store that notes what it is asked for."""

    def __init__(self, store: Any) -> None:
        super().__init__(store)
        self.asked: list[str] = []

    async def get(self, key: str, prototype: Any, byte_range: Any = None) -> Any:
        self.asked.append(key)
        return await super().get(key, prototype, byte_range)


@pytest.fixture
def stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, list[Counting]]:
    """Return an array of four chunks and the counting stores that it is opened with."""
    path = tmp_path / "a.zarr"
    array = zarr.create_array(str(path), shape=(64, 64), chunks=(32, 32), dtype="u1", compressors=None)
    array[...] = 7
    stores: list[Counting] = []
    plain = zarr_source.store_of

    def counting(location: Any) -> Counting:
        stores.append(Counting(plain(location)))
        return stores[-1]

    monkeypatch.setattr(zarr_source, "store_of", counting)
    window._opened_in.cache_clear()
    return path, stores


def test_a_chunk_is_read_once_in_a_run(stored: tuple[Path, list[Counting]]) -> None:
    path, stores = stored
    spec = open_source(str(path), axes="yx").spec
    stores.clear()
    for _ in range(3):
        assert (window.read_window(spec, EVERYTHING, run="one") == 7).all()
    (store,) = stores
    chunks = [key for key in store.asked if "/" in key]
    assert len(chunks) == len(set(chunks)) == 4


def test_a_change_of_a_file_is_seen_in_the_same_run(stored: tuple[Path, list[Counting]]) -> None:
    path, _ = stored
    spec = open_source(str(path), axes="yx").spec
    window.read_window(spec, EVERYTHING, run="one")
    zarr.open_array(str(path), mode="r+")[...] = 9
    assert (window.read_window(spec, EVERYTHING, run="one") == 9).all()
    assert (window.read_window(spec, EVERYTHING) == 9).all()
    assert (window.read_window(spec, EVERYTHING, run="two") == 9).all()


def test_a_damaged_chunk_is_not_kept(stored: tuple[Path, list[Counting]]) -> None:
    path, _ = stored
    spec = open_source(str(path), axes="yx").spec
    chunk = path / "c" / "0" / "0"
    whole = chunk.read_bytes()
    chunk.write_bytes(whole[:100])
    with pytest.raises(DataError):
        window.read_window(spec, EVERYTHING, run="one")
    chunk.write_bytes(whole)
    assert (window.read_window(spec, EVERYTHING, run="one") == 7).all()


def test_the_oldest_goes_first_and_the_limit_holds() -> None:
    inner = MemoryStore()
    counting = Counting(inner)
    cache = ChunkCache(counting, limit=100)
    prototype = default_buffer_prototype()

    async def scenario() -> None:
        for name, size in (("a", 40), ("b", 40), ("c", 40), ("large", 101)):
            await inner.set(name, prototype.buffer.from_array_like(np.zeros(size, "u1")))
        for name in ("a", "b", "a", "c", "a", "b", "large", "large", "none", "none"):
            assert await cache.get(name, prototype) == await inner.get(name, prototype)

    asyncio.run(scenario())
    assert counting.asked == ["a", "b", "c", "b", "large", "large", "none", "none"]


def test_what_two_regions_ask_for_at_once_is_read_once() -> None:
    class Slow(Counting):
        async def get(self, key: str, prototype: Any, byte_range: Any = None) -> Any:
            await asyncio.sleep(0.01)
            return await super().get(key, prototype, byte_range)

    async def ask() -> tuple[list[str], list[bytes]]:
        plain = MemoryStore()
        await plain.set("c/0", default_buffer_prototype().buffer.from_bytes(b"seven"))
        slow = Slow(plain)
        cache = ChunkCache(slow)
        found = await asyncio.gather(*(cache.get("c/0", default_buffer_prototype()) for _ in range(3)))
        assert not cache._reading
        return slow.asked, [each.to_bytes() for each in found if each is not None]

    assert asyncio.run(ask()) == (["c/0"], [b"seven"] * 3)


def test_what_was_replaced_while_it_was_read_is_not_kept() -> None:
    versions = iter(["old", "new", "old", "old", "old"])
    store = ChunkCache(MemoryStore(), version=lambda key: next(versions))
    prototype = default_buffer_prototype()

    async def read() -> list[bytes]:
        found = []
        for content in (b"replaced", b"put back"):
            await store._store.set("c/0/0", prototype.buffer.from_bytes(content))
            value = await store.get("c/0/0", prototype)
            assert value is not None
            found.append(value.to_bytes())
        return found

    assert asyncio.run(read()) == [b"replaced", b"put back"]


def test_what_lay_there_between_two_moves_of_a_folder_is_not_kept(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name / "c").mkdir(parents=True)
        (tmp_path / name / "c" / "0").write_bytes(name.encode())
    version = file_versions(Location(str(tmp_path)))
    before = version("a/c/0")
    assert version("a/c/0") == before
    (tmp_path / "a").rename(tmp_path / "away")
    assert version("a/c/0") is None
    (tmp_path / "b").rename(tmp_path / "a")
    (tmp_path / "a").rename(tmp_path / "b")
    (tmp_path / "away").rename(tmp_path / "a")
    assert version("a/c/0") != before
