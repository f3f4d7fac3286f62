"""Objects in their final shape are those of the whole volume, whatever it was cut into."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage.morphology import h_maxima

from tests.objects.slow import slowly
from tests.objects.test_planes import slowly as slowly_linked
from tests.run.test_run import make_source, tree
from tests.test_instances import CUTS, cut_volumes, interrupted_and_resumed, speckled
from unet_dask.errors import ModelError, OptionError
from unet_dask.evaluation.evaluate import EvaluateConfig, evaluate
from unet_dask.model.file import Model, load_model, save_model, tensor_checksum
from unet_dask.objects.pieces import merged, numbered, touching
from unet_dask.objects.region import Window, reshaped
from unet_dask.objects.rule import LINKED, REACH, ObjectRule
from unet_dask.objects.shape import peaks_of, rising
from unet_dask.pipeline import plan_store, segment_store
from unet_dask.products.instances import number_type
from unet_dask.run import shape
from unet_dask.run.edges import faces
from unet_dask.tiling.region import AxisGrid, RegionGrid
from unet_dask.tiling.valid import Context
from unet_dask.verify.store import repair_store

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from unet_dask.workers.cluster import Cluster

RULES = st.builds(
    ObjectRule,
    fill_holes=st.booleans(),
    min_size=st.sampled_from([0, 2, 4, 9]),
    split=st.sampled_from([0.0, 0.3]),
) | st.builds(
    ObjectRule,
    fill_holes=st.booleans(),
    min_size=st.sampled_from([0, 2]),
    split=st.sampled_from([0.0, 0.3]),
    core=st.just(1),
    grow=st.integers(0, 4),
)


def cut(classes: NDArray[Any], rule: ObjectRule, dims: int, grid: RegionGrid) -> NDArray[Any]:
    """Shape the objects of a volume as a run does, region by region."""
    whole = grid.whole.in_space_and_time
    whole = whole.relative_to(whole)
    dtype = number_type(classes.shape)
    aside = np.zeros(classes.shape, dtype)
    boxes = {index: grid.box(index).relative_to(grid.whole).in_space_and_time for index in grid.indices()}
    pairs, ends = [np.empty((0, 2), np.uint64)], []
    for box in boxes.values():
        aside[box.slices] = numbered(
            classes[box.slices],
            start=box.start,
            shape=classes.shape,
            dims=dims,
            dtype=dtype,
            core=rule.core,
        )
    for index, box in boxes.items():
        for across, face, _ in faces(grid, index, dims):
            one, two = (
                np.moveaxis(values[face.slices], face.axes.index(across), 0) for values in (aside, classes)
            )
            pairs.append(touching(one[0], one[1], *([] if rule.core else [two[0], two[1]])))
        ends.append(shape.crossing(aside[box.slices], box, whole, dims, grow=rule.grow))
    found = shape.gathered(ends, *merged(np.concatenate(pairs)), dims)
    near = [
        shape.by_region(grid, each.low, each.high, dims=dims, grow=rule.grow) for each in (found, found.large)
    ]
    nobody = np.zeros(0, np.int32)
    made = np.zeros_like(aside)
    for index, box in boxes.items():
        around = box.grown(rule.grow, dims, within=classes.shape)
        rows, large = (meeting.get(index, nobody) for meeting in near)
        told = shape.known(found, rows, large, box, around)
        window = Window(
            shape.seen(aside[told.window.slices], told),
            told.window.start,
            box.relative_to(told.window).slices,
            None if rule.core else classes[told.window.slices],
        )
        made[box.slices], _ = reshaped(window, told.whole, rule, dims=dims, shape=classes.shape)
    return made


@settings(max_examples=400, deadline=None)
@given(cut_volumes(), RULES, st.sampled_from([3, 5, 100]))
def test_objects_of_any_regions_are_those_of_the_whole(
    case: tuple[NDArray[np.uint8], int, RegionGrid], rule: ObjectRule, reach: int
) -> None:
    classes, dims, grid = case
    before = dict(REACH)
    REACH.update({2: reach, 3: reach})
    try:
        found = cut(classes, rule, dims, grid)
    finally:
        REACH.update(before)
    assert np.array_equal(found, slowly(classes, rule, dims, reach))


def ruled(folder: Path, rule: ObjectRule, **spec: int) -> Model:
    """Return a network that finds many small objects in noise, which are to be shaped."""
    model = speckled(folder, **spec)
    header = replace(model.header, objects=rule)
    path = folder / "ruled.safetensors"
    save_model(Model(model.network, header, tensor_checksum(model.network.state_dict())), path)
    return load_model(path)


RULE = ObjectRule(fill_holes=True, min_size=4)
CORES = ObjectRule(fill_holes=True, min_size=2, core=2, grow=5)


def finest(sink: Path, name: str) -> NDArray[Any]:
    return np.asarray(zarr.open_array(sink, path=f"{name}/0", mode="r")[...])


@pytest.mark.parametrize(("classes", "rule"), [(2, RULE), (3, RULE), (3, CORES)])
def test_objects_of_a_run_do_not_depend_on_how_it_was_cut(
    cluster: Cluster, tmp_path: Path, classes: int, rule: ObjectRule
) -> None:
    model, source = ruled(tmp_path, rule, classes=classes), make_source(tmp_path, (300, 340))
    wanted = {"products": "classes,instances", "memory": "1GiB", "client": cluster.client}
    segment_store(source, tmp_path / "cut.zarr", model, **CUTS, **wanted)
    segment_store(source, tmp_path / "whole.zarr", model, **wanted)
    assert len(plan_store(source, model, **CUTS).grid) == 9
    found = finest(tmp_path / "cut.zarr", "instances")
    assert np.array_equal(found, finest(tmp_path / "whole.zarr", "instances"))
    expected = slowly(finest(tmp_path / "cut.zarr", "classes"), rule, 2, REACH[2])
    assert np.array_equal(found, expected)
    assert len(np.unique(found)) > 20
    assert not np.array_equal(found, slowly(finest(tmp_path / "cut.zarr", "classes"), ObjectRule(), 2, 512))


@pytest.mark.parametrize(("classes", "rule"), [(2, RULE), (3, CORES)])
def test_objects_in_three_dimensions(
    cluster: Cluster, tmp_path: Path, classes: int, rule: ObjectRule
) -> None:
    model = ruled(tmp_path, rule, dims=3, width=4, depth=1, classes=classes)
    segment_store(
        make_source(tmp_path, (40, 48, 56)), tmp_path / "s.zarr", model, client=cluster.client, memory="1GiB",
        products="classes,instances", region=(16, 16, 32), chunks=(16, 16, 16),
    )  # fmt: skip
    found, made = (finest(tmp_path / "s.zarr", name) for name in ("instances", "classes"))
    assert np.array_equal(found, slowly(made, rule, 3, REACH[3]))


@pytest.mark.parametrize("numbers", ["places", "dense"])
def test_cells_of_a_stack_are_connected_along_z_however_it_is_cut(
    cluster: Cluster, tmp_path: Path, numbers: str
) -> None:
    model, source = ruled(tmp_path, CORES, classes=3), make_source(tmp_path, (5, 96, 130))
    wanted: dict[str, Any] = {
        "products": "classes,instances",
        "memory": "1GiB",
        "connect": "z",
        "numbers": numbers,
    }
    cuts: dict[str, Any] = {"region": (48, 64), "chunks": (2, 48, 64), "workers": 1, "threads": 1}
    segment_store(source, tmp_path / "cut.zarr", model, **cuts, **wanted)
    segment_store(source, tmp_path / "w.zarr", model, client=cluster.client, **wanted)
    classes, found = (finest(tmp_path / "cut.zarr", name) for name in ("classes", "instances"))
    assert np.array_equal(found, finest(tmp_path / "w.zarr", "instances"))
    flat = slowly(classes, CORES, 2, REACH[2])
    linked: NDArray[Any] = slowly_linked(flat.astype(np.uint32), LINKED)
    if numbers == "dense":
        linked = np.unique(linked, return_inverse=True)[1].reshape(linked.shape)
    assert np.array_equal(found, linked)
    assert len(np.unique(found)) < len(np.unique(flat))


@pytest.mark.parametrize(
    ("after", "classes", "rule"), [(4, 2, RULE), (13, 2, RULE), (17, 2, RULE), (10, 3, CORES)]
)
def test_interrupted_while_objects_are_shaped_resumes_to_the_same_bytes(
    cluster: Cluster, tmp_path: Path, after: int, classes: int, rule: ObjectRule
) -> None:
    assert interrupted_and_resumed(ruled(tmp_path, rule, classes=classes), tmp_path, cluster, after)


def test_cores_need_no_classes_beside_them(cluster: Cluster, tmp_path: Path) -> None:
    model, source = ruled(tmp_path, CORES, classes=3), make_source(tmp_path, (120, 130))
    for products in ("instances", "classes,instances"):
        segment_store(
            source, tmp_path / products, model, products=products, client=cluster.client, memory="1GiB"
        )
    alone, beside = (
        finest(tmp_path / products, "instances") for products in ("instances", "classes,instances")
    )
    assert np.array_equal(alone, beside)
    assert alone.any()
    truth = tmp_path / "truth.tif"
    tifffile.imwrite(truth, np.unique(alone, return_inverse=True)[1].reshape(alone.shape).astype(np.uint16))
    of_map = evaluate(tmp_path / "classes,instances", truth)
    assert any("--product instances" in note for note in of_map.notes)
    own = evaluate(tmp_path / "classes,instances", truth, EvaluateConfig(("f1",), product="instances"))
    assert not any("--product" in note for note in own.notes)
    assert own.scores[0].value == 1


@settings(max_examples=200, deadline=None)
@given(
    st.integers(0, 1 << 30),
    st.sampled_from([0.25, 0.5, 1.0, 2.0]),
    st.sampled_from([(14,), (11, 13), (6, 7, 5)]),
)
def test_summits_are_the_h_maxima_of_a_reconstruction(
    seed: int, depth: float, shape: tuple[int, ...]
) -> None:
    # Steps of an eighth, so that heights are equal in many places and no rounding decides.
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(0, 8, shape), 1.0)
    height = np.maximum(np.round(noise * 8) / 8, 0)
    peaks, count = peaks_of(height)
    rises = rising(height, np.array([np.argwhere(peaks == number + 1)[0] for number in range(count)]), depth)
    found = np.append(0, np.cumsum(rises) * rises)[peaks]
    expected, _ = ndimage.label(h_maxima(height, depth), np.ones((3,) * len(shape)))
    assert np.array_equal(found, expected if height.max() > depth else np.zeros(shape))


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"grow": 3}, "say which class is the core"),
        ({"core": 1, "grow": 65}, "grow by 0 to 64"),
        ({"core": True}, "a class from 1 to 255"),
        ({"cores": 1}, "no rule cores"),
    ],
)
def test_rule_that_cannot_be_is_refused(record: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        ObjectRule.from_json(record)


def test_model_whose_core_is_no_class_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="class 2, but it has the classes 0 to 1"):
        ruled(tmp_path, CORES, classes=2)


def test_rule_survives_json_and_says_no_more_than_before() -> None:
    assert ObjectRule.from_json(CORES.to_json()) == CORES
    assert RULE.to_json() == {"fill_holes": True, "min_size": 4, "split": 0.0}


def test_repair_of_a_region_of_shaped_objects(cluster: Cluster, tmp_path: Path) -> None:
    model, source = ruled(tmp_path, RULE), make_source(tmp_path, (300, 340))
    wanted = {"products": "classes,instances", "memory": "1GiB", "client": cluster.client, **CUTS}
    sink = tmp_path / "s.zarr"
    segment_store(source, sink, model, **wanted)
    whole = tree(sink)
    (sink / "instances" / "0" / "c" / "1" / "1").unlink()
    assert model.path is not None
    assert repair_store(sink, model.path, crops=0, client=cluster.client).repaired
    assert tree(sink) == whole


def test_object_through_all_regions_is_told_to_each_by_its_own_pieces() -> None:
    # A thousand by a thousand regions: none of them may be gone through for the sake of one object.
    side, count = 64, 1000
    axis = AxisGrid(side * count, 0, side * count, side, 1, Context())
    grid = RegionGrid("cyx", (AxisGrid(1, 0, 1, 1, 1, Context()), axis, axis))
    low = np.array([[0, 0], [0, side * (count - 1)]], np.int32)
    ends = shape.Crossing(np.array([1, 2 + side * (count - 1)], np.uint64), low, low + side)
    found = shape.gathered([ends], ends.pieces[1:], ends.pieces[:1], 2)
    assert shape.by_region(grid, found.low, found.high, dims=2) == {}
    assert set(shape.by_region(grid, found.large.low, found.large.high, dims=2)) == {
        (0, 0, 0),
        (0, 0, count - 1),
    }
