"""Whatever becomes of a run or of its objects, a table that it keeps is of these, or there is none."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
import zarr

import unet_dask
from tests.measuring.results import save_image
from tests.run.tables import SHAPED, WANTED, agrees, noise
from tests.run.test_run import tree
from tests.test_instances import CUTS
from tests.test_objects import ruled
from unet_dask.errors import IncompleteError, MismatchError, SinkError
from unet_dask.measuring import kept
from unet_dask.measuring.kept import TABLE, keeps_table
from unet_dask.remake import remake_objects
from unet_dask.run import last, table
from unet_dask.run.events import Remark, Stage
from unet_dask.verify.store import repair_store, verify_store

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from unet_dask.model.file import Model
    from unet_dask.workers.cluster import Cluster


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
    keep = kept.keep

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


def test_overwriting_takes_it_away(made: tuple[Path, Model, Cluster], sink: Path) -> None:
    folder, model, cluster = made
    settings: dict[str, Any] = {"client": cluster.client, **CUTS, **WANTED, "measure": False}
    unet_dask.segment_store(folder / "source.zarr", sink, model, overwrite=True, **settings)
    assert not (sink / TABLE).exists()
