"""The table that a run keeps of its objects: of exactly these, and the same as a measurement afterwards."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
import zarr

import unet_dask
from tests.measuring.results import save_image
from tests.run.test_run import make_model, tree
from tests.test_instances import CUTS
from tests.test_objects import ruled
from unet_dask.errors import IncompleteError, MismatchError, SinkError
from unet_dask.measuring import measure as measuring
from unet_dask.measuring.kept import TABLE, keeps_table, kept_table
from unet_dask.objects.rule import ObjectRule
from unet_dask.remake import remake_objects
from unet_dask.run import last, table
from unet_dask.run.events import Remark, Stage
from unet_dask.verify.store import repair_store, verify_store

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from tests.conftest import Outcome
    from unet_dask.model.file import Model
    from unet_dask.workers.cluster import Cluster

WANTED: dict[str, Any] = {"products": "classes,instances", "memory": "1GiB", "measure": True}
SHAPED = ObjectRule(fill_holes=True, min_size=4)


def noise(*shape: int) -> NDArray[Any]:
    return np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)


@pytest.fixture(scope="module")
def made(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Model, Cluster]:
    """Return a folder with an image, and a result of it in nine regions that keeps a table."""
    folder = tmp_path_factory.mktemp("tables")
    save_image(folder / "source.zarr", noise(300, 340), "yx")
    model = ruled(folder, SHAPED)
    run = unet_dask.segment_store(
        folder / "source.zarr", folder / "r.zarr", model, client=cluster.client, **CUTS, **WANTED
    )
    assert run.table == str(folder / "r.zarr" / TABLE)
    return folder, model, cluster


@pytest.fixture
def sink(made: tuple[Path, Model, Cluster], tmp_path: Path) -> Path:
    return shutil.copytree(made[0] / "r.zarr", tmp_path / "r.zarr")


def anew(sink: Path) -> unet_dask.Measurement:
    """Return the table as it is measured afterwards."""
    aside = (sink / TABLE).rename(sink / "aside")
    try:
        return unet_dask.measure(sink)
    finally:
        aside.rename(sink / TABLE)


def agrees(sink: Path) -> int:
    """Return how many objects the table of a result has, which is what is measured afterwards."""
    expected = anew(sink)
    with kept_table(str(sink)) as found:
        assert found is not None
        given = found.given(None, None)
    assert replace(given, columns=None) == replace(expected, columns=None)
    assert given.columns is not None
    assert expected.columns is not None
    assert list(given.columns) == list(expected.columns)
    for name, values in expected.columns.items():
        assert np.array_equal(given.columns[name], values), name
        assert given.columns[name].dtype == values.dtype, name
    return given.objects


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


@pytest.mark.parametrize(
    "when", ["while blocks are looked at", "while it is written", "before the last look"]
)
def test_killed_in_the_step_and_resumed_it_ends_with_the_same_bytes(
    when: str, made: tuple[Path, Model, Cluster], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, model, cluster = made
    sink = tmp_path / "r.zarr"
    place, name = {
        "while blocks are looked at": (table, "_seen"),
        "while it is written": (table, "keep"),
        "before the last look": (last, "Stage"),
    }[when]
    done: Callable[..., Any] = getattr(place, name)

    def stopped(*arguments: Any) -> Any:
        if name == "Stage" and arguments[0] != "last look":
            return done(*arguments)
        if name == "keep":
            next(iter(arguments[3]))
        raise KeyboardInterrupt

    wanted: dict[str, Any] = {"client": cluster.client, **CUTS, **WANTED}
    with monkeypatch.context() as patched:
        patched.setattr(place, name, stopped)
        with pytest.raises(KeyboardInterrupt):
            unet_dask.segment_store(folder / "source.zarr", sink, model, **wanted)
    assert not keeps_table(str(sink)), "the run is not complete"
    with pytest.raises(SinkError, match="is not finished"):
        unet_dask.measure(sink)
    # What the run was asked for is known to whoever goes on.
    del wanted["measure"]
    run = unet_dask.segment_store(folder / "source.zarr", sink, model, resume=True, **wanted)
    assert run.computed == 0
    assert run.table
    assert tree(sink) == tree(folder / "r.zarr")


#: A driver that is killed, workers and all, when a part of the table is written.
KILLED = """
import os, signal, sys
import unet_dask
from unet_dask.run import table

keep = table.keep

def begun(batches):
    yield next(batches)
    os.killpg(0, signal.SIGKILL)

def killed(url, digest, head, batches, measured):
    keep(url, digest, head, begun(batches), measured)

if __name__ == "__main__":
    table.keep = killed
    settings = dict(products="classes,instances", memory="1GiB", measure=True, workers=2, threads=1)
    sizes = dict(region=(128, 128), tile=(64, 128), chunks=(64, 64))
    unet_dask.segment_store(*sys.argv[1:], **settings, **sizes)
"""


def test_killed_for_good_while_it_is_written_it_ends_with_the_same_bytes(
    made: tuple[Path, Model, Cluster], tmp_path: Path
) -> None:
    folder, model, cluster = made
    (tmp_path / "killed.py").write_text(KILLED)
    sink = tmp_path / "r.zarr"
    command = [sys.executable, tmp_path / "killed.py", folder / "source.zarr", sink, model.path]
    done = subprocess.run(list(map(str, command)), check=False, capture_output=True, start_new_session=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not (sink / TABLE).exists()
    assert list((sink / TABLE).parent.glob("*.partial"))
    run = unet_dask.segment_store(
        folder / "source.zarr", sink, model, client=cluster.client, resume=True, **CUTS, **WANTED
    )
    assert run.computed == 0
    assert tree(sink) == tree(folder / "r.zarr")


def test_a_run_that_goes_on_removes_a_table_that_is_not_of_it_before_it_computes(
    made: tuple[Path, Model, Cluster], sink: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, model, cluster = made
    shutil.rmtree(sink / "classes" / "0" / "c")
    there: list[bool] = []

    def look(event: object) -> None:
        there.append((sink / TABLE).exists())
        if isinstance(event, Stage):
            raise KeyboardInterrupt

    wanted: dict[str, Any] = {"client": cluster.client, "resume": True, **CUTS, **WANTED}
    with pytest.raises(KeyboardInterrupt):
        unet_dask.segment_store(folder / "source.zarr", sink, model, on_event=look, **wanted)
    assert not there[-1]
    assert not (sink / TABLE).exists()
    unet_dask.segment_store(folder / "source.zarr", sink, model, **wanted)
    assert tree(sink) == tree(folder / "r.zarr")


def test_a_source_that_changes_meanwhile_leaves_no_table(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = save_image(tmp_path / "s.zarr", noise(120, 140), "yx")
    keep = table.keep

    def changing(*arguments: Any) -> None:
        keep(*arguments)
        zarr.open_array(str(source / "0"), mode="r+")[:48, :48] = 7

    monkeypatch.setattr(table, "keep", changing)
    with pytest.raises(IncompleteError, match="was changed while it was read"):
        unet_dask.segment_store(
            source, tmp_path / "r.zarr", ruled(tmp_path, SHAPED), client=cluster.client, **WANTED
        )
    assert not (tmp_path / "r.zarr" / TABLE).exists()


def test_objects_that_are_made_again_have_their_own_table(
    made: tuple[Path, Model, Cluster], sink: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = agrees(sink)
    with monkeypatch.context() as patched:

        def stopped(*_: object) -> None:
            raise KeyboardInterrupt

        patched.setattr(last, "join", stopped)
        with pytest.raises(KeyboardInterrupt):
            remake_objects(sink, workers=1, memory="1GiB", min_size=9)
    assert not (sink / TABLE).exists()
    stages: list[object] = []
    remake_objects(sink, workers=1, memory="1GiB", min_size=9, on_event=stages.append)
    assert Stage("table of objects") in stages
    assert 0 < agrees(sink) < before
    assert verify_store(sink, made[1].path, crops=0).whole


@pytest.mark.parametrize("how", ["gone", "changed"])
def test_without_its_source_they_have_one_without_grey_values_and_it_is_said(
    how: str, cluster: Cluster, tmp_path: Path
) -> None:
    source = save_image(tmp_path / "s.zarr", noise(120, 140), "yx")
    sink = tmp_path / "r.zarr"
    unet_dask.segment_store(source, sink, ruled(tmp_path, SHAPED), client=cluster.client, **WANTED)
    if how == "gone":
        source.rename(tmp_path / "elsewhere.zarr")
    else:
        zarr.open_array(str(source / "0"), mode="r+")[:48, :48] = 7
    told: list[Any] = []
    remake_objects(sink, workers=1, memory="1GiB", min_size=9, on_event=told.append)
    said = [each.text for each in told if isinstance(each, Remark)]
    assert len(said) == 1
    assert said[0].startswith("in the table of objects, ")
    assert not any(name.startswith("intensity") for name in pd.read_parquet(sink / TABLE))
    # Who measures later asks for the source again.
    assert not keeps_table(str(sink))


def test_a_repair_makes_the_table_again(made: tuple[Path, Model, Cluster], sink: Path) -> None:
    chunk = next(path for path in (sink / "instances/0/c").rglob("*") if path.is_file())
    chunk.unlink()
    found = repair_store(sink, made[1].path, crops=0, client=made[2].client)
    assert found.whole
    assert tree(sink) == tree(made[0] / "r.zarr")


def test_parts_make_it_when_the_last_is_done(made: tuple[Path, Model, Cluster], tmp_path: Path) -> None:
    folder, model, cluster = made
    for part in ("2/3", "1/3", "3/3"):
        run = unet_dask.segment_store(
            folder / "source.zarr", tmp_path / "r.zarr", model, client=cluster.client, part=part,
            **CUTS, **WANTED,
        )  # fmt: skip
        assert bool(run.table) == run.complete == (part == "3/3")
    assert tree(tmp_path / "r.zarr") == tree(folder / "r.zarr")


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


def test_a_result_without_one_is_not_given_one_by_going_on(
    made: tuple[Path, Model, Cluster], tmp_path: Path
) -> None:
    folder, model, cluster = made
    plain = WANTED | {"measure": False}
    settings: dict[str, Any] = {"client": cluster.client, **CUTS}
    run = unet_dask.segment_store(folder / "source.zarr", tmp_path / "r.zarr", model, **settings, **plain)
    assert run.table == ""
    assert not (tmp_path / "r.zarr" / TABLE).exists()
    with pytest.raises(MismatchError, match=r"another setting\.measure: nothing then, True now"):
        unet_dask.segment_store(
            folder / "source.zarr", tmp_path / "r.zarr", model, resume=True, **settings, **WANTED
        )


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


def test_overwriting_takes_it_away(made: tuple[Path, Model, Cluster], sink: Path) -> None:
    folder, model, cluster = made
    settings: dict[str, Any] = {"client": cluster.client, **CUTS, **WANTED, "measure": False}
    unet_dask.segment_store(folder / "source.zarr", sink, model, overwrite=True, **settings)
    assert not (sink / TABLE).exists()


def test_a_result_of_no_objects_has_a_table_of_none(cluster: Cluster, tmp_path: Path) -> None:
    source = save_image(tmp_path / "s.zarr", noise(120, 140), "yx")
    sink = tmp_path / "r.zarr"
    rule = ObjectRule(min_size=1 << 20)
    unet_dask.segment_store(source, sink, ruled(tmp_path, rule), client=cluster.client, **WANTED)
    assert agrees(sink) == 0
