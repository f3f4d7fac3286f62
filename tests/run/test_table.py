"""The table that a run keeps of its objects: of exactly these, and the same as a measurement afterwards."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
import zarr

import unet_dask
from tests.measuring.results import save_image
from tests.run.tables import SHAPED, WANTED, agrees, noise
from tests.run.test_run import make_model, tree
from tests.test_instances import CUTS
from tests.test_objects import ruled
from unet_dask.errors import SinkError
from unet_dask.measuring import measure as measuring
from unet_dask.measuring.kept import TABLE, keeps_table
from unet_dask.objects.rule import ObjectRule
from unet_dask.remake import remake_objects
from unet_dask.run import table

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import Outcome
    from unet_dask.model.file import Model
    from unet_dask.workers.cluster import Cluster

KINDS: dict[str, tuple[ObjectRule, dict[str, Any]]] = {
    "pieces": (ObjectRule(), {}),
    "cores": (ObjectRule(core=1, grow=3), {}),
    "counted": (replace(SHAPED, dense=False), {"numbers": "dense"}),
    "neurites": (ObjectRule(threshold=0.45, min_size=6, grow=3), {"products": "probabilities,instances"}),
    "all products": (SHAPED, {"products": "probabilities,classes,instances", "probability_dtype": "uint8"}),
    "parts": (SHAPED, {"roi": "20:300,30:300", "chunks": (32, 32)}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_table_is_what_is_measured_afterwards(
    kind: str, made: tuple[Path, Model, Cluster], tmp_path: Path
) -> None:
    rule, more = KINDS[kind]
    unet_dask.segment_store(
        made[0] / "source.zarr", tmp_path / "r.zarr", ruled(tmp_path, rule), client=made[2].client,
        **(CUTS | WANTED | more),
    )  # fmt: skip
    assert agrees(tmp_path / "r.zarr") > 20


def test_table_of_a_stack_that_is_connected_within_a_mask(
    made: tuple[Path, Model, Cluster], tmp_path: Path
) -> None:
    source = save_image(tmp_path / "s.zarr", noise(4, 120, 140), "zyx")
    inside = np.ones((4, 120, 140), np.uint8)
    inside[1, 60:] = inside[3] = 0
    zarr.create_array(str(tmp_path / "m.zarr"), data=inside, dimension_names=["z", "y", "x"])
    for connect in ("none", "z"):
        sink = tmp_path / f"{connect}.zarr"
        unet_dask.segment_store(
            source, sink, made[1], client=made[2].client, mask=str(tmp_path / "m.zarr"), connect=connect,
            chunks=(1, 32, 32), region=(64, 64), tile=(32, 32), **WANTED,
        )  # fmt: skip
        assert agrees(sink) > 10
        measured = unet_dask.measure(sink)
        assert measured.masked
        assert bool(measured.planes) == (connect == "none")


def test_table_of_a_volume(cluster: Cluster, tmp_path: Path) -> None:
    model = make_model(tmp_path, dims=3, depth=1)
    source = save_image(tmp_path / "s.zarr", noise(2, 40, 48, 50), "czyx")
    settings = WANTED | {"channels": "1", "chunks": (16, 16, 16), "region": (32, 32, 32)}
    unet_dask.segment_store(source, tmp_path / "r.zarr", model, client=cluster.client, **settings)
    assert agrees(tmp_path / "r.zarr") > 0
    found = unet_dask.measure(tmp_path / "r.zarr").columns
    assert found is not None
    assert {"intensity_mean-0", "intensity_mean-1", "volume_um3"} <= set(found)


def test_a_result_of_no_objects_has_a_table_of_none(cluster: Cluster, tmp_path: Path) -> None:
    source = save_image(tmp_path / "s.zarr", noise(120, 140), "yx")
    sink = tmp_path / "r.zarr"
    rule = ObjectRule(min_size=1 << 20)
    unet_dask.segment_store(source, sink, ruled(tmp_path, rule), client=cluster.client, **WANTED)
    assert agrees(sink) == 0


def test_other_programs_read_it(sink: Path) -> None:
    found = pd.read_parquet(sink / TABLE)
    assert len(found) == agrees(sink)
    assert found["label"].dtype == np.uint64


@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
def test_measure_writes_the_table_that_is_there(
    name: str, sink: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    aside = (sink / TABLE).rename(tmp_path / "aside")
    expected = unet_dask.measure(sink, tmp_path / f"anew-{name}")
    aside.rename(sink / TABLE)
    monkeypatch.setattr(measuring, "looks", None)  # nobody looks
    found = unet_dask.measure(sink, tmp_path / name)
    assert replace(found, path=None) == replace(expected, path=None)
    assert found.path == tmp_path / name
    if name == "t.csv":
        assert (tmp_path / name).read_bytes() == (tmp_path / f"anew-{name}").read_bytes()
    else:
        pd.testing.assert_frame_equal(*(pd.read_parquet(tmp_path / f"{how}{name}") for how in ("", "anew-")))


def test_another_question_is_measured(sink: Path, made: tuple[Path, Model, Cluster]) -> None:
    plain = unet_dask.measure(sink, intensities=False).columns
    assert plain is not None
    assert not any(name.startswith("intensity") for name in plain)
    with pytest.raises(unet_dask.UnetDaskError):
        unet_dask.measure(sink, source=made[0] / "r.zarr" / "classes")


def test_blocks_within_the_memory_of_a_worker_make_the_same_table(
    made: tuple[Path, Model, Cluster], sink: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    look = table._seen

    def counted(*arguments: Any) -> Any:
        for each in look(*arguments):
            seen.append(len(each.rows))
            yield each

    expected = unet_dask.measure(sink)
    (sink / TABLE).unlink()
    monkeypatch.setattr(table, "_seen", counted)
    monkeypatch.setattr(table, "PROCESS_BYTES", (1 << 30) - (1 << 20))
    unet_dask.segment_store(
        made[0] / "source.zarr", sink, made[1], client=made[2].client, resume=True, **CUTS, **WANTED
    )
    assert len(seen) == 30, "a chunk each"
    again = unet_dask.measure(sink)
    assert keeps_table(str(sink))
    for name, values in (expected.columns or {}).items():
        assert np.array_equal((again.columns or {})[name], values), name


def test_a_table_of_other_objects_is_not_taken(
    made: tuple[Path, Model, Cluster], sink: Path, tmp_path: Path
) -> None:
    other = shutil.copytree(sink, tmp_path / "other.zarr")
    remake_objects(other, workers=1, memory="1GiB", min_size=9)
    shutil.copy(other / TABLE, sink / TABLE)
    assert not keeps_table(str(sink))
    assert unet_dask.measure(sink).objects > unet_dask.measure(other).objects
    unet_dask.segment_store(
        made[0] / "source.zarr", sink, made[1], client=made[2].client, resume=True, **CUTS, **WANTED
    )
    assert tree(sink) == tree(made[0] / "r.zarr")


def test_a_table_that_is_none_is_measured_anew_and_a_damaged_one_is_refused(sink: Path) -> None:
    whole = (sink / TABLE).read_bytes()
    expected = unet_dask.measure(sink).objects
    for other in (b"", b"PAR1", whole[: len(whole) // 2], whole[:-30] + b"\0" * 30):
        (sink / TABLE).write_bytes(other)
        assert unet_dask.measure(sink).objects == expected
    (sink / TABLE).write_bytes(whole[:200] + bytes(each ^ 0xFF for each in whole[200:260]) + whole[260:])
    with pytest.raises(SinkError, match=r"The table of .* is damaged: .*Remove _unet_dask/objects\.parquet"):
        unet_dask.measure(sink)


def test_what_cannot_be_measured_is_refused_before_anything_is_computed(
    made: tuple[Path, Model, Cluster],
    tmp_path: Path,
    call_cli: Callable[..., Outcome],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun = ("segment", made[0] / "source.zarr", "-o", tmp_path / "r.zarr", "-m", made[1].path, "--measure")
    outcome = call_cli(*begun)
    assert (outcome.code, len(outcome.lines)) == (2, 1)
    assert "Ask for them with --products classes,instances" in outcome.stderr
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    outcome = call_cli(*begun, "--products", "classes,instances")
    assert (outcome.code, len(outcome.lines)) == (2, 1)
    assert "Install unet-dask[tables], or leave --measure out" in outcome.stderr
    assert not (tmp_path / "r.zarr").exists()
    outcome = call_cli("objects", made[0] / "r.zarr", "--min-size", "9")
    assert (outcome.code, len(outcome.lines)) == (2, 1)
    assert "Install unet-dask[tables]" in outcome.stderr
    assert not keeps_table(str(made[0] / "r.zarr"))
    monkeypatch.undo()
    assert keeps_table(str(made[0] / "r.zarr"))


def test_command_says_where_the_table_is(
    made: tuple[Path, Model, Cluster], tmp_path: Path, call_cli: Callable[..., Outcome]
) -> None:
    begun = ["segment", made[0] / "source.zarr", "-o", tmp_path / "r.zarr", "-m", made[1].path]
    begun += ["--scheduler", made[2].client.scheduler.address, "--products", "classes,instances", "--measure"]
    outcome = call_cli(*begun)
    assert outcome.code == 0, outcome.stderr
    assert str(tmp_path / "r.zarr" / TABLE) in outcome.stderr
    outcome = call_cli(*begun, "--resume", "--json")
    assert json.loads(outcome.stdout)["table"] == str(tmp_path / "r.zarr" / TABLE)
