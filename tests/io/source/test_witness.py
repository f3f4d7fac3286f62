"""What was read is what lies there: whatever changes between two looks is seen, and absent is not lost."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import zarr

from unet_dask.errors import DataError, InputError
from unet_dask.io.bounded import RegularFiles
from unet_dask.io.source import window
from unet_dask.io.source.stamps import ChangedError
from unet_dask.io.source.volume import open_source
from unet_dask.io.source.window import read_stamped, stamp_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SHAPE = (64, 64)
EVERYTHING = (slice(0, 1), slice(0, 64), slice(0, 64))
CORNER = (slice(0, 1), slice(0, 16), slice(0, 16))
KINDS: dict[str, dict[str, Any]] = {
    "v3": {"chunks": (16, 16)},
    "v2": {"chunks": (16, 16), "zarr_format": 2},
    "sharded": {"chunks": (8, 8), "shards": (16, 16)},
}
kinds = pytest.mark.parametrize("kind", KINDS)


def write(folder: Path, kind: str, seed: int = 0) -> Path:
    more = dict(KINDS[kind])
    group = zarr.open_group(str(folder / "store.zarr"), mode="w", zarr_format=more.pop("zarr_format", 3))
    array = group.create_array("raw", shape=SHAPE, dtype="u1", **more)
    array[...] = np.random.default_rng(seed).integers(1, 256, SHAPE).astype(np.uint8)
    return folder / "store.zarr"


def chunk(store: Path, row: int, column: int) -> Path:
    place = store / "raw" / "c" / str(row) / str(column)
    return place if place.exists() else store / "raw" / f"{row}.{column}"


@pytest.fixture
def during(
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[[Callable[[], object], Callable[[], object]], list[int]]:
    """Return a function that has something done before every read of a window, and something after it."""

    def arrange(before: Callable[[], object], after: Callable[[], object]) -> list[int]:
        real, calls = RegularFiles.get, [0]

        async def get(self: RegularFiles, key: str, *more: Any, **named: Any) -> Any:
            if key.endswith((".json", ".zarray", ".zattrs", ".zgroup")):
                return await real(self, key, *more, **named)
            calls[0] += 1
            before()
            try:
                return await real(self, key, *more, **named)
            finally:
                after()

        monkeypatch.setattr(RegularFiles, "get", get)
        return calls

    return arrange


@kinds
def test_chunks_that_were_never_stored_are_fill_value(kind: str, tmp_path: Path) -> None:
    store = write(tmp_path, kind)
    chunk(store, 1, 1).unlink()
    spec = open_source(str(store / "raw")).spec
    values, stamp = read_stamped(spec, EVERYTHING)
    assert not values[0, 16:32, 16:32].any()
    assert values[0, :16].all()
    assert stamp == stamp_of(spec, EVERYTHING) != ""


MOVED = ["store.zarr", "store.zarr/raw", "store.zarr/raw/c", "store.zarr/raw/c/0"]


@kinds
@pytest.mark.parametrize("moved", [*MOVED, "chunk"])
def test_what_is_away_for_the_moment_of_a_read_is_lost_and_not_absent(
    kind: str, moved: str, tmp_path: Path, during: Any
) -> None:
    store = write(tmp_path, kind)
    spec = open_source(str(store / "raw")).spec
    window.opened(spec)
    place = chunk(store, 0, 0) if moved == "chunk" else tmp_path / moved
    if not place.exists():
        pytest.skip("of this version of Zarr there is no such folder")
    away = tmp_path / "away"
    calls = during(lambda: place.rename(away), lambda: away.rename(place))
    with pytest.raises(InputError, match=r"not whole while it was read|no longer there"):
        read_stamped(spec, CORNER)
    assert calls[0] >= 3, "it is read again before it is given up"


@kinds
@pytest.mark.parametrize("swapped", ["raw", "raw/c", "raw/c/0", "chunk"])
def test_another_array_in_its_place_for_the_moment_of_a_read_is_seen(
    kind: str, swapped: str, tmp_path: Path, during: Any
) -> None:
    (tmp_path / "b").mkdir()
    store, other = write(tmp_path, kind), write(tmp_path / "b", kind, seed=1)
    spec = open_source(str(store / "raw")).spec
    window.opened(spec)
    place = chunk(store, 0, 0) if swapped == "chunk" else store / swapped
    theirs, away = other / place.relative_to(store), tmp_path / "away"
    if not place.exists():
        pytest.skip("of this version of Zarr there is no such folder")

    def before() -> None:
        place.rename(away)
        theirs.rename(place)

    def after() -> None:
        place.rename(theirs)
        away.rename(place)

    during(before, after)
    with pytest.raises(InputError, match="not whole while it was read: its files were changed"):
        read_stamped(spec, CORNER)


@kinds
def test_a_rewritten_chunk_has_another_stamp_and_no_other_window_has(kind: str, tmp_path: Path) -> None:
    store = write(tmp_path, kind)
    spec = open_source(str(store / "raw")).spec
    far = (slice(0, 1), slice(32, 64), slice(32, 64))
    first, second = read_stamped(spec, CORNER)[1], read_stamped(spec, far)[1]
    path = chunk(store, 0, 0)
    content, found = path.read_bytes(), path.stat()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))  # as many bytes
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns + 1))
    assert stamp_of(spec, CORNER) != first
    assert stamp_of(spec, far) == second
    path.write_bytes(content)
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))
    assert stamp_of(spec, CORNER) == first, "put back as it was, time of change and all"
    path.unlink()
    assert stamp_of(spec, CORNER) != first


def test_a_stamp_survives_a_copy_that_keeps_times(tmp_path: Path) -> None:
    store = write(tmp_path, "v3")
    before = read_stamped(open_source(str(store / "raw")).spec, EVERYTHING)[1]
    shutil.copytree(store, tmp_path / "copy.zarr")
    assert stamp_of(open_source(str(tmp_path / "copy.zarr" / "raw")).spec, EVERYTHING) == before


def test_another_array_with_the_same_document_is_not_read_on(tmp_path: Path) -> None:
    store, other = write(tmp_path, "v3"), write(tmp_path / "b", "v3", seed=1)
    spec = open_source(str(store / "raw")).spec
    read_stamped(spec, CORNER)
    document = store / "raw" / "zarr.json"
    assert document.read_bytes() == (other / "raw" / "zarr.json").read_bytes()
    (store / "raw").rename(tmp_path / "away")
    (other / "raw").rename(store / "raw")
    os.utime(document, ns=(0, document.stat().st_mtime_ns + 10**9))
    with pytest.raises(ChangedError, match="was replaced while it was read"):
        read_stamped(spec, CORNER)
    window.opened.cache_clear()
    with pytest.raises(DataError, match="was replaced since it was opened"):
        read_stamped(spec, CORNER)


def test_a_store_behind_a_link_is_looked_at_where_it_lies(tmp_path: Path, during: Any) -> None:
    store = write(tmp_path, "v3")
    (tmp_path / "link.zarr").symlink_to(store)
    spec = open_source(str(tmp_path / "link.zarr" / "raw")).spec
    stamp = read_stamped(spec, CORNER)[1]
    assert stamp == stamp_of(spec, CORNER)
    away = tmp_path / "away"
    during(lambda: store.rename(away), lambda: away.rename(store))
    with pytest.raises(InputError, match=r"not whole|no longer"):
        read_stamped(spec, CORNER)


def test_a_moment_s_absence_is_read_again(tmp_path: Path, during: Any) -> None:
    store = write(tmp_path, "v3")
    spec = open_source(str(store / "raw")).spec
    expected = read_stamped(spec, CORNER)[0]
    place, away, once = chunk(store, 0, 0), tmp_path / "away", [True]

    def before() -> None:
        if once:
            place.rename(away)

    def after() -> None:
        if once.pop() if once else False:
            away.rename(place)

    during(before, after)
    np.testing.assert_array_equal(read_stamped(spec, CORNER)[0], expected)
