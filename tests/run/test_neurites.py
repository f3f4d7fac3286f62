"""Neurites of a run: those of the whole volume in one piece, however it was cut, and known to a verification."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.run.test_run import make_source, tree
from tests.test_instances import CUTS
from tests.test_objects import finest, ruled
from tests.test_remake import same
from unet_dask.errors import DriverMemoryError, OptionError
from unet_dask.objects.rule import LINKED, ObjectRule
from unet_dask.objects.whole import objects_in
from unet_dask.pipeline import plan_store, segment_store
from unet_dask.remake import remake_objects
from unet_dask.run import join as stage
from unet_dask.run import last
from unet_dask.run.room import Room
from unet_dask.verify import objects
from unet_dask.verify.store import verify_store
from unet_dask.verify.stored import open_stored

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from unet_dask.model.file import Model
    from unet_dask.objects.adjacency import Graph
    from unet_dask.workers.cluster import Cluster

RULE = ObjectRule(threshold=0.45, min_size=6, grow=3)
WANTED: dict[str, Any] = {"products": "probabilities,instances", "memory": "1GiB"}


@pytest.fixture(scope="module")
def made(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Model, Cluster]:
    """Return a folder with a source and a result in nine regions, of a model whose objects are neurites."""
    folder = tmp_path_factory.mktemp("neurites")
    model = ruled(folder, RULE)
    segment_store(
        make_source(folder, (300, 340)), folder / "cut.zarr", model, client=cluster.client, **CUTS, **WANTED
    )
    return folder, model, cluster


def whole(sink: Path, rule: ObjectRule, dims: int = 2) -> NDArray[Any]:
    return objects_in(finest(sink, "probabilities"), rule, dims=dims)


def test_neurites_of_a_run_are_those_of_the_whole(made: tuple[Path, Model, Cluster], tmp_path: Path) -> None:
    folder, model, cluster = made
    found = finest(folder / "cut.zarr", "instances")
    assert np.array_equal(found, whole(folder / "cut.zarr", RULE))
    assert len(np.unique(found)) > 20
    assert len(plan_store(folder / "source.zarr", model, **CUTS, **WANTED).grid) == 9
    segment_store(folder / "source.zarr", tmp_path / "w.zarr", model, client=cluster.client, **WANTED)
    assert np.array_equal(found, finest(tmp_path / "w.zarr", "instances"))
    checked = verify_store(folder / "cut.zarr", folder / "ruled.safetensors", crops=3)
    assert checked.whole, list(checked.lines())
    assert checked.objects > 10


def test_probabilities_in_bytes_make_them_too(made: tuple[Path, Model, Cluster], tmp_path: Path) -> None:
    folder, model, cluster = made
    wanted = WANTED | {"probability_dtype": "uint8"}
    segment_store(folder / "source.zarr", tmp_path / "b.zarr", model, client=cluster.client, **CUTS, **wanted)
    assert np.array_equal(finest(tmp_path / "b.zarr", "instances"), finest(folder / "cut.zarr", "instances"))


def test_another_threshold_needs_no_network(made: tuple[Path, Model, Cluster], tmp_path: Path) -> None:
    folder, model, cluster = made
    import shutil

    sink = shutil.copytree(folder / "cut.zarr", tmp_path / "t.zarr")
    remake_objects(sink, threshold=0.6, workers=1, memory="1GiB")
    assert np.array_equal(finest(sink, "instances"), whole(sink, replace(RULE, threshold=0.6)))
    segment_store(
        folder / "source.zarr", tmp_path / "s.zarr", model, client=cluster.client, threshold=0.6, **CUTS, **WANTED
    )  # fmt: skip
    assert same(sink, tmp_path / "s.zarr")


def test_a_stack_is_connected_along_z(made: tuple[Path, Model, Cluster], tmp_path: Path) -> None:
    folder, model, cluster = made
    segment_store(
        make_source(tmp_path, (5, 96, 130)), tmp_path / "z.zarr", model, client=cluster.client,
        region=(48, 64), chunks=(2, 48, 64), connect="z", numbers="dense", **WANTED,
    )  # fmt: skip
    plain = whole(tmp_path / "z.zarr", RULE)
    found = finest(tmp_path / "z.zarr", "instances")
    rule = replace(RULE, linked=LINKED, dense=True)
    assert np.array_equal(found, whole(tmp_path / "z.zarr", rule))
    assert found.max() == len(np.unique(found)) - 1 < len(np.unique(plain)) - 1
    checked = verify_store(tmp_path / "z.zarr", folder / "ruled.safetensors", crops=3)
    assert checked.whole, list(checked.lines())


def test_three_dimensions(cluster: Cluster, tmp_path: Path) -> None:
    model = ruled(tmp_path, RULE, dims=3, width=4, depth=1)
    segment_store(
        make_source(tmp_path, (40, 48, 56)), tmp_path / "s.zarr", model, client=cluster.client,
        region=(16, 16, 32), chunks=(16, 16, 16), **WANTED,
    )  # fmt: skip
    assert np.array_equal(finest(tmp_path / "s.zarr", "instances"), whole(tmp_path / "s.zarr", RULE, 3))


@pytest.mark.parametrize("after", [3, 12, 16])
def test_interrupted_resumes_to_the_same_bytes(
    made: tuple[Path, Model, Cluster], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    folder, model, cluster = made
    join: Callable[..., Any] = stage.join

    def stopped(*arguments: Any) -> Any:
        for number, outcome in enumerate(join(*arguments)):
            if number == after:
                raise KeyboardInterrupt
            yield outcome

    settings = {"client": cluster.client, **CUTS, **WANTED}
    with monkeypatch.context() as patched:
        patched.setattr(last, "join", stopped)
        with pytest.raises(KeyboardInterrupt):
            segment_store(folder / "source.zarr", tmp_path / "i.zarr", model, **settings)
    segment_store(folder / "source.zarr", tmp_path / "i.zarr", model, resume=True, **settings)
    assert tree(tmp_path / "i.zarr") == tree(folder / "cut.zarr")


@pytest.mark.parametrize("answers", [1, 9, 14])
def test_a_graph_that_does_not_fit_the_driver_is_refused_and_nothing_is_lost(
    made: tuple[Path, Model, Cluster], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answers: int
) -> None:
    folder, model, cluster = made
    heard = iter(range(answers))
    take = Room.take

    def full(room: Room, graphs: list[Graph], *pairs: Any) -> None:
        if next(heard, None) is None:
            room.limit = 0
        take(room, graphs, *pairs)

    settings = {"client": cluster.client, **CUTS, **WANTED}
    with monkeypatch.context() as patched:
        patched.setattr(Room, "take", full)
        with pytest.raises(DriverMemoryError, match=r"edges and more.* --resume on a machine that has more"):
            segment_store(folder / "source.zarr", tmp_path / "r.zarr", model, **settings)
    segment_store(folder / "source.zarr", tmp_path / "r.zarr", model, resume=True, **settings)
    assert same(tmp_path / "r.zarr", folder / "cut.zarr")


def test_a_merge_that_does_not_fit_the_driver_is_refused_and_nothing_is_lost(
    made: tuple[Path, Model, Cluster], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, model, cluster = made
    settings = {"client": cluster.client, **CUTS, **WANTED}
    with monkeypatch.context() as patched:
        patched.setattr("unet_dask.run.room.PER_MERGED", 1 << 50)
        with pytest.raises(DriverMemoryError, match="--resume on a machine that has more"):
            segment_store(folder / "source.zarr", tmp_path / "r.zarr", model, **settings)
    segment_store(folder / "source.zarr", tmp_path / "r.zarr", model, resume=True, **settings)
    assert same(tmp_path / "r.zarr", folder / "cut.zarr")


@pytest.mark.parametrize("fault", ["merged", "cut", "erased"])
def test_what_is_wrong_is_found(made: tuple[Path, Model, Cluster], fault: str) -> None:
    stored, _ = open_stored(str(made[0] / "cut.zarr"))
    assert stored is not None
    values = finest(made[0] / "cut.zarr", "instances").copy()
    names, sizes = np.unique(values[values > 0], return_counts=True)
    one, other = names[np.argsort(sizes)[-2:]]
    if fault == "merged":
        values[values == one] = other
    elif fault == "cut":
        rows = np.flatnonzero((values == one).any(axis=1))
        values[: rows.mean().astype(int)][values[: rows.mean().astype(int)] == one] = other
    else:
        values[values == one] = 0

    def read(name: str, level: int, box: Any) -> Any:
        return values[box.slices] if name == "instances" else stored.read(name, level, box)

    forged: Any = SimpleNamespace(
        dims=2, manifest=stored.manifest, array=stored.array, shown=stored.shown, read=read
    )
    right = objects.compared(stored, stored.array("instances"), RULE, np.random.default_rng(0))
    found = objects.compared(forged, stored.array("instances"), RULE, np.random.default_rng(0))
    assert not right.findings
    assert found.findings


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"products": "instances"}, "Use --products probabilities,instances"),
        ({"fill_holes": "yes"}, "does not fit a threshold"),
        ({"threshold": 1.5}, "at most 1"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_runs(
    made: tuple[Path, Model, Cluster], settings: dict[str, Any], says: str
) -> None:
    with pytest.raises(OptionError, match=says):
        plan_store(made[0] / "source.zarr", made[1], **(WANTED | settings))
