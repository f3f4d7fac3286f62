"""Objects of a finished result, made again of what is stored."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.run.test_run import make_source, tree
from tests.test_instances import CUTS
from tests.test_objects import RULE, finest, ruled
from unet_dask.errors import OptionError, SinkError
from unet_dask.ledger import Ledger
from unet_dask.pipeline import segment_store
from unet_dask.remake import remake_objects
from unet_dask.run import join as stage
from unet_dask.run import last
from unet_dask.verify.store import repair_store, verify_store

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from unet_dask.model.file import Model
    from unet_dask.workers.cluster import Cluster

MANIFEST = "_unet_dask/zarr.json"
CELLS: dict[str, Any] = {"objects": "cells", "min_size": 9, "numbers": "dense"}


@pytest.fixture(scope="module")
def made(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Model, Cluster]:
    """Return a folder with a source, a result by the model's own rule, and one by another."""
    folder = tmp_path_factory.mktemp("remade")
    source, model = make_source(folder, (300, 340)), ruled(folder, RULE)
    wanted = {"products": "classes,instances", "memory": "1GiB", "client": cluster.client}
    segment_store(source, folder / "own.zarr", model, **CUTS, **wanted)
    segment_store(source, folder / "cells.zarr", model, **CUTS, **CELLS, **wanted)
    return folder, model, cluster


def copied(made: tuple[Path, Model, Cluster], to: Path, name: str = "own.zarr") -> Path:
    return shutil.copytree(made[0] / name, to / name)


def same(one: Path, other: Path) -> bool:
    """Return whether two results have the same bytes; the manifest is a mapping, whose order says nothing."""
    manifests = (json.loads((sink / MANIFEST).read_text()) for sink in (one, other))
    return tree(one) | {MANIFEST: ""} == tree(other) | {MANIFEST: ""} and next(manifests) == next(manifests)


def test_objects_made_again_are_those_of_a_run(made: tuple[Path, Model, Cluster], tmp_path: Path) -> None:
    sink = copied(made, tmp_path)
    found = remake_objects(sink, workers=1, memory="1GiB", **CELLS)
    assert found.regions == 9
    assert same(sink, made[0] / "cells.zarr")
    checked = verify_store(sink, made[1].path, crops=2)
    assert checked.whole, checked.lines()
    back: dict[str, Any] = {"objects": "components", "fill_holes": "yes", "min_size": 4, "numbers": "places"}
    again = remake_objects(sink, workers=2, memory="1GiB", **back)
    assert again.rule == RULE
    assert np.array_equal(finest(sink, "instances"), finest(made[0] / "own.zarr", "instances"))


def test_dense_numbers_are_those_of_places_counted(made: tuple[Path, Model, Cluster], tmp_path: Path) -> None:
    sink = copied(made, tmp_path, "cells.zarr")
    dense = finest(sink, "instances")
    remake_objects(sink, workers=1, memory="1GiB", numbers="places")
    names, counted = np.unique(finest(sink, "instances"), return_inverse=True)
    assert len(names) > 20
    assert np.array_equal(counted.reshape(dense.shape), dense)


def test_interrupted_it_is_not_complete_and_ends_when_it_is_called_again(
    made: tuple[Path, Model, Cluster], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = copied(made, tmp_path)
    join: Callable[..., Any] = stage.join

    def stopped(*arguments: Any) -> Any:
        for number, outcome in enumerate(join(*arguments)):
            if number == 20:
                raise KeyboardInterrupt
            yield outcome

    with monkeypatch.context() as patched:
        patched.setattr(last, "join", stopped)
        with pytest.raises(KeyboardInterrupt):
            remake_objects(sink, workers=1, memory="1GiB", **CELLS)
    assert not Ledger(str(sink / "_unet_dask")).complete()
    assert not verify_store(sink, made[1].path, crops=0).whole
    remake_objects(sink, workers=1, memory="1GiB")
    assert same(sink, made[0] / "cells.zarr")


def test_a_repair_makes_no_region_again_that_is_right(
    made: tuple[Path, Model, Cluster], tmp_path: Path
) -> None:
    sink = copied(made, tmp_path)
    chunk = next(path for path in (sink / "instances/0/c").rglob("*") if path.is_file())
    chunk.unlink()
    found = repair_store(sink, made[1].path, crops=0, client=made[2].client)
    assert found.whole
    assert found.repaired < 9, "of the regions one alone had lost its objects"
    assert same(sink, made[0] / "own.zarr")


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"objects": "neurites"}, "made of probabilities"),
        ({"min_size": -1}, "from 0 to"),
        ({"tile": "64"}, "no setting tile"),
    ],
)
def test_what_cannot_be_made_is_refused_in_one_line_and_nothing_is_lost(
    made: tuple[Path, Model, Cluster], settings: dict[str, Any], says: str
) -> None:
    before = tree(made[0] / "own.zarr")
    with pytest.raises(OptionError, match=says):
        remake_objects(made[0] / "own.zarr", **settings)
    assert tree(made[0] / "own.zarr") == before


def test_a_result_without_objects_is_refused(made: tuple[Path, Model, Cluster], tmp_path: Path) -> None:
    with pytest.raises(SinkError, match="There is nothing at"):
        remake_objects(tmp_path / "none.zarr")
    segment_store(made[0] / "source.zarr", tmp_path / "c.zarr", made[1], client=made[2].client, memory="1GiB")
    with pytest.raises(SinkError, match="has no objects"):
        remake_objects(tmp_path / "c.zarr")
