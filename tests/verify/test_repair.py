"""A repair leaves the bytes of an undamaged result, or refuses in one line and touches nothing."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import zarr
from fsspec.implementations.local import LocalFileSystem

import unet_dask
from tests.verify.test_verify import record_anew
from unet_dask.durable import sync_folder
from unet_dask.errors import MismatchError, ModelError, SinkError, UnetDaskError
from unet_dask.io.sink import lock as locks
from unet_dask.ledger import Entry, Ledger
from unet_dask.run.dependents import dependents
from unet_dask.run.events import Progress
from unet_dask.verify.stored import open_stored

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from unet_dask.verify.finding import Verification
    from unet_dask.workers.cluster import Cluster


SETTINGS: dict[str, Any] = {
    "products": "classes,probabilities",
    "precision": "float32",
    "region": (128, 256),
    "tile": (64, 64),
    "chunks": (64, 64),
    "roi": "10:97,20:1090",
}


@dataclass(frozen=True)
class Bench:
    """A result with what it was made from, in a folder of its own."""

    sink: Path
    source: Path
    model: Path
    cluster: Cluster

    def repair(self, **settings: Any) -> Verification:
        settings = {"crops": 2, "client": self.cluster.client} | settings
        return unet_dask.repair_store(self.sink, self.model, **settings)


def run(bench: Bench, **settings: Any) -> None:
    unet_dask.segment_store(bench.source, bench.sink, bench.model, client=bench.cluster.client, **settings)


def begun(folder: Path, model: Path, make_source: Callable[..., Path], cluster: Cluster) -> Bench:
    """Return a result of five regions and three levels, not of the whole volume."""
    made = Bench(folder / "o.zarr", make_source(folder / "s.zarr", (100, 1100)), model, cluster)
    run(made, **SETTINGS)
    return made


@pytest.fixture(scope="module")
def shared(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_model: Path,
    make_source: Callable[..., Path],
    cluster: Cluster,
) -> Bench:
    return begun(tmp_path_factory.mktemp("repair"), tiny_model, make_source, cluster)


@pytest.fixture
def bench(shared: Bench, tmp_path: Path) -> Bench:
    """Return a result of the test's own, made from a source that all share."""
    shutil.copytree(shared.sink, tmp_path / "o.zarr")
    return replace(shared, sink=tmp_path / "o.zarr")


@pytest.fixture(scope="module")
def restored(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_model: Path,
    make_source: Callable[..., Path],
    cluster: Cluster,
) -> tuple[Bench, Path]:
    """Return a result with a source and a model of its own, and a copy of all three."""
    folder = tmp_path_factory.mktemp("restored") / "own"
    folder.mkdir()
    made = begun(folder, Path(shutil.copy(tiny_model, folder / "m.safetensors")), make_source, cluster)
    return made, Path(shutil.copytree(folder, folder.parent / "copy"))


@pytest.fixture
def own(restored: tuple[Bench, Path]) -> Iterator[Bench]:
    """Return a result with a source and a model that a test may change; it is put back, times of change and all."""
    made, copy = restored
    yield made
    shutil.rmtree(made.sink.parent)
    shutil.copytree(copy, made.sink.parent)


def damage(sink: Path) -> None:
    """Do something to chunks of two regions, to a block of a pyramid, and to the ledger."""
    first = sink / "classes" / "0" / "c" / "0" / "0"
    first.write_bytes(first.read_bytes()[:-3])
    (sink / "probabilities" / "0" / "c" / "1" / "0" / "9").unlink()
    zarr.open_array(str(sink), path="classes/1", mode="r+")[3, 3] = 2
    ledger = sink / "_unet_dask" / "ledger.jsonl"
    ledger.write_bytes(b"".join(ledger.read_bytes().splitlines(keepends=True)[:-1]))


def test_repaired_result_is_that_of_an_undamaged_run(bench: Bench, hash_tree: Callable[[Path], str]) -> None:
    whole, source = hash_tree(bench.sink), hash_tree(bench.source)
    damage(bench.sink)
    assert hash_tree(bench.sink) != whole
    found = bench.repair()
    assert (found.findings, found.notes) == ((), ())
    assert found.repaired
    assert hash_tree(bench.sink) == whole
    assert hash_tree(bench.source) == source


def test_sound_result_is_left_alone(bench: Bench, hash_tree: Callable[[Path], str]) -> None:
    whole = hash_tree(bench.sink)
    assert bench.repair().repaired == 0
    assert hash_tree(bench.sink) == whole


def test_region_that_was_changed_with_its_checksum_is_repaired(
    bench: Bench, hash_tree: Callable[[Path], str]
) -> None:
    whole = hash_tree(bench.sink)
    array = zarr.open_array(str(bench.sink), path="classes/0", mode="r+")
    values = 1 - np.asarray(array[:, 256:512])
    array[:, 256:512] = values
    record_anew(bench.sink, (0, 0, 1), "classes", values, (0, 256))
    assert {each.kind for each in unet_dask.verify_store(bench.sink, crops=0).findings} == set()
    found = bench.repair(crops=12)
    assert found.findings == ()
    assert hash_tree(bench.sink) == whole


def test_unfinished_run_is_finished(bench: Bench, hash_tree: Callable[[Path], str]) -> None:
    whole = hash_tree(bench.sink)
    shutil.rmtree(bench.sink / "classes" / "0" / "c")
    (bench.sink / "_unet_dask" / "ledger.jsonl").unlink()
    assert bench.repair().findings == ()
    assert hash_tree(bench.sink) == whole


class Killed(BaseException):
    """Ends a repair where a kill would."""


@pytest.mark.parametrize("calls", range(5))
def test_repair_killed_while_it_changes_the_ledger_can_be_done_again(
    calls: int, bench: Bench, hash_tree: Callable[[Path], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = hash_tree(bench.sink)
    damage(bench.sink)
    before = Ledger(str(bench.sink / "_unet_dask")).entries()
    left = iter(range(calls))

    def dying(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **more: Any) -> Any:
            if next(left, None) is None:
                raise Killed
            return function(*arguments, **more)

        return call

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", dying(os.replace))
        patched.setattr("unet_dask.ledger.sync_folder", dying(sync_folder))
        patched.setattr(LocalFileSystem, "rm_file", dying(LocalFileSystem.rm_file))
        patched.setattr("unet_dask.verify.repair.segment_store", dying(unet_dask.segment_store))
        with pytest.raises(Killed):
            bench.repair(crops=0)
    after = Ledger(str(bench.sink / "_unet_dask")).entries()
    assert after.items() <= before.items()
    assert bench.repair(crops=0).findings == ()
    assert hash_tree(bench.sink) == whole


@pytest.mark.parametrize("how", ["resume", "repair"])
def test_repair_killed_while_it_computes_is_an_unfinished_run(
    how: str, bench: Bench, hash_tree: Callable[[Path], str]
) -> None:
    whole = hash_tree(bench.sink)
    damage(bench.sink)

    def die(event: object) -> None:
        if isinstance(event, Progress):
            raise Killed

    with pytest.raises(Killed):
        bench.repair(on_event=die)
    assert not (bench.sink / "_unet_dask" / "ledger.jsonl").exists()
    found = unet_dask.verify_store(bench.sink, crops=0).findings
    assert {each.kind for each in found} == {"ledger"}  # nothing that is recorded as done is wrong
    if how == "resume":
        run(bench, resume=True, **SETTINGS)
    else:
        assert bench.repair().findings == ()
    assert hash_tree(bench.sink) == whole


def other_model(bench: Bench, make_model: Callable[..., Path]) -> None:
    make_model(bench.model, seed=5)


def other_source(bench: Bench, make_model: Callable[..., Path]) -> None:
    zarr.open_array(str(bench.source), mode="r+")[0, 0] = 9


def no_source(bench: Bench, make_model: Callable[..., Path]) -> None:
    shutil.rmtree(bench.source)


def no_product(bench: Bench, make_model: Callable[..., Path]) -> None:
    (bench.sink / "classes" / "0" / "zarr.json").unlink()


def no_model(bench: Bench, make_model: Callable[..., Path]) -> None:
    bench.model.unlink()


REFUSED = [
    (other_model, ModelError, "is not the model of the run"),
    (other_source, MismatchError, r"its source has changed since the run \(source.content\)"),
    (no_source, UnetDaskError, r"s\.zarr"),
    (no_product, SinkError, "metadata of a product is damaged"),
    (no_model, ModelError, "neither a model file"),
]


@pytest.mark.parametrize(("change", "kind", "says"), REFUSED, ids=lambda case: getattr(case, "__name__", ""))
def test_repair_is_refused_and_touches_nothing(
    change: Callable[[Bench, Callable[..., Path]], None],
    kind: type[Exception],
    says: str,
    own: Bench,
    make_model: Callable[..., Path],
    hash_tree: Callable[[Path], str],
) -> None:
    damage(own.sink)
    change(own, make_model)
    before = hash_tree(own.sink.parent)
    with pytest.raises(kind, match=says):
        own.repair(crops=0)
    assert hash_tree(own.sink.parent) == before


def test_repair_waits_for_no_other_run(bench: Bench, hash_tree: Callable[[Path], str]) -> None:
    damage(bench.sink)
    with locks.locked(str(bench.sink)):
        before = hash_tree(bench.sink)
        with pytest.raises(SinkError, match="is being written by process"):
            bench.repair()
        assert hash_tree(bench.sink) == before


def test_whatever_was_made_from_a_region_is_done_again(bench: Bench) -> None:
    stored, _ = open_stored(str(bench.sink))
    assert stored is not None
    with Ledger(stored.sink.run_folder) as ledger:
        ledger.append(Entry((0, 0, 3), -1, {}))
        entries = set(ledger.entries())
    made_from_it = {
        piece.key
        for piece in stored.pieces()
        if piece.level
        and piece.box.spans[-1][0] << piece.level < 1024
        and piece.box.spans[-1][1] << piece.level > 768
    }
    region = {(0, (0, 0, 3)), (-1, (0, 0, 3))}
    assert dependents(stored.arrays, stored.grid, [(0, (0, 0, 3))], entries) == region | made_from_it
    assert 0 < len(made_from_it) < sum(piece.level > 0 for piece in stored.pieces())


def test_tree_hash_sees_a_single_bit(bench: Bench, hash_tree: Callable[[Path], str]) -> None:
    whole = hash_tree(bench.sink)
    chunk = bench.sink / "classes" / "0" / "c" / "0" / "0"
    chunk.write_bytes(chunk.read_bytes()[:-1] + bytes([chunk.read_bytes()[-1] ^ 1]))
    assert hash_tree(bench.sink) != whole
