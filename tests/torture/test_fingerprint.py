"""Whatever a run was begun with: a resume with anything else is refused, and the message names what differs."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest

from tests.torture.bench import content, fresh, refusal
from unet_dask.io.sink.place import sealed

if TYPE_CHECKING:
    from pathlib import Path

    from tests.torture.bench import Bench


def manifest_of(sink: Path) -> Path:
    return sink / "_unet_dask" / "zarr.json"


@pytest.fixture(scope="module")
def finished(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Path:
    sink = tmp_path_factory.mktemp("fingerprint") / "out.zarr"
    bench.run(sink)
    return sink


def test_every_field_of_the_fingerprint_guards_the_run(finished: Path, bench: Bench, tmp_path: Path) -> None:
    stored = json.loads(manifest_of(finished).read_text())
    fields = stored["attributes"]["unet_dask"]["fingerprint"]
    assert len(fields) >= 20
    silent = []
    for field in fields:
        sink = fresh(tmp_path / field) / "out.zarr"
        shutil.copytree(finished, sink)
        changed = json.loads(json.dumps(stored))
        changed["attributes"]["unet_dask"]["fingerprint"][field] += " "
        changed["attributes"]["unet_dask"] = sealed(changed["attributes"]["unet_dask"])
        manifest_of(sink).write_text(json.dumps(changed))
        before = content(sink)
        refused = refusal(lambda: bench.run(sink, resume=True))  # noqa: B023
        # A setting that no run has is refused before it is compared.
        told = (f"begun with another {field}", f"makes no sense: fingerprint.{field}")
        if not any(each in refused for each in told) or content(sink) != before:
            silent.append((field, refused))
    assert silent == []


def test_control_same_fingerprint_is_resumed(finished: Path, bench: Bench, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "out.zarr")
    assert refusal(lambda: bench.run(tmp_path / "out.zarr", resume=True)) == ""
