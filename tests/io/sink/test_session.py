"""Sessions: what is staged comes to its place by its driver alone, and nothing comes after the end."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from unet_dask.errors import SinkError, SinkLostError
from unet_dask.io.sink import session as sessions
from unet_dask.io.sink import store as sinks
from unet_dask.io.sink.files import stored_chunks
from unet_dask.io.sink.multiscale import pyramid

if TYPE_CHECKING:
    from collections.abc import Iterator

SHAPE = (24, 20)
VALUES = np.arange(64, dtype=np.uint8).reshape(8, 8)


def made(url: str, *, name: str = "classes", shards: tuple[int, ...] | None = None) -> sinks.Sink:
    array = sinks.ArraySpec(
        name,
        "yx",
        "uint8",
        (4, 4) if shards else (8, 8),
        shards,
        pyramid("yx", SHAPE, {"y": 1.0, "x": 1.0}),
    )
    created = sinks.Sink(url, (array,))
    sinks.create(
        created,
        {"fingerprint": {}, "plan": {}, "arrays": []},
        class_names=["background", "cell"],
        spacing={},
        unit={},
        translation={},
        name="small",
    )
    return created


@pytest.fixture
def sink(tmp_path: Path) -> sinks.Sink:
    return made(str(tmp_path / "out.zarr"))


class Objects(MemoryFileSystem):  # type: ignore[misc] # fsspec has no types
    """An object store for tests, with a memory of its own."""

    protocol = "objects"
    store: dict[str, Any] = {}  # noqa: RUF012 # fsspec's own way
    pseudo_dirs = [""]  # noqa: RUF012

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(super()._strip_protocol(path.replace("objects://", "memory://")))


@pytest.fixture
def remote() -> Iterator[sinks.Sink]:
    fsspec.register_implementation("objects", Objects, clobber=True)
    Objects.store.clear()
    yield made("objects://bucket/out.zarr")
    Objects.store.clear()


def files(sink: sinks.Sink) -> set[str]:
    root = Path(sink.url)
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def test_what_an_attempt_writes_lies_in_its_place_once_the_driver_has_put_it_there(sink: sinks.Sink) -> None:
    before = files(sink)
    with sessions.session(sink.url) as opened:
        with replace(sink, session=opened.name).attempted() as own:
            digest = own.write("classes", 0, (8, 8), VALUES)
        assert not stored_chunks(sink, sink.arrays[0], "classes/0").any()
        opened.place(own.attempt, 1)
        assert (sink.read("classes", 0, (slice(8, 16), slice(8, 16))) == VALUES).all()
    assert files(sink) - before == {"classes/0/c/1/1"}
    assert digest == sinks.checksum(VALUES, (8, 8))


def test_shards_and_edges_are_staged_like_chunks(tmp_path: Path) -> None:
    sharded = made(str(tmp_path / "out.zarr"), shards=(8, 8))
    with sessions.session(sharded.url) as opened:
        with replace(sharded, session=opened.name).attempted() as own:
            own.write("classes", 0, (16, 8), np.ones((8, 12), np.uint8))
        opened.place(own.attempt, 2)
    assert stored_chunks(sharded, sharded.arrays[0], "classes/0").tolist() == [[False] * 3] * 2 + [
        [False, True, True]
    ]


def test_an_attempt_after_the_end_is_refused_and_leaves_nothing(sink: sinks.Sink) -> None:
    with sessions.session(sink.url) as opened:
        late = replace(sink, session=opened.name)
    before = files(sink)
    with pytest.raises(SinkLostError, match=r"has ended.*--resume"), late.attempted():
        pass
    assert files(sink) == before
    assert not list(Path(sink.url, "_unet_dask").glob("session-*"))


def test_a_write_that_was_under_way_at_the_end_is_refused_and_leaves_nothing(sink: sinks.Sink) -> None:
    before = files(sink)
    opened = sessions.Session(sink.url)
    opened.begin()

    def late() -> None:
        with replace(sink, session=opened.name).attempted() as own:
            own.write("classes", 0, (0, 0), VALUES)
            opened.end()
            own.write("classes", 0, (8, 0), VALUES)

    with pytest.raises(SinkLostError, match="has ended"):
        late()
    assert files(sink) == before
    assert not list(Path(sink.url, "_unet_dask").glob("session-*"))


def test_an_attempt_that_fails_leaves_no_room_taken(sink: sinks.Sink) -> None:
    with sessions.session(sink.url) as opened:

        def failing() -> None:
            with replace(sink, session=opened.name).attempted() as own:
                own.write("classes", 0, (0, 0), VALUES)
                raise RuntimeError

        with pytest.raises(RuntimeError):
            failing()
        assert [path.name for path in Path(sink.url, "_unet_dask", opened.name).iterdir()] == ["open"]


def test_all_others_are_ended_but_one(sink: sinks.Sink) -> None:
    opened = [sessions.Session(sink.url) for _ in range(3)]
    for each in opened:
        each.begin()
    folder = Path(sink.url, "_unet_dask")
    os.rename(folder / opened[2].name, folder / f"{opened[2].name}.ended")  # noqa: PTH104 # killed in the middle of it
    sessions.end_all(sink.url, but=opened[0].name)
    assert [path.name for path in folder.glob("session-*")] == [opened[0].name]
    with replace(sink, session=opened[0].name).attempted() as own:
        own.write("classes", 0, (0, 0), VALUES)
    opened[0].place(own.attempt, 1)
    opened[1].end()  # a driver that was away comes back to an end that has been
    sessions.end_all(sink.url)
    assert not list(folder.glob("session-*"))


def test_sessions_side_by_side_do_not_disturb_each_other(sink: sinks.Sink) -> None:
    with sessions.session(sink.url) as first, sessions.session(sink.url) as second:
        with replace(sink, session=first.name).attempted() as one:
            one.write("classes", 0, (0, 0), VALUES)
        with replace(sink, session=second.name).attempted() as other:
            other.write("classes", 0, (0, 8), VALUES)
        first.end()
        second.place(other.attempt, 1)
        with pytest.raises(SinkLostError, match="0 of 1 files"):
            first.place(one.attempt, 1)
    assert stored_chunks(sink, sink.arrays[0], "classes/0")[0].tolist() == [False, True, False]


@pytest.mark.parametrize("gone", ["classes/0/zarr.json", "classes/0", "classes"])
def test_chunks_are_not_put_where_their_array_was_removed(sink: sinks.Sink, gone: str) -> None:
    with sessions.session(sink.url) as opened:
        with replace(sink, session=opened.name).attempted() as own:
            own.write("classes", 0, (0, 0), VALUES)
        path = Path(sink.url, gone)
        path.unlink() if path.is_file() else shutil.rmtree(path)
        with pytest.raises(SinkError, match=r"The array classes/0 of .* was removed.*--overwrite"):
            opened.place(own.attempt, 1)


def test_what_was_taken_from_an_attempt_is_missed(sink: sinks.Sink) -> None:
    sink.write("classes", 0, (0, 0), VALUES)  # what an earlier run left there
    with sessions.session(sink.url) as opened:
        with replace(sink, session=opened.name).attempted() as own:
            own.write("classes", 0, (0, 0), np.ones((8, 16), np.uint8))
        Path(sink.url, "_unet_dask", opened.name, own.attempt, "classes/0/c/0/1").unlink()
        with pytest.raises(SinkLostError, match=r"1 of 2 files .* are there.*--resume"):
            opened.place(own.attempt, 2)
    assert (sink.read("classes", 0, (slice(0, 8), slice(0, 8))) == VALUES).all()


def test_folders_of_chunks_that_were_removed_are_made_again(sink: sinks.Sink) -> None:
    with sessions.session(sink.url) as opened:
        for _ in range(2):
            with replace(sink, session=opened.name).attempted() as own:
                own.write("classes", 0, (8, 8), VALUES)
            opened.place(own.attempt, 1)
            assert stored_chunks(sink, sink.arrays[0], "classes/0")[1, 1]
            shutil.rmtree(Path(sink.url, "classes/0/c"))


def test_of_a_chunk_without_bytes_or_with_another_name_nothing_is_there(sink: sinks.Sink) -> None:
    sink.write("classes", 0, (0, 0), np.ones(SHAPE, np.uint8))
    folder = Path(sink.url, "classes/0/c")
    (folder / "0/1").write_bytes(b"")
    (folder / "1/1").rename(folder / "1/01x")
    (folder / "2/2").unlink()
    (folder / "2/2").mkdir()
    (folder / "7").mkdir()
    (folder / "7/1").write_bytes(b"1")
    expected = np.ones((3, 3), bool)
    expected[[0, 1, 2], [1, 1, 2]] = False
    np.testing.assert_array_equal(stored_chunks(sink, sink.arrays[0], "classes/0"), expected)


def test_objects_are_written_while_a_session_is_open_and_not_afterwards(remote: sinks.Sink) -> None:
    with sessions.session(remote.url) as opened:
        own = replace(remote, session=opened.name)
        with own.attempted() as attempt:
            assert attempt.attempt == ""
            attempt.write("classes", 0, (0, 0), VALUES)
        opened.place("", 1)
    with pytest.raises(SinkLostError, match="has ended"):
        own.write("classes", 0, (0, 8), VALUES)
    there = stored_chunks(remote, remote.arrays[0], "classes/0")
    assert there.sum() == 1
    assert there[0, 0]
    assert not [key for key in Objects.store if "session-" in key]


def test_sessions_of_objects_that_killed_drivers_left_are_ended(remote: sinks.Sink) -> None:
    left = sessions.Session(remote.url)
    left.begin()
    sessions.end_all(remote.url)
    with pytest.raises(SinkLostError, match="another has taken its place"):
        replace(remote, session=left.name).write("classes", 0, (0, 0), VALUES)


def test_what_others_are_made_from_must_all_be_there(sink: sinks.Sink) -> None:
    window = (slice(0, 16), slice(0, 8))
    sink.write("classes", 0, (0, 0), np.zeros((16, 8), np.uint8))
    assert not sink.read_written("classes", 0, window).any()
    Path(sink.url, "classes/0/c/1/0").unlink()
    with pytest.raises(SinkLostError, match="chunks of classes/0 that were written are not there"):
        sink.read_written("classes", 0, window)
