"""Objects that a verification makes again."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.objects.slow import slowly
from tests.run.test_run import make_source
from tests.test_instances import CUTS, cut_volumes
from tests.test_objects import CORES, RULE, RULES, ruled
from unet_dask.io.sink.store import checksum
from unet_dask.ledger import Entry, Ledger
from unet_dask.objects.rule import OBJECTS, REACH, ObjectRule
from unet_dask.pipeline import segment_store
from unet_dask.run.making import LEVEL
from unet_dask.verify import objects
from unet_dask.verify.store import verify_store

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from unet_dask.tiling.region import RegionGrid
    from unet_dask.workers.cluster import Cluster


def kept(classes: NDArray[np.uint8], made: NDArray[Any], dims: int) -> Any:
    """Return what stands for a result that holds classes and objects."""
    axes = "tzyx"[-classes.ndim :]
    array = SimpleNamespace(
        name="instances", axes=axes, dtype="uint32", levels=[SimpleNamespace(shape=classes.shape)]
    )
    values = {"classes": classes, "instances": made}
    return SimpleNamespace(
        dims=dims,
        manifest=SimpleNamespace(classes=range(int(classes.max(initial=1)) + 1)),
        read=lambda name, level, box: values[name][box.slices],
        shown=lambda level, box: box.named,
    ), array


@settings(max_examples=300, deadline=None)
@given(cut_volumes(), RULES, st.integers(0, 1 << 30))
def test_what_is_right_is_never_found_wrong(
    case: tuple[NDArray[np.uint8], int, RegionGrid], rule: ObjectRule, seed: int
) -> None:
    classes, dims, _ = case
    before, sides = dict(REACH), dict(objects._SIDES)
    REACH.update({2: 5, 3: 5})
    objects._SIDES.update({2: (3, 3), 3: (3, 3)})
    try:
        stored, array = kept(classes, slowly(classes, rule, dims, 5), dims)
        found = objects.compared(stored, array, rule, np.random.default_rng(seed))
    finally:
        REACH.update(before)
        objects._SIDES.update(sides)
    assert not found.findings


def test_numbers_of_other_objects_are_found() -> None:
    rng = np.random.default_rng(2)
    classes = (rng.random((60, 60)) > 0.6).astype(np.uint8)
    made = slowly(classes, RULE, 2, 512)
    stored, array = kept(classes, made, 2)
    right = objects.compared(stored, array, RULE, np.random.default_rng(0))
    assert (right.findings, right.objects) == ((), len(np.unique(made)) - 1)
    one, other = np.unique(made)[1:3]
    made[made == one] = other
    (finding,) = objects.compared(stored, array, RULE, np.random.default_rng(0)).findings
    assert finding.kind == "objects"


@pytest.mark.parametrize(("rule", "classes"), [(RULE, 2), (CORES, 3), (ObjectRule(), 2)])
def test_verification_makes_objects_again(
    cluster: Cluster, tmp_path: Path, rule: ObjectRule, classes: int
) -> None:
    model, sink = ruled(tmp_path, rule, classes=classes), tmp_path / "s.zarr"
    segment_store(
        make_source(tmp_path, (300, 340)), sink, model, client=cluster.client, memory="1GiB",
        products="classes,instances", **CUTS,
    )  # fmt: skip
    whole = verify_store(sink, model.path, crops=2)
    assert whole.whole
    assert whole.objects > 20
    assert "objects made again" in whole.summary()


def forged(sink: Path, made: NDArray[Any]) -> None:
    """Write other numbers into a result of one region, with a checksum that fits them."""
    zarr.open_array(str(sink), path="instances/0", mode="r+")[...] = made
    record = Ledger(str(sink / "_unet_dask"))
    (key,) = (key for key in record.entries() if key[0] == LEVEL)
    record.forget([key])
    record.append(Entry(key[1], LEVEL, {"instances": checksum(made, (0,) * made.ndim)}))
    record.compact(len(record.finished()))


@pytest.mark.parametrize(("rule", "classes"), [(RULE, 2), (CORES, 3)])
def test_objects_that_the_classes_do_not_make_are_found(
    cluster: Cluster, tmp_path: Path, rule: ObjectRule, classes: int
) -> None:
    model, sink = ruled(tmp_path, rule, classes=classes), tmp_path / "s.zarr"
    segment_store(
        make_source(tmp_path, (120, 130)), sink, model, client=cluster.client, memory="1GiB",
        products="classes,instances",
    )  # fmt: skip
    made = np.asarray(zarr.open_array(str(sink), path="instances/0", mode="r")[...])
    one, other = np.unique(made)[1:3]
    forged(sink, np.where(made == one, other, made))
    found = verify_store(sink, model.path, crops=1)
    assert [finding.kind for finding in found.findings] == ["objects"]


def test_what_cannot_be_made_again_is_said(cluster: Cluster, tmp_path: Path) -> None:
    model, sink = ruled(tmp_path, RULE), tmp_path / "s.zarr"
    segment_store(
        make_source(tmp_path, (120, 130)),
        sink,
        model,
        client=cluster.client,
        memory="1GiB",
        products="instances",
    )
    found = verify_store(sink, model.path, crops=1)
    assert found.whole
    assert any("classes that they were made of are not in the result" in note for note in found.notes)


@pytest.mark.parametrize(
    ("recorded", "rule"),
    [
        ({}, ObjectRule()),
        ({OBJECTS: RULE.record}, RULE),
        ({OBJECTS: CORES.record}, CORES),
        ({OBJECTS: "connected pixels, holes filled"}, None),
        ({OBJECTS: "[1]"}, None),
        ({OBJECTS: '{"min_size": -1}'}, None),
    ],
)
def test_rule_of_a_run_is_in_its_fingerprint(recorded: dict[str, str], rule: ObjectRule | None) -> None:
    assert cast("object", ObjectRule.recorded(recorded)) == rule
