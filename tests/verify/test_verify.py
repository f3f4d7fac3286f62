"""A result that is whole and right gives no finding; whatever is done to one is found and named."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import zarr

import unet_dask
from unet_dask.errors import OptionError, SinkError
from unet_dask.io.sink.place import sealed
from unet_dask.io.sink.store import checksum
from unet_dask.ledger import Entry, Ledger

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from unet_dask.verify.finding import Finding
    from unet_dask.workers.cluster import Cluster


@dataclass(frozen=True)
class Made:
    """A result that is whole and right, another one of other values, and what they were made from."""

    sink: Path
    other: Path
    source: Path
    model: Path

    def copy(self, place: Path) -> Path:
        shutil.copytree(self.sink, place)
        return place


def segmented(source: Path, sink: Path, model: Path, cluster: Cluster, **settings: Any) -> Path:
    sizes = {"region": (64, 64), "tile": (32, 32), "chunks": (32, 32)} | settings
    unet_dask.segment_store(source, sink, model, client=cluster.client, precision="float32", **sizes)
    return sink


@pytest.fixture(scope="module")
def made(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_model: Path,
    make_source: Callable[..., Path],
    cluster: Cluster,
) -> Made:
    """Return results with two levels: 520 voxels wide, so that there is a pyramid."""
    root = tmp_path_factory.mktemp("verify")
    source, another = (make_source(root / f"{n}.zarr", (70, 520), seed=n) for n in (0, 1))
    wanted = {"products": "classes,probabilities", "region": (64, 128)}
    sinks = [
        segmented(place, root / f"{place.stem}.seg.zarr", tiny_model, cluster, **wanted)
        for place in (source, another)
    ]
    return Made(sinks[0], sinks[1], source, tiny_model)


def found(sink: Path, **settings: Any) -> list[Finding]:
    return list(unet_dask.verify_store(sink, **{"crops": 0} | settings).findings)


def flip(chunk: Path, made: Made) -> None:
    data = bytearray(chunk.read_bytes())
    data[len(data) // 2] ^= 0xFF
    chunk.write_bytes(bytes(data))


def unused_bit(chunk: Path, made: Made) -> None:
    """Flip the bit of the frame header that decoders of zstd shall ignore."""
    data = bytearray(chunk.read_bytes())
    data[4] ^= 0x10
    chunk.write_bytes(bytes(data))


def truncate(chunk: Path, made: Made) -> None:
    chunk.write_bytes(chunk.read_bytes()[:-5])


def empty(chunk: Path, made: Made) -> None:
    chunk.write_bytes(b"")


def delete(chunk: Path, made: Made) -> None:
    chunk.unlink()


def swap(chunk: Path, made: Made) -> None:
    other = chunk.with_name("3")
    mine, its = chunk.read_bytes(), other.read_bytes()
    chunk.write_bytes(its)
    other.write_bytes(mine)


def stale(chunk: Path, made: Made) -> None:
    sink = next(each for each in chunk.parents if each.name.endswith(".copy.zarr"))
    shutil.copy(made.other / chunk.relative_to(sink), chunk)


DAMAGES = [
    (flip, "cannot be decoded"),
    (unused_bit, "the values are right, but 1 of its files"),
    (truncate, "cannot be decoded"),
    (empty, "cannot be decoded"),
    (delete, r"1 of \d+ chunks are missing"),
    (swap, "not those that were written"),
    (stale, "not those that were written"),
]


@pytest.mark.parametrize("product", ["classes", "probabilities"])
@pytest.mark.parametrize(("damage", "says"), DAMAGES, ids=lambda case: getattr(case, "__name__", ""))
def test_damaged_chunk_is_found_and_named(
    damage: Callable[[Path, Made], None], says: str, product: str, made: Made, tmp_path: Path
) -> None:
    sink = made.copy(tmp_path / "sink.copy.zarr")
    damage(sink / product / "0" / "c" / ("0" if product == "classes" else "1/0") / "1", made)
    (finding, *more) = found(sink)
    assert more == []
    assert (finding.product, finding.level) == (product, 0)
    assert finding.pieces == ((0, (0, 0, 0)),)
    assert finding.box is not None
    assert finding.box["y"][0] == 0
    assert finding.box["x"] in ((32, 64), (0, 128))
    assert re.search(says, finding.text)


@pytest.mark.parametrize("damage", [flip, truncate, delete, stale])
def test_damaged_block_of_a_pyramid_is_found(
    damage: Callable[[Path, Made], None], made: Made, tmp_path: Path
) -> None:
    sink = made.copy(tmp_path / "sink.copy.zarr")
    damage(sink / "classes" / "1" / "c" / "0" / "3", made)
    (finding,) = found(sink)
    assert (finding.product, finding.level, finding.kind) == ("classes", 1, "values")


def test_missing_line_of_the_ledger_is_found(made: Made, tmp_path: Path) -> None:
    sink = made.copy(tmp_path / "sink.copy.zarr")
    ledger = sink / "_unet_dask" / "ledger.jsonl"
    lines = ledger.read_bytes().splitlines(keepends=True)
    ledger.write_bytes(b"".join([*lines[:1], *lines[2:]]))
    (finding,) = found(sink)
    assert finding.kind == "ledger"
    assert finding.line() == "ledger: level 0, y 0:70, x 128:256: is not done"


def test_unfinished_run_is_a_finding_per_region(made: Made, tmp_path: Path) -> None:
    sink = made.copy(tmp_path / "sink.copy.zarr")
    (sink / "_unet_dask" / "ledger.jsonl").unlink()
    findings = found(sink)
    assert {finding.kind for finding in findings} == {"ledger"}
    assert sum(finding.level == 0 for finding in findings) == 4


def test_work_that_was_never_planned_is_found(made: Made, tmp_path: Path) -> None:
    sink = made.copy(tmp_path / "sink.copy.zarr")
    with Ledger(str(sink / "_unet_dask")) as ledger:
        ledger.append(Entry((0, 0, 99), checksums={"classes": "0" * 32}))
    (finding,) = found(sink)
    assert "never planned" in finding.text


def test_entries_of_another_stage_of_a_region_are_no_finding(made: Made, tmp_path: Path) -> None:
    sink = made.copy(tmp_path / "sink.copy.zarr")
    move_product_to_another_stage(sink, "probabilities")
    assert found(sink) == []
    delete(sink / "probabilities" / "0" / "c" / "0" / "0" / "0", made)
    (finding,) = found(sink)
    assert finding.product == "probabilities"


def move_product_to_another_stage(sink: Path, product: str) -> None:
    """Write the checksums of one product to entries of level -1, as stages after the regions do."""
    record = Ledger(str(sink / "_unet_dask"))
    entries = record.entries()
    record.forget(list(entries))
    for (level, index), entry in entries.items():
        rest = {name: digest for name, digest in entry.checksums.items() if level or name != product}
        record.append(Entry(index, level, rest))
        if level == 0:
            record.append(Entry(index, -1, {product: entry.checksums[product]}))
    record.compact(len(record.finished()))


def test_value_that_was_rewritten_through_zarr_is_found(made: Made, tmp_path: Path) -> None:
    sink = made.copy(tmp_path / "sink.copy.zarr")
    array = zarr.open_array(str(sink), path="classes/0", mode="r+")
    array[40, 200] = 1 - array[40, 200]  # type: ignore[operator] # a scalar
    (finding,) = found(sink)
    assert (finding.kind, finding.box) == ("values", {"y": (0, 70), "x": (128, 256)})


def record_anew(
    sink: Path, index: tuple[int, ...], product: str, values: Any, start: tuple[int, ...]
) -> None:
    """Give a region the checksum of the values that it holds now."""
    record = Ledger(str(sink / "_unet_dask"))
    entry = record.entries()[0, index]
    record.forget([entry.key])
    record.append(Entry(index, 0, dict(entry.checksums) | {product: checksum(values, start)}))
    record.compact(len(record.finished()))


def test_region_that_was_changed_with_its_checksum_is_found_by_a_crop(made: Made, tmp_path: Path) -> None:
    sink = made.copy(tmp_path / "sink.copy.zarr")
    array = zarr.open_array(str(sink), path="probabilities/0", mode="r+")
    array[:, 20:30, 130:250] = np.float32(0.5)
    record_anew(sink, (0, 0, 1), "probabilities", np.asarray(array[:, :, 128:256]), (0, 0, 128))
    assert found(sink, model=made.model) == []
    findings = found(sink, model=made.model, crops=6)
    assert {finding.kind for finding in findings} == {"crop"}
    assert {finding.product for finding in findings} == {"probabilities"}


def test_sentinel_that_was_written_is_found(made: Made, tmp_path: Path) -> None:
    sink = made.copy(tmp_path / "sink.copy.zarr")
    array = zarr.open_array(str(sink), path="classes/0", mode="r+")
    array[3, 300] = 255
    record_anew(sink, (0, 0, 2), "classes", np.asarray(array[:, 256:384]), (0, 256))
    (finding,) = found(sink)
    assert (finding.kind, finding.product) == ("sentinel", "classes")
    assert finding.text.startswith("1 voxels")


@pytest.mark.parametrize(
    "path",
    [
        "zarr.json",
        "classes/zarr.json",
        "classes/0/zarr.json",
        "probabilities/1/zarr.json",
        "_unet_dask/zarr.json",
    ],
)
@pytest.mark.parametrize("change", [b"", b"{}"], ids=["empty", "nothing in it"])
def test_damaged_metadata_is_found(path: str, change: bytes, made: Made, tmp_path: Path) -> None:
    sink = made.copy(tmp_path / "sink.copy.zarr")
    (sink / path).write_bytes(change)
    (finding,) = found(sink)
    assert finding.kind == "metadata"
    assert finding.pieces == ()


@pytest.mark.parametrize(
    ("path", "old", "new"),
    [
        ("classes/0/zarr.json", '"fill_value": 255', '"fill_value": 0'),
        ("classes/0/zarr.json", '"x"', '"z"'),
        ("classes/1/zarr.json", "35", "36"),
        ("classes/zarr.json", '"path": "1"', '"path": "0"'),
        ("classes/zarr.json", '"type": "scale", "scale"', '"type": "scble", "scale"'),
        ("probabilities/zarr.json", '"translation": [', '"translatiom": ['),
        ("classes/zarr.json", '"class": "', '"class": "no '),
        ("probabilities/0/zarr.json", '"configuration"', '"confiouration"'),
        ("zarr.json", '"version": 1', '"version": 2'),
        ("zarr.json", '"zarr_format"', '"zarr_fmrmat"'),
        ("_unet_dask/zarr.json", '"tile": [', '"tile": [1'),
        ("_unet_dask/zarr.json", '"precision": "float32"', '"precision": "float16"'),
    ],
)
def test_changed_metadata_is_found(path: str, old: str, new: str, made: Made, tmp_path: Path) -> None:
    sink = made.copy(tmp_path / "sink.copy.zarr")
    text = json.dumps(json.loads((sink / path).read_text()))
    assert old in text
    (sink / path).write_text(text.replace(old, new, 1))
    assert [finding.kind for finding in found(sink)] == ["metadata"]


@pytest.mark.filterwarnings("ignore:Consolidated metadata")
def test_what_viewers_and_zarr_add_to_metadata_is_no_finding(made: Made, tmp_path: Path) -> None:
    sink = made.copy(tmp_path / "sink.copy.zarr")
    group = zarr.open_group(str(sink), path="classes", mode="r+")
    group.attrs["ome"] = {**group.attrs["ome"], "omero": {"channels": []}}  # type: ignore[dict-item] # it is a dictionary
    group.attrs["seen by"] = "a viewer"
    zarr.consolidate_metadata(str(sink))
    assert found(sink) == []


def test_manifest_that_contradicts_itself_is_found(made: Made, tmp_path: Path) -> None:
    sink = made.copy(tmp_path / "sink.copy.zarr")
    node = json.loads((sink / "_unet_dask" / "zarr.json").read_text())
    manifest = node["attributes"]["unet_dask"]
    manifest["plan"]["precision"] = "float16"
    node["attributes"]["unet_dask"] = sealed(manifest)
    (sink / "_unet_dask" / "zarr.json").write_text(json.dumps(node))
    (finding,) = found(sink)
    assert finding.text.startswith("the manifest contradicts itself about plan.precision")


def test_result_of_a_version_without_checksums_of_metadata_is_sound(made: Made, tmp_path: Path) -> None:
    sink = made.copy(tmp_path / "sink.copy.zarr")
    node = json.loads((sink / "_unet_dask" / "zarr.json").read_text())
    manifest = node["attributes"]["unet_dask"]
    del manifest["nodes"]
    node["attributes"]["unet_dask"] = sealed(manifest)
    (sink / "_unet_dask" / "zarr.json").write_text(json.dumps(node))
    verified = unet_dask.verify_store(sink, crops=0)
    assert verified.findings == ()
    assert "kept no checksums of metadata" in verified.notes[0]


def test_source_that_has_changed_is_a_finding(made: Made, tmp_path: Path, cluster: Cluster) -> None:
    source = tmp_path / "s.zarr"
    shutil.copytree(made.source, source)
    sink = segmented(source, tmp_path / "o.zarr", made.model, cluster)
    zarr.open_array(str(source), mode="r+")[0, 0] = 7
    (finding,) = found(sink, model=made.model, crops=1)
    assert finding.kind == "source"
    assert "source.content" in finding.text
    shutil.rmtree(source)
    verified = unet_dask.verify_store(sink, made.model)
    assert (verified.findings, verified.crops) == ((), 0)
    assert "the source is not at hand" in verified.notes[0]


def test_model_that_is_not_at_hand_is_a_note(made: Made) -> None:
    verified = unet_dask.verify_store(made.sink)
    assert (verified.findings, verified.crops) == ((), 0)
    assert "Name its file with --model" in verified.notes[0]


def test_model_is_found_by_the_name_of_its_file(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / made.model.name).write_text("another file of that name")
    assert unet_dask.verify_store(made.sink, crops=2).crops == 0
    shutil.copy(made.model, tmp_path / made.model.name)
    assert unet_dask.verify_store(made.sink, crops=2).crops == 2


def test_no_sink_is_refused(tmp_path: Path, made: Made) -> None:
    with pytest.raises(SinkError, match="There is nothing"):
        unet_dask.verify_store(tmp_path / "none.zarr")
    with pytest.raises(SinkError, match="not a result"):
        unet_dask.verify_store(made.source)
    with pytest.raises(OptionError, match="--crops"):
        unet_dask.verify_store(made.sink, crops=-1)


def test_command_prints_a_line_per_finding_and_a_summary(
    made: Made, tmp_path: Path, call_cli: Callable[..., Any]
) -> None:
    sink = made.copy(tmp_path / "sink.copy.zarr")
    whole = call_cli("verify", sink, "-m", made.model, "--crops", "1")
    assert (whole.code, whole.stderr) == (0, "")
    assert "whole and right" in whole.stdout
    truncate(sink / "classes" / "0" / "c" / "0" / "0", made)
    damaged = call_cli("verify", sink, "--crops", "0", "--json")
    assert damaged.code == 4
    (finding,) = json.loads(damaged.stdout)["findings"]
    assert finding["box"] == {"y": [0, 32], "x": [0, 32]}
    assert finding["repairable"]
    assert call_cli("verify", tmp_path / "none.zarr").code == 2
    refused = call_cli("verify", sink, "--repair")
    assert (refused.code, len(refused.lines)) == (2, 1)
