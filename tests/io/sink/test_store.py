"""The sink: sentinels, checksums, and a place that is never taken from anybody."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import zarr

from tests.manifests import manifest_of
from unet_dask.errors import SinkError, SinkLostError
from unet_dask.io.sink import lock, place
from unet_dask.io.sink import store as sink
from unet_dask.io.sink.multiscale import Level, pyramid

if TYPE_CHECKING:
    from collections.abc import Callable

SHAPE = (24, 20)
CLASSES = ["background", "cell"]


def levels() -> tuple[Level, ...]:
    return pyramid("yx", SHAPE, {"y": 1.0, "x": 1.0})


def made(path: Path, shards: tuple[int, ...] | None = None) -> sink.Sink:
    classes = sink.ArraySpec("classes", "yx", "uint8", (8, 8), shards, levels())
    created = sink.Sink(str(path), (classes,))
    sink.create(
        created,
        manifest_of([classes], CLASSES, shape=SHAPE),
        class_names=CLASSES,
        spacing={},
        unit={},
        translation={},
        name="small",
    )
    return created


def test_unwritten_voxels_read_as_the_sentinel(tmp_path: Path) -> None:
    created = made(tmp_path / "out.zarr")
    created.write("classes", 0, (8, 8), np.ones((8, 8), np.uint8))
    expected = np.full(SHAPE, 255, np.uint8)
    expected[8:16, 8:16] = 1
    np.testing.assert_array_equal(created.read("classes", 0, (slice(0, 24), slice(0, 20))), expected)


def test_background_is_really_written(tmp_path: Path) -> None:
    made(tmp_path / "out.zarr").write("classes", 0, (0, 0), np.zeros((8, 8), np.uint8))
    assert (tmp_path / "out.zarr" / "classes" / "0" / "c" / "0" / "0").is_file()


def test_every_flipped_bit_of_a_chunk_is_seen(tmp_path: Path) -> None:
    created = made(tmp_path / "out.zarr")
    values = np.random.default_rng(0).integers(0, 3, (8, 8)).astype(np.uint8)
    created.write("classes", 0, (0, 0), values)
    chunk = tmp_path / "out.zarr" / "classes" / "0" / "c" / "0" / "0"
    sound = chunk.read_bytes()

    def differs(bit: int) -> bool:
        content = bytearray(sound)
        content[bit // 8] ^= 1 << bit % 8
        chunk.write_bytes(content)
        try:
            return not np.array_equal(created.read("classes", 0, (slice(0, 8), slice(0, 8))), values)
        except Exception:  # whatever the codec raises
            return False

    assert not any(differs(bit) for bit in range(8 * len(sound)))


def test_checksum_knows_the_place_of_the_values() -> None:
    values = np.zeros((4, 4), np.uint8)
    assert sink.checksum(values, (0, 0)) != sink.checksum(values, (0, 4))


def test_checksum_of_no_values() -> None:
    assert sink.checksum(np.zeros((0, 4), np.uint8), (0, 0))


def test_write_that_fails_can_be_resumed(tmp_path: Path) -> None:
    created = made(tmp_path / "out.zarr")
    (tmp_path / "out.zarr" / "classes" / "0" / "c").write_bytes(b"in the way")
    with pytest.raises(SinkLostError, match="--resume"):
        created.write("classes", 0, (0, 0), np.zeros((8, 8), np.uint8))


def test_array_that_is_gone_is_a_lost_sink(tmp_path: Path) -> None:
    classes = sink.ArraySpec("classes", "yx", "uint8", (8, 8), None, levels())
    gone = sink.Sink(str(tmp_path / "gone.zarr"), (classes,))
    with pytest.raises(SinkLostError, match="cannot be written"):
        gone.write("classes", 0, (0, 0), np.zeros((8, 8), np.uint8))


@pytest.mark.parametrize(
    ("region", "expected"),
    [((200, 200), (200, 200)), ((150, 200), None)],
    ids=["whole-chunks", "torn-chunks"],
)
def test_shards_belong_to_one_region(region: tuple[int, ...], expected: tuple[int, ...] | None) -> None:
    assert sink.shards_for((20_000, 20_000), (100, 100), region) == expected


def test_few_chunks_need_no_shards() -> None:
    assert sink.shards_for((1000, 1000), (100, 100), (200, 200)) is None


def test_manifest_comes_back(tmp_path: Path) -> None:
    arrays = made(tmp_path / "out.zarr").arrays
    manifest = place.read_manifest(str(tmp_path / "out.zarr"))
    assert manifest is not None
    nodes = {
        str(path.parent.relative_to(tmp_path / "out.zarr")).removeprefix(".")
        for path in (tmp_path / "out.zarr").rglob("zarr.json")
    }
    assert set(manifest.nodes or ()) == nodes - {"_unet_dask"}
    written = {**manifest_of(arrays, CLASSES, shape=SHAPE), "nodes": manifest.nodes}
    assert place.sealed(manifest.to_json()) == place.sealed(written)


def test_manifest_with_another_word_in_it_is_refused(tmp_path: Path) -> None:
    made(tmp_path / "out.zarr")
    document = tmp_path / "out.zarr" / "_unet_dask" / "zarr.json"
    text = document.read_text()
    for old, new in (('"arrays"', '"Arrays"'), ('"work": 1', '"work": 7')):
        assert old in text
        document.write_text(text.replace(old, new))
        with pytest.raises(SinkError, match=r"manifest of the run in .* is damaged"):
            place.read_manifest(str(tmp_path / "out.zarr"))


def test_no_manifest_where_nothing_is(tmp_path: Path) -> None:
    assert place.read_manifest(str(tmp_path / "out.zarr")) is None


def test_half_written_files_are_swept(tmp_path: Path) -> None:
    made(tmp_path / "out.zarr")
    stray = tmp_path / "out.zarr" / "classes" / "0" / "c.0.0.1234.partial"
    stray.write_bytes(b"torn")
    place.sweep(str(tmp_path / "out.zarr"))
    assert not stray.exists()


def test_lock_is_held_once(tmp_path: Path) -> None:
    url = str(tmp_path / "out.zarr")
    with (
        lock.locked(url),
        pytest.raises(SinkError, match=f"written by process {os.getpid()}"),
        lock.locked(url),
    ):
        pass


def test_lock_is_let_go_even_if_its_file_cannot_be_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = str(tmp_path / "out.zarr")

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "planted")

    with monkeypatch.context() as patched, pytest.raises(OSError, match="planted"), lock.locked(url):
        patched.setattr(Path, "unlink", refuse)
    with lock.locked(url):
        pass


def test_lock_leaves_nothing_behind(tmp_path: Path) -> None:
    with lock.locked(str(tmp_path / "out.zarr")):
        assert (tmp_path / "out.zarr" / "_unet_dask" / "lock").is_file()
    assert list(tmp_path.iterdir()) == []


def test_lock_of_a_killed_run_is_free(tmp_path: Path) -> None:
    made(tmp_path / "out.zarr")
    (tmp_path / "out.zarr" / "_unet_dask" / "lock").write_text("process 1 on elsewhere")
    lock.require_free(str(tmp_path / "out.zarr"))
    with lock.locked(str(tmp_path / "out.zarr")):
        pass


def test_removal_leaves_nothing(tmp_path: Path) -> None:
    made(tmp_path / "out.zarr")
    with lock.locked(str(tmp_path / "out.zarr")):
        place.remove(str(tmp_path / "out.zarr"))
    assert list(tmp_path.iterdir()) == []


def test_removal_at_every_step_leaves_what_is_ours_and_never_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(tmp_path / "out.zarr")
    url = str(tmp_path / "out.zarr")
    fs, _ = place.locate(url)
    remove, seen = type(fs).rm, []

    def watched(self: Any, path: str, recursive: bool = False) -> None:
        remove(self, path, recursive=recursive)
        place.require_ours(url) if place.exists(url) else None
        seen.append(place.read_manifest(url))

    monkeypatch.setattr(type(fs), "rm", watched)
    place.remove(url)
    assert seen == [None] * len(seen)
    assert len(seen) > 2


def folder(path: Path) -> None:
    (path / "thesis").mkdir(parents=True)


def file(path: Path) -> None:
    path.write_bytes(b"mine")


def foreign_array(path: Path) -> None:
    zarr.create_array(str(path), shape=(4, 4), dtype="u1")


def foreign_group(path: Path) -> None:
    zarr.create_group(str(path), attributes={"ome": {}})


def damaged_group(path: Path) -> None:
    made(path)
    (path / "zarr.json").write_bytes(b"{")


@pytest.mark.parametrize("make", [folder, file, foreign_array, foreign_group, damaged_group])
def test_nothing_but_ours_is_removed(
    make: Callable[[Path], None], tmp_path: Path, hash_tree: Callable[[Path], str]
) -> None:
    make(tmp_path / "out.zarr")
    before = hash_tree(tmp_path)
    with pytest.raises(SinkError, match="not a result of unet-dask"):
        place.remove(str(tmp_path / "out.zarr"))
    assert hash_tree(tmp_path) == before


def test_trying_to_write_leaves_nothing(tmp_path: Path) -> None:
    assert place.why_unwritable(str(tmp_path / "new" / "out.zarr")) == ""
    assert list(tmp_path.iterdir()) == []
