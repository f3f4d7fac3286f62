"""The fingerprint of a source: it changes when the source does, and only then."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import zarr

from unet_dask.io.source.volume import open_source

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "a.zarr"
    made = zarr.create_array(
        str(path), shape=(2, 40, 40), chunks=(1, 4, 4), dtype="u2", attributes={"lab": 1}
    )
    made[...] = np.random.default_rng(2).integers(0, 99, (2, 40, 40))
    return path


def identity(store: Path, **options: Any) -> dict[str, str]:
    return open_source(store, **{"axes": "cyx", **options}).identity()


def differing(before: dict[str, str], after: dict[str, str]) -> set[str]:
    assert before.keys() == after.keys()
    return {name for name in before if before[name] != after[name]}


def change_pixel(store: Path) -> None:
    zarr.open_array(str(store), mode="r+")[1, 21, 21] = 1000


def change_attribute(store: Path) -> None:
    document = json.loads((store / "zarr.json").read_text())
    document["attributes"]["lab"] = 2
    (store / "zarr.json").write_text(json.dumps(document))


def remove_chunk(store: Path) -> None:
    (store / "c" / "1" / "5" / "5").unlink()


def swap_chunks_keeping_sizes_and_times(store: Path) -> None:
    one, other = store / "c" / "0" / "0" / "0", store / "c" / "1" / "9" / "9"
    contents, times = [one.read_bytes(), other.read_bytes()], [p.stat().st_mtime_ns for p in (one, other)]
    for path, content, time in zip((one, other), contents[::-1], times, strict=True):
        path.write_bytes(content)
        os.utime(path, ns=(time, time))


def rewrite_nothing(store: Path) -> None:
    (store / ".DS_Store").write_text("left by a file manager")


@pytest.mark.parametrize(
    ("change", "fields"),
    [
        pytest.param(change_pixel, {"source.content"}, id="pixel"),
        pytest.param(remove_chunk, {"source.content"}, id="chunk-removed"),
        pytest.param(change_attribute, {"source.content", "source.metadata"}, id="metadata"),
        pytest.param(swap_chunks_keeping_sizes_and_times, {"source.content"}, id="chunks-swapped"),
        pytest.param(rewrite_nothing, set(), id="nothing"),
    ],
)
def test_identity_sees_a_change(store: Path, change: Callable[[Path], None], fields: set[str]) -> None:
    before = identity(store)
    change(store)
    assert differing(before, identity(store)) == fields


@pytest.mark.parametrize(
    ("options", "fields"),
    [
        pytest.param({"axes": "zyx"}, {"source.axes", "source.shape"}, id="axes"),
        pytest.param({"channels": (1,)}, {"source.channels", "source.shape"}, id="channels"),
        pytest.param({"channels": (0, 1)}, {"source.channels"}, id="all-channels-by-number"),
    ],
)
def test_identity_sees_what_was_said(store: Path, options: dict[str, Any], fields: set[str]) -> None:
    assert differing(identity(store), identity(store, **options)) == fields


def test_identity_is_the_same_by_every_way_to_the_store(store: Path) -> None:
    (store.parent / "link.zarr").symlink_to(store)
    assert identity(store) == identity(store.parent / "link.zarr")


def test_identity_is_the_same_in_another_process(store: Path) -> None:
    script = (
        "import sys, json; from unet_dask.io.source.volume import open_source; "
        "print(json.dumps(open_source(sys.argv[1], axes='cyx').identity()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(store)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONHASHSEED": "99", "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert json.loads(done.stdout) == identity(store)
