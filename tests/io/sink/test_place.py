"""What stands at the place of a sink after a power cut: ours or not, and what is removed of it in which order."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import zarr

from unet_dask.durable import sync_folder
from unet_dask.errors import SinkError, SinkLostError
from unet_dask.io.sink import place as places


@pytest.fixture
def sink(tmp_path: Path) -> Path:
    """Return what a power cut left of a creation: names, and a root without bytes."""
    made = tmp_path / "out.zarr"
    (made / "_unet_dask").mkdir(parents=True)
    (made / "classes").mkdir()
    (made / "zarr.json").write_bytes(b"")
    return made


@pytest.mark.parametrize("left", [b"", b"\0" * 113, None], ids=["empty", "noughts", "no name"])
def test_creation_that_lost_its_root_is_begun_anew(left: bytes | None, sink: Path) -> None:
    (sink / "zarr.json").unlink() if left is None else (sink / "zarr.json").write_bytes(left)
    assert places.read_manifest(str(sink)) is None
    places.remove(str(sink))
    assert [path.name for path in sink.iterdir()] == ["_unet_dask"]


def test_result_that_lost_its_root_is_not_taken_for_a_creation(sink: Path) -> None:
    (sink / "_unet_dask" / "zarr.json").write_text("{}")
    with pytest.raises(SinkError, match="not a result of unet-dask"):
        places.require_ours(str(sink))


@pytest.mark.parametrize("missing", ["_unet_dask", "classes"])
def test_void_root_of_somebody_else_is_not_ours(missing: str, sink: Path) -> None:
    (sink / missing).rename(sink / "images")
    with pytest.raises(SinkError, match="not a result of unet-dask"):
        places.remove(str(sink))


def test_half_written_files_of_a_killed_creation_are_removed(sink: Path) -> None:
    for stray in ("zarr.61fc.partial", "_unet_dask/zarr.61fc.partial", "_unet_dask/ledger.jsonl.partial"):
        (sink / stray).touch()
    (sink / "film.partial").touch()
    places.remove(str(sink))
    assert sorted(path.name for path in sink.rglob("*")) == ["_unet_dask", "film.partial"]


def test_manifest_is_gone_from_the_disk_before_anything_else_is(
    sink: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zarr.open_group(str(sink), mode="w", attributes={"unet_dask": {}})
    (sink / "_unet_dask").mkdir()
    (sink / "_unet_dask" / "zarr.json").write_text(json.dumps({"attributes": {"unet_dask": {}}}))
    (sink / "classes").mkdir()
    flushed: list[tuple[bool, bool]] = []

    def noted(folder: str) -> None:
        manifest = Path(folder, "zarr.json").exists()
        flushed.append((manifest, (sink / "classes").exists()))
        sync_folder(folder)

    monkeypatch.setattr(places, "sync_folder", noted)
    places.remove(str(sink))
    assert flushed == [(False, True)]


def test_trying_to_write_leaves_nothing(tmp_path: Path) -> None:
    assert places.why_unwritable(str(tmp_path / "new" / "out.zarr")) == ""
    assert list(tmp_path.iterdir()) == []


def test_refusal_of_the_system_is_one_line() -> None:
    with (
        pytest.raises(SinkLostError, match=r"refused /a/lock: No space left.*--resume"),
        places.refusals_told("/a"),
    ):
        raise OSError(28, "No space left on device", "/a/lock")


def test_error_of_the_network_is_not_taken_for_one_of_the_disk() -> None:
    with pytest.raises(TimeoutError, match="no answer"), places.refusals_told("/a"):
        raise TimeoutError("no answer")
