"""Many images in one run: each an ordinary result, failures named and others done, gone on with, and in parts."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import zarr

import unet_dask
from tests.many.plates import save_plate
from unet_dask.errors import MismatchError, OptionError, SinkError
from unet_dask.many import work
from unet_dask.many.events import Segmented
from unet_dask.many.outcome import ImagesFailedError
from unet_dask.run.prepare import _in_float32, machine_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Outcome
    from unet_dask.workers.cluster import Cluster

PRODUCTS = "classes,instances"


@pytest.fixture
def plate(tmp_path: Path) -> Path:
    """Return a plate of five fields in three wells."""
    return save_plate(tmp_path / "plate.zarr", {"A/1": ["0", "1"], "A/2": ["0"], "B/1": ["0", "1"]})


def chunk_of(plate: Path, name: str) -> Path:
    return plate / name / "0" / "c" / "0" / "0"


def break_field(plate: Path, name: str) -> bytes:
    """Cut the only chunk of a field short, and return what it was."""
    whole = chunk_of(plate, name).read_bytes()
    chunk_of(plate, name).write_bytes(whole[: len(whole) // 2])
    return whole


def table(results: Path, name: str = "images.csv") -> list[dict[str, str]]:
    with (results / name).open(newline="") as file:
        return list(csv.DictReader(file))


def arrays_of(result: Path, hash_tree: Callable[[Path], str]) -> dict[str, str]:
    return {name: hash_tree(result / name) for name in PRODUCTS.split(",")}


@pytest.mark.parametrize("kind", ["constant", "volume"])
def test_each_result_is_that_of_its_image_alone(
    tmp_path: Path,
    cluster: Cluster,
    make_model: Callable[..., Path],
    make_source: Callable[..., Path],
    hash_tree: Callable[[Path], str],
    kind: str,
) -> None:
    model = make_model(tmp_path / "net.safetensors", kind=kind)
    # Images of one region each, and one of several, which all workers do together.
    shapes = {"a": (96, 96), "b": (90, 100), "c": (96, 200)}
    sources = [make_source(tmp_path / f"{name}.zarr", shape) for name, shape in shapes.items()]
    how: dict[str, Any] = {
        "client": cluster.client,
        "products": PRODUCTS,
        "chunks": (32, 32),
        "region": (96, 128),
    }
    run = unet_dask.segment_many(sources, tmp_path / "results", model, **how)
    assert [row.status for row in run.rows] == ["done"] * 3
    for source, row in zip(sources, run.rows, strict=True):
        alone = tmp_path / f"{row.image}.alone.zarr"
        regions = unet_dask.segment_store(source, alone, model, **how).regions
        assert regions == (2 if row.image == "c" else 1)
        result = tmp_path / "results" / f"{row.image}.zarr"
        assert arrays_of(result, hash_tree) == arrays_of(alone, hash_tree)
        assert row.objects == unet_dask.measure(result, tmp_path / f"{row.image}.csv").objects
        assert unet_dask.verify_store(result).whole
        assert json.loads((result / "_unet_dask/zarr.json").read_text()) == json.loads(
            (alone / "_unet_dask/zarr.json").read_text()
        )


def test_images_that_fail_are_named_and_the_others_done_and_then_gone_on_with(
    plate: Path, tmp_path: Path, cluster: Cluster, tiny_model: Path
) -> None:
    whole = break_field(plate, "A/1/1")
    (plate / "B/1/1/0/zarr.json").rename(tmp_path / "kept.json")
    with pytest.raises(ImagesFailedError, match=r"2 of 5 images failed \(A/1/1, B/1/1\)") as failed:
        unet_dask.segment_many(plate, tmp_path / "results", tiny_model, client=cluster.client)
    assert failed.value.exit_code == 4
    rows = {row["image"]: row for row in table(tmp_path / "results")}
    assert [row["status"] for row in rows.values()] == ["done", "failed", "done", "done", "failed"]
    assert "cut short" in rows["A/1/1"]["reason"]
    assert "names '0' as level 0" in rows["B/1/1"]["reason"]

    chunk_of(plate, "A/1/1").write_bytes(whole)
    (tmp_path / "kept.json").rename(plate / "B/1/1/0/zarr.json")
    how: dict[str, Any] = {"client": cluster.client, "resume": True}
    with pytest.raises(ImagesFailedError, match="1 of 5") as refused:  # it was begun with another source
        unet_dask.segment_many(plate, tmp_path / "results", tiny_model, **how)
    assert "add --source-fixed" in refused.value.run.failed[0].reason
    run = unet_dask.segment_many(plate, tmp_path / "results", tiny_model, source_fixed=True, **how)
    assert [row.status for row in run.rows] == ["was done", "done", "was done", "was done", "was done"]
    assert run.complete


def test_what_was_changed_since_is_refused_as_by_itself(
    plate: Path, tmp_path: Path, cluster: Cluster, tiny_model: Path
) -> None:
    how: dict[str, Any] = {"client": cluster.client}
    unet_dask.segment_many(plate, tmp_path / "results", tiny_model, **how)
    zarr.open_array(plate / "A/2/0/0", mode="r+")[...] = 7
    with pytest.raises(ImagesFailedError) as failed:
        unet_dask.segment_many(plate, tmp_path / "results", tiny_model, resume=True, **how)
    (row,) = failed.value.run.failed
    with pytest.raises(MismatchError) as alone:
        unet_dask.segment_store(
            plate, tmp_path / "results/A/2/0.zarr", tiny_model, key="A/2/0", resume=True, **how
        )
    assert (row.image, row.reason) == ("A/2/0", str(alone.value))


def test_what_is_done_is_looked_at_and_not_computed_again(
    plate: Path, tmp_path: Path, cluster: Cluster, tiny_model: Path, hash_tree: Callable[[Path], str]
) -> None:
    results = tmp_path / "results"

    class Stopped(KeyboardInterrupt):
        pass

    def stop(event: object) -> None:
        if isinstance(event, Segmented) and event.done == 2:
            raise Stopped

    with pytest.raises(Stopped):
        unet_dask.segment_many(plate, results, tiny_model, client=cluster.client, on_event=stop)
    assert [row["status"] for row in table(results)] == ["done"] * 2
    done = [results / f"{row['image']}.zarr" for row in table(results)]
    before = [hash_tree(each) for each in done]
    run = unet_dask.segment_many(plate, results, tiny_model, client=cluster.client, resume=True)
    assert run.complete
    again = {results / f"{row.image}.zarr": row.status for row in run.rows}
    assert [again[each] for each in done] == ["was done"] * 2
    assert [hash_tree(each) for each in done] == before


def test_parts_do_each_image_once_and_a_last_look_makes_the_table_of_all(
    plate: Path, tmp_path: Path, cluster: Cluster, tiny_model: Path
) -> None:
    results, images = tmp_path / "results", []
    for number in (2, 1, 3):
        how: dict[str, Any] = {"client": cluster.client, "part": f"{number}/3"}
        run = unet_dask.segment_many(plate, results, tiny_model, **how)
        images += [row.image for row in run.rows]
        assert [row["image"] for row in table(results, f"images.{number}-of-3.csv")] == images[
            -len(run.rows) :
        ]
    assert sorted(images) == ["A/1/0", "A/1/1", "A/2/0", "B/1/0", "B/1/1"]
    run = unet_dask.segment_many(plate, results, tiny_model, client=cluster.client, resume=True)
    assert [row["status"] for row in table(results)] == ["was done"] * 5
    more = unet_dask.segment_many(plate, tmp_path / "x", tiny_model, client=cluster.client, part="1/9")
    assert more.rows == ()


def test_results_that_are_there_are_neither_replaced_nor_mixed_unasked(
    plate: Path, tmp_path: Path, cluster: Cluster, tiny_model: Path
) -> None:
    how: dict[str, Any] = {"client": cluster.client}
    results = tmp_path / "results"
    unet_dask.segment_many(plate, results, tiny_model, **how)
    with pytest.raises(SinkError, match="5 of the results exist already"):
        unet_dask.segment_many(plate, results, tiny_model, **how)
    with pytest.raises(OptionError, match="not both"):
        unet_dask.segment_many(plate, results, tiny_model, resume=True, overwrite=True, **how)
    run = unet_dask.segment_many(plate, results, tiny_model, overwrite=True, **how)
    assert [row.status for row in run.rows] == ["done"] * 5


def test_a_folder_of_results_that_cannot_be_is_refused_before_anything_is_done(
    plate: Path, tmp_path: Path, tiny_model: Path
) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "images.csv").write_text("my own list\n")
    for place, why in (
        (tmp_path / "file", "is a file"),
        (plate / "A", "is a Zarr store or lies in one"),
        (tmp_path / "taken", "is not a table of unet-dask"),
    ):
        with pytest.raises(SinkError, match=why):
            unet_dask.segment_many(plate, place, tiny_model)
    with pytest.raises(OptionError, match="A mask is of one image"):
        unet_dask.segment_many(plate, tmp_path / "out", tiny_model, mask=str(plate / "A/1/0"))
    assert not (tmp_path / "out").exists()
    assert (tmp_path / "taken" / "images.csv").read_text() == "my own list\n"


def test_a_precision_that_nobody_asked_for_is_compared_once_for_all(
    plate: Path, tmp_path: Path, cluster: Cluster, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared = []

    def disagreeing(prepared: Any, *_: Any) -> Any:
        compared.append(prepared.plan.source.spec.key)
        return _in_float32(prepared), ("bfloat16 agrees on 90 % only, so float32 is used",)

    monkeypatch.setattr(work, "machine_of", lambda *asked: replace(machine_of(*asked), precision="bfloat16"))
    monkeypatch.setattr(work, "checked_arithmetic", disagreeing)
    run = unet_dask.segment_many(plate, tmp_path / "results", tiny_model, client=cluster.client)
    assert compared == ["A/1/0/0"]
    assert run.notes == ("A/1/0: bfloat16 agrees on 90 % only, so float32 is used",)
    for row in run.rows:
        manifest = json.loads((Path(row.result) / "_unet_dask/zarr.json").read_text())
        assert manifest["attributes"]["unet_dask"]["precision"] == "float32"


def test_the_command_names_what_failed_and_ends_with_4(
    plate: Path, tmp_path: Path, tiny_model: Path, run_cli: Callable[..., Outcome]
) -> None:
    break_field(plate, "A/2/0")
    report = tmp_path / "report.html"
    outcome = run_cli("segment", plate, "-m", tiny_model, "--report", report, "--json", "-j", "1")
    assert outcome.code == 4
    *_, failed, last = outcome.lines
    assert failed.strip().startswith("failed  A/2/0: ")
    assert "1 of 5 images failed (A/2/0)" in last
    said = json.loads(outcome.stdout)
    assert [row["status"] for row in said["images"]].count("done") == 4
    assert (tmp_path / "plate.seg" / "B" / "1" / "1.zarr" / "classes" / "zarr.json").exists()
    page = report.read_text()
    assert all(f">{row['image']}<" in page for row in said["images"])
    assert page.count("data:image/png;base64,") == 4


def test_the_command_goes_to_a_folder_where_one_is_named(
    tmp_path: Path, tiny_model: Path, make_source: Callable[..., Path], call_cli: Callable[..., Outcome]
) -> None:
    source = make_source(tmp_path / "a.zarr")
    planned = call_cli("segment", source, "-m", tiny_model, "-o", f"{tmp_path}/results/", "--dry-run")
    assert planned.code == 0
    assert "1: 1 of 96 x 96 uint8" in planned.stdout
    refused = call_cli("segment", source, make_source(tmp_path / "b.zarr"), "-m", tiny_model)
    assert refused.code == 2
    assert "Name one with -o" in refused.stderr
    none = call_cli("segment", tmp_path / "c*.zarr", "-m", tiny_model, "-o", tmp_path / "results")
    assert none.code == 2
    assert "Nothing matches" in none.stderr


def test_if_no_image_can_be_done_the_first_says_why(plate: Path, tmp_path: Path, tiny_model: Path) -> None:
    for name in ("A/1/0", "A/1/1", "A/2/0", "B/1/0", "B/1/1"):
        shutil.rmtree(plate / name / "0")
    with pytest.raises(unet_dask.UnetDaskError, match=r"None of 5 images can be .* first, A/1/0: ") as said:
        unet_dask.segment_many(plate, tmp_path / "results", tiny_model)
    assert said.value.exit_code == 2


def test_objects_are_counted_once_however_many_blocks_they_cross(
    tmp_path: Path, cluster: Cluster, tiny_model: Path, make_source: Callable[..., Path]
) -> None:
    source = make_source(tmp_path / "a.zarr", (200, 300))
    how: dict[str, Any] = {"client": cluster.client, "products": PRODUCTS, "chunks": (32, 32)}
    run = unet_dask.segment_many([source], tmp_path / "results", tiny_model, **how)
    labels = zarr.open_array(Path(run.rows[0].result) / "instances" / "0", mode="r")[...]
    assert run.rows[0].objects == len(np.unique(labels[labels > 0])) > 10  # type: ignore[index, operator]
