"""The last look: what is not there any more, or was made from what is not, is not called complete."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import zarr

from tests.conftest import save_source
from tests.test_instances import speckled
from unet_dask.errors import IncompleteError, SinkError, UnetDaskError
from unet_dask.ledger import Entry, Ledger
from unet_dask.pipeline import plan_store, segment_store
from unet_dask.run import seal
from unet_dask.run.events import Progress, Stage
from unet_dask.run.making import LEVEL
from unet_dask.run.written import planned

if TYPE_CHECKING:
    from collections.abc import Callable

    from unet_dask.run.events import Event
    from unet_dask.workers.cluster import Cluster

SETTINGS: dict[str, Any] = {
    "precision": "float32",
    "region": (24, 260),
    "tile": (24, 260),
    "chunks": (24, 130),
    "products": "classes,instances",
}
LOOK = "last look"
JOIN = "objects across regions"


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return a source of six regions and a model that finds objects in it."""
    folder = tmp_path_factory.mktemp("seal")
    speckled(folder)
    return save_source(folder / "source.zarr", (72, 520)), folder / "m.safetensors"


def at(stage: str, act: Callable[[], object]) -> Callable[[Event], None]:
    """Return a listener that does something when a stage begins."""

    def listener(event: Event) -> None:
        if isinstance(event, Stage) and event.name == stage:
            act()

    return listener


def products(sink: Path) -> dict[str, bytes]:
    found = (path for name in ("classes", "instances") for path in (sink / name).rglob("*"))
    return {
        str(path.relative_to(sink)): path.read_bytes()
        for path in found
        if path.name.isdigit() and path.is_file()
    }


def run(ground: tuple[Path, Path], sink: Path, cluster: Cluster, **more: Any) -> None:
    assert segment_store(ground[0], sink, ground[1], client=cluster.client, **(SETTINGS | more)).complete


@pytest.fixture(scope="module")
def right(
    ground: tuple[Path, Path], cluster: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, bytes]:
    sink = tmp_path_factory.mktemp("right") / "out.zarr"
    run(ground, sink, cluster)
    return products(sink)


LOSSES: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "a chunk": (LOOK, lambda sink: (sink / "classes/0/c/1/2").unlink(), "Files of 1 regions or blocks"),
    "the bytes of one": (LOOK, lambda sink: (sink / "instances/0/c/1/1").write_bytes(b""), "Files of 1 regions"),
    "a block of a pyramid": (LOOK, lambda sink: (sink / "classes/1/c/0/0").unlink(), "Files of 1 regions or blocks"),
    "all of a level": (LOOK, lambda sink: shutil.rmtree(sink / "instances/0/c"), "Files of 6 regions"),
    "the ledger": (LOOK, lambda sink: shutil.rmtree(sink / "_unet_dask/ledger"), "not in the record"),
    "the session": (
        JOIN, lambda sink: shutil.rmtree(next(sink.glob("_unet_dask/session-*"))), "has ended|files that"
    ),
}  # fmt: skip


@pytest.mark.parametrize("lost", LOSSES)
def test_what_was_lost_is_said_and_made_again(
    lost: str, ground: tuple[Path, Path], right: dict[str, bytes], cluster: Cluster, tmp_path: Path
) -> None:
    sink = tmp_path / "out.zarr"
    stage, act, words = LOSSES[lost]
    with pytest.raises(UnetDaskError, match=words) as told:
        run(ground, sink, cluster, on_event=at(stage, lambda: act(sink)))
    assert len(str(told.value).splitlines()) == 1
    assert told.value.exit_code in (3, 4)
    assert not Ledger(str(sink / "_unet_dask")).complete()
    run(ground, sink, cluster, resume=True)
    assert products(sink) == right


def test_lost_numbers_are_made_of_the_classes_and_else_missed(
    ground: tuple[Path, Path], right: dict[str, bytes], cluster: Cluster, tmp_path: Path
) -> None:
    def lose(sink: Path) -> Callable[[Event], None]:
        return at(JOIN, lambda: shutil.rmtree(sink / "_unet_dask/numbers/c"))

    run(ground, tmp_path / "kept.zarr", cluster, on_event=lose(tmp_path / "kept.zarr"))
    assert products(tmp_path / "kept.zarr") == right
    alone = tmp_path / "alone.zarr"
    with pytest.raises(UnetDaskError, match=r"numbers|not whole|not there"):
        run(ground, alone, cluster, products="instances", on_event=lose(alone))
    run(ground, alone, cluster, products="instances", resume=True)
    assert products(alone) == {name: value for name, value in right.items() if name.startswith("instances")}


METADATA: dict[str, tuple[Callable[[Path], object], str]] = {
    "the manifest": (lambda sink: (sink / "_unet_dask/zarr.json").unlink(), "its manifest was removed"),
    "a document": (
        lambda sink: (sink / "classes/zarr.json").unlink(),
        "classes/zarr.json was changed or removed",
    ),
    "a scale": (
        lambda sink: (sink / "classes/zarr.json").write_text(
            (sink / "classes/zarr.json").read_text().replace('"scale"', '"scala"')
        ),
        "classes/zarr.json was changed or removed",
    ),
    "a product": (
        lambda sink: shutil.rmtree(sink / "instances"),
        "instances/zarr.json was changed or removed",
    ),
}


@pytest.mark.parametrize("harmed", METADATA)
def test_metadata_that_was_harmed_is_an_error(
    harmed: str, ground: tuple[Path, Path], cluster: Cluster, tmp_path: Path
) -> None:
    sink = tmp_path / "out.zarr"
    act, words = METADATA[harmed]
    with pytest.raises(SinkError, match=f"is not whole: {words}.*--overwrite"):
        run(ground, sink, cluster, on_event=at(LOOK, lambda: act(sink)))
    assert not Ledger(str(sink / "_unet_dask")).complete()


def rewritten(source: Path, seed: int) -> None:
    """Write other values into one chunk of a source, which the last of its regions does not read."""
    array = zarr.open_array(str(source), mode="r+")
    array[:32, :32] = np.random.default_rng(seed).integers(0, 256, (32, 32)).astype(np.uint8)


def copy(ground: tuple[Path, Path], folder: Path) -> tuple[Path, Path]:
    return Path(shutil.copytree(ground[0], folder / "copy.zarr")), ground[1]


def test_a_source_that_was_changed_is_told_and_gone_on_with_as_it_is_now(
    ground: tuple[Path, Path], cluster: Cluster, tmp_path: Path
) -> None:
    own = copy(ground, tmp_path)
    sink = tmp_path / "out.zarr"
    heard: list[Event] = []
    with pytest.raises(
        IncompleteError, match=r"was changed while it was read \(source.content\); .*--source-fixed"
    ):
        run(own, sink, cluster, on_event=at(LOOK, lambda: rewritten(own[0], 5)))
    with pytest.raises(UnetDaskError, match=r"another source\.content"):
        run(own, sink, cluster, resume=True)
    run(own, sink, cluster, resume=True, source_fixed=True, on_event=heard.append)
    run(own, tmp_path / "expected.zarr", cluster)
    assert products(sink) == products(tmp_path / "expected.zarr")
    assert sum(isinstance(event, Progress) for event in heard) > 0


def test_a_source_that_was_changed_before_a_driver_ended_is_not_taken_on_trust(
    ground: tuple[Path, Path], cluster: Cluster, tmp_path: Path
) -> None:
    own = copy(ground, tmp_path)
    sink = tmp_path / "out.zarr"

    def stop() -> None:
        rewritten(own[0], 6)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(own, sink, cluster, on_event=at(JOIN, stop))
    run(own, sink, cluster, resume=True, source_fixed=True)
    run(own, tmp_path / "expected.zarr", cluster)
    assert products(sink) == products(tmp_path / "expected.zarr")


def test_a_source_that_was_put_back_from_a_copy_is_not_taken_on_trust(
    ground: tuple[Path, Path], right: dict[str, bytes], cluster: Cluster, tmp_path: Path
) -> None:
    own = copy(ground, tmp_path)
    sink, chunk = tmp_path / "out.zarr", own[0] / "c" / "0" / "0"
    content = chunk.read_bytes()
    rewritten(own[0], 7)

    def stop() -> None:  # all regions have seen what was wrong for a while
        chunk.write_bytes(content)
        os.utime(chunk, ns=(0, 10**18))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(own, sink, cluster, on_event=at(JOIN, stop))
    run(own, sink, cluster, resume=True, source_fixed=True)
    assert products(sink) == right


def test_an_unfinished_run_with_objects_of_an_earlier_layout_is_refused_in_one_line(
    ground: tuple[Path, Path], cluster: Cluster, tmp_path: Path
) -> None:
    from unet_dask.io.sink.place import MARK, sealed

    sink = tmp_path / "out.zarr"

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(ground, sink, cluster, on_event=at(JOIN, stop))
    document = json.loads((sink / "_unet_dask/zarr.json").read_text())
    manifest = document["attributes"][MARK]
    del manifest["layout"]
    document["attributes"][MARK] = sealed(manifest)
    (sink / "_unet_dask/zarr.json").write_text(json.dumps(document))
    with pytest.raises(
        SinkError, match=r"earlier version of unet-dask.*layout 1, now 2.*--overwrite"
    ) as told:
        run(ground, sink, cluster, resume=True)
    assert len(str(told.value).splitlines()) == 1
    assert told.value.exit_code == 2


def test_objects_of_all_regions_are_made_from_each(ground: tuple[Path, Path]) -> None:
    plan = plan_store(*ground, **SETTINGS)
    everything = set(planned(plan))
    first = next(iter(plan.grid.indices()))
    doomed = seal._made_from(plan, {(0, first)}, everything)
    assert {key for key in doomed if key[0] == 0} == {(0, first)}
    assert {key for key in doomed if key[0] == LEVEL} == {(LEVEL, each) for each in plan.grid.indices()}
    names = [each.name for each in plan.arrays]
    blocks = [key for key in everything if key[0] > 0]
    objects = [key for key in blocks if names[key[1][0]] == "instances"]
    assert objects
    assert {*objects} < doomed
    assert seal._made_from(plan, set(), everything) == set()


def test_a_record_that_is_lost_at_the_last_moment_is_not_sealed(tmp_path: Path) -> None:
    with Ledger(str(tmp_path)) as ledger:
        for index in range(3):
            ledger.append(Entry((index,), 0, {"classes": f"{index:032x}"}, "0123456789abcdef"))
        with pytest.raises(IncompleteError, match=r"1 of 4 blocks .*--resume"):
            ledger.compact(4)
        assert not ledger.complete()
        assert [each.index for each in ledger.own()] == [(0,), (1,), (2,)]
        assert {each.stamp for each in Ledger(str(tmp_path)).unsorted()} == {"0123456789abcdef"}
        ledger.compact(3)
    assert Ledger(str(tmp_path)).complete()
