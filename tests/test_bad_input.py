"""What a careless or hostile user does: one line, the right exit code, and everything as it was before.

Most cases are refused before a worker starts; then the whole folder around them must stay the same, byte for
byte. What can only be seen while the run goes on, such as a damaged chunk, ends with all other regions written.
"""

from __future__ import annotations

import os
import re
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import zarr
from distributed import LocalCluster

from unet_dask.errors import OptionError
from unet_dask.io.sink import lock as locks
from unet_dask.model.file import load_model
from unet_dask.pipeline import segment_store

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from unet_dask.workers.cluster import Cluster

from tests import refusals, sink_refusals
from tests.refusals import Arguments, Desk


@pytest.fixture
def desk(tmp_path: Path, tiny_model: Path, make_source: Callable[..., Path]) -> Desk:
    made = Desk(tmp_path, tmp_path / "tiny.safetensors")
    shutil.copy(tiny_model, made.model)
    make_source(made.source)
    return made


def _id(case: object) -> str | None:
    return str(getattr(case, "__qualname__", case)).split(".")[0] if callable(case) else None


@pytest.mark.parametrize(("case", "says"), [*refusals.REFUSED, *sink_refusals.REFUSED], ids=_id)
def test_refused_before_anything_is_touched(
    case: Callable[..., Arguments],
    says: str,
    desk: Desk,
    make_model: Callable[..., Path],
    call_cli: Callable[..., Any],
    hash_tree: Callable[[Path], str],
) -> None:
    wants_model = "make_model" in case.__annotations__
    arguments = case(desk, make_model) if wants_model else case(desk)
    before = hash_tree(desk.root)
    outcome = call_cli("segment", *arguments)
    assert outcome.lines[:1] == outcome.lines, outcome.stderr
    assert outcome.stderr.startswith("unet-dask: ")
    assert re.search(says, outcome.stderr)
    assert "error of unet-dask itself" not in outcome.stderr
    assert outcome.code == 2
    assert outcome.stdout == ""
    assert hash_tree(desk.root) == before


def flags_for(cluster: Cluster) -> list[str]:
    """Return flags that cut the small source into nine regions on the shared workers."""
    sizes = "--region 32,32 --tile 32,32 --chunks 32,32 --precision float32 -q"
    return ["--scheduler", str(cluster.client.scheduler.address), *sizes.split()]


def sink_classes(desk: Desk) -> NDArray[Any]:
    return np.asarray(zarr.open_array(str(desk.sink / "classes" / "0"))[...])


def truncate(chunk: Path) -> None:
    chunk.write_bytes(chunk.read_bytes()[:-9])


def empty(chunk: Path) -> None:
    chunk.write_bytes(b"")


@pytest.mark.parametrize("damage", [truncate, empty])
def test_damaged_chunk_fails_the_regions_that_see_it_and_no_other(
    damage: Callable[[Path], None],
    desk: Desk,
    cluster: Cluster,
    call_cli: Callable[..., Any],
    hash_tree: Callable[[Path], str],
) -> None:
    damage(desk.source / "c" / "0" / "0")
    before = hash_tree(desk.source)
    outcome = call_cli("segment", *desk.run(*flags_for(cluster)))
    assert outcome.code == 4
    assert len(outcome.lines) == 1, outcome.stderr
    assert outcome.stderr.startswith("unet-dask: 4 of 9 regions failed, all others are written: ")
    assert "[y 0:32, x 0:32]" in outcome.stderr
    assert "Traceback" not in outcome.stderr
    failed = np.zeros((96, 96), bool)
    failed[:64, :64] = True
    np.testing.assert_array_equal(sink_classes(desk) == 255, failed)
    assert hash_tree(desk.source) == before


def test_run_goes_on_once_the_source_is_mended(
    desk: Desk, cluster: Cluster, call_cli: Callable[..., Any], hash_tree: Callable[[Path], str]
) -> None:
    chunk = desk.source / "c" / "0" / "0"
    whole = chunk.read_bytes()
    truncate(chunk)
    assert call_cli("segment", *desk.run(*flags_for(cluster))).code == 4
    chunk.write_bytes(whole)
    refused = call_cli("segment", *desk.run(*flags_for(cluster), "--resume"))
    assert refused.code == 2
    assert "source.content" in refused.stderr
    assert "--source-fixed" in refused.stderr
    assert call_cli("segment", *desk.run(*flags_for(cluster), "--resume", "--source-fixed", "-q")).code == 0
    other = desk.root / "undisturbed.zarr"
    assert call_cli("segment", *desk.run(*flags_for(cluster), "-q", sink=other)).code == 0
    assert hash_tree(desk.sink) == hash_tree(other)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_value_that_is_not_finite_is_named_by_its_place(
    value: float, desk: Desk, cluster: Cluster, call_cli: Callable[..., Any], make_source: Callable[..., Path]
) -> None:
    source = make_source(desk.root / "float.zarr", dtype="float32")
    zarr.open_array(str(source), mode="r+")[90, 91] = value
    outcome = call_cli("segment", *desk.run(*flags_for(cluster), source=source))
    assert outcome.code == 4
    assert len(outcome.lines) == 1, outcome.stderr
    assert "y=90, x=91" in outcome.stderr
    failed = np.zeros((96, 96), bool)
    failed[64:, 64:] = True
    np.testing.assert_array_equal(sink_classes(desk) == 255, failed)


def test_nan_is_zero_where_the_user_says_so(
    desk: Desk, cluster: Cluster, call_cli: Callable[..., Any], make_source: Callable[..., Path]
) -> None:
    source = make_source(desk.root / "float.zarr", dtype="float32")
    zarr.open_array(str(source), mode="r+")[90, 91] = np.nan
    assert call_cli("segment", *desk.run(*flags_for(cluster), "--nan", "zero", source=source)).code == 0
    found = sink_classes(desk)
    zarr.open_array(str(source), mode="r+")[90, 91] = 0
    assert call_cli("segment", *desk.run(*flags_for(cluster), "--overwrite", source=source)).code == 0
    np.testing.assert_array_equal(sink_classes(desk), found)


def test_axis_of_no_voxels_gives_an_empty_result(
    desk: Desk, cluster: Cluster, call_cli: Callable[..., Any], make_source: Callable[..., Path]
) -> None:
    source = make_source(desk.root / "void.zarr", (0, 96))
    outcome = call_cli("segment", *desk.run("--scheduler", cluster.client.scheduler.address, source=source))
    assert outcome.code == 0, outcome.stderr
    assert sink_classes(desk).shape == (0, 96)


def test_flipped_bit_in_a_model_is_found_before_it_computes(
    desk: Desk, cluster: Cluster, call_cli: Callable[..., Any]
) -> None:
    content = bytearray(desk.model.read_bytes())
    content[-5] ^= 4
    desk.model.write_bytes(content)
    outcome = call_cli("segment", *desk.run(*flags_for(cluster)))
    assert outcome.code == 2
    assert len(outcome.lines) == 1, outcome.stderr
    assert "is damaged" in outcome.stderr
    assert not desk.sink.exists()


def test_existing_result_is_kept_without_a_flag(
    desk: Desk, cluster: Cluster, call_cli: Callable[..., Any], hash_tree: Callable[[Path], str]
) -> None:
    assert call_cli("segment", *desk.run(*flags_for(cluster))).code == 0
    before = hash_tree(desk.root)
    outcome = call_cli("segment", *desk.run(*flags_for(cluster)))
    assert (outcome.code, len(outcome.lines)) == (2, 1)
    assert "--resume" in outcome.stderr
    assert hash_tree(desk.root) == before


@pytest.mark.parametrize(
    "flags", [["--memory", "1MB"], ["--axes", "zyx"], ["--tile", "3,3"]], ids=["memory", "axes", "tile"]
)
def test_old_result_is_kept_if_the_new_run_cannot_be_planned(
    flags: list[str],
    desk: Desk,
    cluster: Cluster,
    call_cli: Callable[..., Any],
    hash_tree: Callable[[Path], str],
) -> None:
    assert call_cli("segment", *desk.run(*flags_for(cluster))).code == 0
    before = hash_tree(desk.root)
    assert call_cli("segment", *desk.run(*flags_for(cluster), "--overwrite", *flags)).code == 2
    assert hash_tree(desk.root) == before


def test_result_with_something_else_in_it_is_not_overwritten(
    desk: Desk, cluster: Cluster, call_cli: Callable[..., Any], hash_tree: Callable[[Path], str]
) -> None:
    assert call_cli("segment", *desk.run(*flags_for(cluster))).code == 0
    desk.array("out.zarr/corrected_by_hand", (8, 8))
    before = hash_tree(desk.root)
    outcome = call_cli("segment", *desk.run(*flags_for(cluster), "--overwrite"))
    assert (outcome.code, len(outcome.lines)) == (2, 1)
    assert "corrected_by_hand" in outcome.stderr
    assert hash_tree(desk.root) == before


@pytest.mark.parametrize("flag", ["--resume", "--overwrite"])
def test_sink_in_use_is_left_alone(
    flag: str, desk: Desk, cluster: Cluster, call_cli: Callable[..., Any], hash_tree: Callable[[Path], str]
) -> None:
    assert call_cli("segment", *desk.run(*flags_for(cluster))).code == 0
    with locks.locked(str(desk.sink)):
        before = hash_tree(desk.root)
        outcome = call_cli("segment", *desk.run(*flags_for(cluster), flag))
        assert (outcome.code, len(outcome.lines)) == (2, 1)
        assert f"is being written by process {os.getpid()}" in outcome.stderr
        assert hash_tree(desk.root) == before


def test_missing_folders_above_the_sink_are_made(
    desk: Desk, cluster: Cluster, call_cli: Callable[..., Any]
) -> None:
    sink = desk.root / "new" / "folders" / "out.zarr"
    assert call_cli("segment", *desk.run(*flags_for(cluster), sink=sink)).code == 0
    assert (sink / "classes" / "zarr.json").is_file()


@pytest.mark.parametrize(
    ("where", "code"),
    [
        (["--scheduler", "tcp://127.0.0.1:9"], 3),
        (["--scheduler-file", "nowhere.json"], 3),
        (["--scheduler", "not an address"], 2),
    ],
    ids=["unreachable", "no-file", "no-address"],
)
def test_scheduler_that_does_not_answer_is_lost_infrastructure(
    where: list[str], code: int, desk: Desk, call_cli: Callable[..., Any], hash_tree: Callable[[Path], str]
) -> None:
    before = hash_tree(desk.root)
    outcome = call_cli("segment", *desk.run(*where))
    assert (outcome.code, len(outcome.lines)) == (code, 1), outcome.stderr
    assert where[1] in outcome.stderr
    assert hash_tree(desk.root) == before


def test_scheduler_without_workers_is_lost_infrastructure(
    desk: Desk,
    call_cli: Callable[..., Any],
    hash_tree: Callable[[Path], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("unet_dask.workers.running._STATIC", 2.0)
    before = hash_tree(desk.root)
    with LocalCluster(n_workers=0, host="127.0.0.1", dashboard_address="127.0.0.1:0") as empty_cluster:
        outcome = call_cli("segment", *desk.run("--scheduler", empty_cluster.scheduler_address))
    assert (outcome.code, len(outcome.lines)) == (3, 2), outcome.stderr
    assert "waiting up to" in outcome.lines[0]
    assert "has no workers" in outcome.lines[1]
    assert hash_tree(desk.root) == before


def test_bad_value_in_the_environment_is_a_usage_error(desk: Desk, run_cli: Callable[..., Any]) -> None:
    outcome = run_cli("segment", *desk.run(), env={"UNET_DASK_SEGMENT_WORKERS": "abc"})
    assert (outcome.code, len(outcome.lines)) == (2, 1), outcome.stderr
    assert outcome.stderr.startswith("unet-dask: ")
    assert "abc" in outcome.stderr


def test_full_disk_ends_the_run_at_once(desk: Desk, cluster: Cluster, call_cli: Callable[..., Any]) -> None:
    assert call_cli("segment", *desk.run(*flags_for(cluster))).code == 0
    (desk.sink / "_unet_dask" / "ledger.jsonl").write_bytes(b"")
    shutil.rmtree(desk.sink / "classes" / "0" / "c")
    desk.file("out.zarr/classes/0/c", b"a file where a folder is wanted, as good as a full disk")
    outcome = call_cli("segment", *desk.run(*flags_for(cluster), "--resume"))
    assert (outcome.code, len(outcome.lines)) == (3, 1), outcome.stderr
    assert "cannot be written" in outcome.stderr
    assert "--resume" in outcome.stderr


def test_secrets_of_a_sink_are_not_shown(desk: Desk, call_cli: Callable[..., Any]) -> None:
    outcome = call_cli("segment", *desk.run(sink="https://me:s3cret@127.0.0.1:9/out.zarr?token=s3cret"))
    assert outcome.code == 2
    assert "s3cret" not in outcome.stderr


def test_arguments_in_the_wrong_order_are_named(tiny_model: Path, source: Path, tmp_path: Path) -> None:
    model = load_model(tiny_model)
    with pytest.raises(OptionError, match="sink must be the path or URL of a store, not a Model"):
        segment_store(source, model, tmp_path / "out.zarr")  # type: ignore[arg-type] # the mistake
    with pytest.raises(OptionError, match="source must be the path or URL of a store, not a ndarray"):
        segment_store(np.zeros((8, 8)), tmp_path / "out.zarr", model)  # type: ignore[arg-type] # the mistake
