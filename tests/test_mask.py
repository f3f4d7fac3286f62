"""A mask decides voxel by voxel, costs nothing where it is empty, and leaves no hole there."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.objects.slow import flooded
from tests.oracle import write_array
from tests.run.test_run import make_model, make_source, tree
from tests.test_instances import speckled
from unet_dask.engine.infer import _any_between, _around
from unet_dask.errors import InputError, MismatchError
from unet_dask.io.source import occupancy as occupancies
from unet_dask.io.source.mask import Mask, find_mask, open_mask
from unet_dask.io.source.occupancy import Occupancy
from unet_dask.io.source.volume import open_source
from unet_dask.pipeline import plan_store, segment_store
from unet_dask.planning import masked
from unet_dask.run.events import Event, Stage

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from unet_dask.workers.cluster import Cluster

CUTS: dict[str, Any] = {"region": (128, 128), "tile": (64, 128), "chunks": (64, 64), "memory": "1GiB"}


def divisor(*pairs: tuple[int, int], near: float) -> int:
    """Return the whole number that gives the mask's lengths, rounded up or down; 0 if there is none."""
    fitting = [
        factor
        for factor in range(1, 42)
        if all(size in (max(over // factor, 1), -(-over // factor)) for over, size in pairs)
    ]
    return min(fitting, key=lambda factor: (abs(factor - near), factor % 2), default=0)


def slowly(mask: NDArray[Any], shape: tuple[int, ...], margin: int) -> NDArray[np.bool_]:
    """Return the mask over a source of a shape, voxel by voxel."""
    found = np.zeros(shape, bool)
    longest = max(zip(shape, mask.shape, strict=True))
    shared = divisor(*zip(shape, mask.shape, strict=True), near=longest[0] / longest[1])
    for voxel in np.ndindex(shape):
        pixel = []
        for at, size, over in zip(voxel, mask.shape, shape, strict=True):
            factor = shared or divisor((over, size), near=over / size)
            pixel.append(min(at // factor, size - 1) if factor else at * size // over)
        near = mask[tuple(slice(max(p - margin, 0), p + margin + 1) for p in pixel)]
        found[voxel] = bool(near.any())
    return found


@settings(max_examples=100, deadline=None)
@given(
    st.tuples(st.integers(1, 40), st.integers(1, 40)), st.integers(1, 5), st.booleans(), st.integers(0, 2),
    st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_a_voxel_has_the_value_of_the_pixel_that_covers_it(
    tmp_path_factory: pytest.TempPathFactory,
    shape: tuple[int, int],
    factor: int,
    up: bool,  # drawn
    margin: int,
    seed: int,
) -> None:
    folder, rng = tmp_path_factory.mktemp("mask"), np.random.default_rng(seed)
    size = tuple(max(-(-n // factor) if up else n // factor, 1) for n in shape)
    values = (rng.random(size) < 0.2).astype("u1")
    spec = open_source(write_array(folder / "m.zarr", values)).spec
    mask = Mask(spec, "cyx", (1, *size), "cyx", (1, *shape), margin=margin)
    expected = slowly(values, shape, margin)
    assert np.array_equal(mask.inside([(0, 1), (0, shape[0]), (0, shape[1])]), expected)
    start = tuple(int(rng.integers(0, n)) for n in shape)
    stop = tuple(int(rng.integers(a + 1, n + 1)) for a, n in zip(start, shape, strict=True))
    box = [(0, 1), *zip(start, stop, strict=True)]
    part = expected[tuple(slice(a, b) for a, b in box[1:])]
    assert np.array_equal(mask.inside(box), part)
    edges = [np.unique([0, a, b, n]) for a, b, n in zip(start, stop, shape, strict=True)]
    spans = [[*zip(each[:-1].tolist(), each[1:].tolist(), strict=True)] for each in edges]
    touched = Occupancy(mask).touched([[(0, 1)], *spans])
    for index in np.ndindex(touched.shape):
        inside = expected[tuple(slice(*spans[axis][at]) for axis, at in enumerate(index))]
        assert touched[index] == inside.any()


def test_a_pooled_mask_never_calls_a_box_empty_that_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(occupancies, "LARGEST", 100)
    values = (np.random.default_rng(0).random((90, 70)) < 0.003).astype("u1")
    mask = open_mask(
        str(write_array(tmp_path / "m.zarr", values)), open_source(make_source(tmp_path, (180, 140)))
    )
    spans = [[(a, a + 10) for a in range(0, n, 10)] for n in (180, 140)]
    touched = Occupancy(mask).touched([[(0, 1)], *spans])
    exact = np.array(
        [[mask.inside([(0, 1), rows, columns]).any() for columns in spans[1]] for rows in spans[0]]
    )
    assert touched[exact].all()
    assert 0 < exact.mean() < touched.mean() < 1


def read(sink: Path, name: str) -> NDArray[Any]:
    return np.asarray(zarr.open_array(sink, path=f"{name}/0", mode="r")[...])


def blob(shape: tuple[int, int]) -> NDArray[np.uint8]:
    """Return a mask that touches a part of the regions, with ragged edges."""
    y, x = np.indices(shape)
    return ((y - 0.3 * shape[0]) ** 2 + (x - 0.4 * shape[1]) ** 2 < (0.22 * shape[0]) ** 2).astype("u1")


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_inside_as_ever_and_background_outside(cluster: Cluster, tmp_path: Path, dtype: str) -> None:
    model, source = speckled(tmp_path), make_source(tmp_path, (300, 340))
    mask = write_array(tmp_path / "mask.zarr", blob((75, 85)))
    stages: list[str] = []

    def listen(event: Event) -> None:
        if isinstance(event, Stage):
            stages.append(event.name)

    every = {"client": cluster.client, "probability_dtype": dtype, **CUTS}
    segment_store(source, tmp_path / "all.zarr", model, products="classes,probabilities", **every)
    segment_store(
        source, tmp_path / "s.zarr", model, products="classes,probabilities,instances", mask=str(mask),
        on_event=listen, **every,
    )  # fmt: skip
    plan = plan_store(source, model, mask=str(mask), **CUTS)
    assert 0 < len(plan.skipped) < len(plan.grid)
    assert plan.tiles < plan_store(source, model, **CUTS).tiles
    assert stages[:3] == ["regions", "background", "objects across regions"]
    inside = blob((75, 85)).repeat(4, 0).repeat(4, 1).astype(bool)
    classes, found = read(tmp_path / "s.zarr", "classes"), read(tmp_path / "s.zarr", "probabilities")
    assert np.array_equal(classes, np.where(inside, read(tmp_path / "all.zarr", "classes"), 0))
    # Tiles fitted to the mask are others than those of the whole: the same but for rounding.
    of_all = read(tmp_path / "all.zarr", "probabilities")[:, inside].astype("f4")
    assert np.abs(found[:, inside] - of_all).max() <= (1 if dtype == "uint8" else 1e-5)
    sure = 254 if dtype == "uint8" else 1
    assert (found[0][~inside] == sure).all()
    assert (found[1][~inside] == 0).all()
    assert np.array_equal(read(tmp_path / "s.zarr", "instances"), flooded(classes, 2))


def test_the_result_does_not_depend_on_how_it_was_cut(cluster: Cluster, tmp_path: Path) -> None:
    model, source = speckled(tmp_path), make_source(tmp_path, (300, 340))
    mask = str(write_array(tmp_path / "mask.zarr", blob((75, 85))))
    for name, cut in (("a", CUTS), ("b", {**CUTS, "region": (320, 256), "tile": (32, 64)})):
        settings: dict[str, Any] = {"mask": mask, "precision": "float32", **cut}
        segment_store(source, tmp_path / f"{name}.zarr", model, client=cluster.client, **settings)
    assert np.array_equal(read(tmp_path / "a.zarr", "classes"), read(tmp_path / "b.zarr", "classes"))


def test_a_mask_of_a_plane_holds_for_all_planes(cluster: Cluster, tmp_path: Path) -> None:
    model, source = speckled(tmp_path), make_source(tmp_path, (2, 256, 300))
    mask = str(write_array(tmp_path / "mask.zarr", blob((64, 75))))
    segment_store(source, tmp_path / "s.zarr", model, client=cluster.client, mask=mask, memory="1GiB")
    segment_store(source, tmp_path / "all.zarr", model, client=cluster.client, memory="1GiB")
    inside = blob((64, 75)).repeat(4, 0).repeat(4, 1).astype(bool)
    expected = np.where(inside, read(tmp_path / "all.zarr", "classes"), 0)
    assert np.array_equal(read(tmp_path / "s.zarr", "classes"), expected)


def slide(folder: Path) -> tuple[Path, NDArray[np.bool_]]:
    """Write an RGB pyramid of glass with a blot of tissue; return it and where the tissue is."""
    rng = np.random.default_rng(0)
    tissue = blob((600, 700)).astype(bool)
    image = rng.normal(235, 4, (3, 600, 700))
    image += tissue * np.array([-30, -110, -40])[:, None, None] * rng.uniform(0.7, 1.3, (600, 700))
    values = np.clip(image, 0, 255).astype(np.uint8)
    group = zarr.create_group(folder / "slide.zarr")
    scales: list[Any] = []
    for level in range(3):
        part = values[:, :: 2**level, :: 2**level]
        array = group.create_array(str(level), shape=part.shape, chunks=(3, 64, 64), dtype="u1")
        array[...] = part
        scale = {"type": "scale", "scale": [1.0, 2.0**level, 2.0**level]}
        scales.append({"path": str(level), "coordinateTransformations": [scale]})
    axes: list[Any] = [{"name": "c", "type": "channel"}, *({"name": a, "type": "space"} for a in "yx")]
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": scales}]}
    return folder / "slide.zarr", tissue


def test_tissue_is_found_by_its_colour_on_a_coarse_level(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, tissue = slide(tmp_path)
    monkeypatch.setattr("unet_dask.io.source.mask._LARGEST_LEVEL", 150 * 175)
    source = open_source(path)
    mask = find_mask("auto", source)
    assert mask is not None
    assert (mask.rule, mask.shape) == ("tissue", (3, 150, 175))
    inside = mask.inside([(0, size) for size in source.shape])
    assert inside[tissue].all()
    assert inside.mean() < 1.6 * tissue.mean()


def test_where_colours_say_nothing_zero_is_empty(tmp_path: Path) -> None:
    image = np.zeros((300, 200), "u2")
    image[100:150, 50:80] = 7
    mask = find_mask("auto", open_source(write_array(tmp_path / "s.zarr", image)))
    assert mask is not None
    inside = mask.inside([(0, 1), (0, 300), (0, 200)])
    assert mask.rule == "nonzero"
    assert inside[98:152, 48:82].all()
    assert inside.sum() == 54 * 34


def test_resume_with_another_mask_is_refused(cluster: Cluster, tmp_path: Path) -> None:
    model, source = speckled(tmp_path), make_source(tmp_path, (300, 340))
    mask = str(write_array(tmp_path / "mask.zarr", blob((150, 170))))
    wanted = {"client": cluster.client, **CUTS}
    segment_store(source, tmp_path / "s.zarr", model, mask=mask, **wanted)
    before = tree(tmp_path / "s.zarr")
    with pytest.raises(MismatchError, match=r"another mask\."):
        segment_store(source, tmp_path / "s.zarr", model, resume=True, **wanted)
    segment_store(source, tmp_path / "s.zarr", model, mask=mask, resume=True, **wanted)
    assert tree(tmp_path / "s.zarr") == before


def test_tiles_that_are_fitted_otherwise_are_not_mixed(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, source = speckled(tmp_path), make_source(tmp_path, (300, 340))
    mask = str(write_array(tmp_path / "mask.zarr", blob((150, 170))))
    wanted = {"client": cluster.client, "mask": mask, **CUTS}
    segment_store(source, tmp_path / "s.zarr", model, **wanted)
    monkeypatch.setattr("unet_dask.planning.plan._FITTED", "in another way")
    with pytest.raises(MismatchError, match=r"another plan\.tiling: fitted 1 then, in another way now"):
        segment_store(source, tmp_path / "s.zarr", model, resume=True, **wanted)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((150, 100), "cannot be the same field"),
        ((700, 800), "cannot be the same field"),
        ((2, 150, 170), "cannot be the same field|has the axes"),
    ],
)
def test_a_mask_of_something_else_is_refused(tmp_path: Path, shape: tuple[int, ...], message: str) -> None:
    source = open_source(make_source(tmp_path, (300, 340)))
    mask = write_array(tmp_path / "mask.zarr", np.ones(shape, "u1"))
    with pytest.raises(InputError, match=message):
        open_mask(str(mask), source)


def test_no_level_to_look_at_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unet_dask.io.source.mask._LARGEST_LEVEL", 1000)
    with pytest.raises(InputError, match="--mask PATH"):
        find_mask("auto", open_source(make_source(tmp_path, (300, 340))))


def test_the_plan_of_a_mostly_empty_slide_costs_little_more_than_its_tissue(tmp_path: Path) -> None:
    source, model = tmp_path / "slide.zarr", make_model(tmp_path, width=16, depth=4)
    zarr.create_array(source, shape=(16384, 16384), chunks=(512, 512), dtype="u1")
    tissue = blob((256, 256))
    mask = write_array(tmp_path / "mask.zarr", tissue)
    whole = plan_store(source, model, memory="4GiB")
    part = plan_store(source, model, memory="4GiB", mask=str(mask))
    assert math.prod(part.tile) <= math.prod(whole.tile)  # many shapes need more of the heap
    assert part.memory.total <= part.limit
    assert tissue.mean() * whole.flop < part.flop < 1.25 * tissue.mean() * whole.flop


def test_the_plan_of_a_mask_is_the_work_that_is_done(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, source = speckled(tmp_path), make_source(tmp_path, (3, 300, 340))
    volume = np.stack([blob((75, 85)), np.zeros((75, 85)), np.eye(75, 85)]).astype("u1")
    mask = str(write_array(tmp_path / "mask.zarr", volume))
    cuts = {**CUTS, "chunks": (2, 64, 64)}
    plan = plan_store(source, model, mask=mask, **cuts)
    opened = find_mask(mask, open_source(source))
    assert opened is not None
    tiles = 0
    for index in plan.grid.indices():
        if index not in plan.skipped:
            inside = opened.inside(plan.grid.write(index))
            tiles += sum(len(_around(plane, plan.spatial, plan.header.network)) for plane in inside)
    assert plan.tiles == tiles
    monkeypatch.setattr(masked, "LOOKED_AT", 5)
    assert abs(plan_store(source, model, mask=mask, **cuts).tiles / tiles - 1) < 0.4


def test_a_full_region_is_waited_for_as_long_beside_specks_as_without_a_mask(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[float] = []

    def patience(flop: float, read: float, **_: bool) -> float:
        told.append(flop)
        return 900.0

    monkeypatch.setattr("unet_dask.workers.watchdog.patience", patience)
    source, model = make_source(tmp_path, (256, 512)), make_model(tmp_path)
    mask = np.zeros((256, 512), "u1")
    mask[:128, :128] = 1
    mask[5::128, 5::128] = 1  # a speck in every other region
    segment_store(source, tmp_path / "all.zarr", model, client=cluster.client, **CUTS)
    specks = str(write_array(tmp_path / "specks.zarr", mask))
    segment_store(source, tmp_path / "some.zarr", model, client=cluster.client, mask=specks, **CUTS)
    whole, masked_too = told
    assert masked_too == whole
    assert whole >= plan_store(source, model, **CUTS).flop / 8


@pytest.mark.parametrize("length", [61, 64, 333])
@pytest.mark.parametrize("width", [64, 77])
def test_cells_are_those_that_hold_anything(length: int, width: int) -> None:
    """Eight voxels are looked at at once where the lines allow it."""
    wanted = np.random.default_rng(0).random((length, width)) > 0.995
    starts = [0, 5, 6, 40, 60]
    for axis in (0, 1):
        ends = [*starts[1:], wanted.shape[axis]]
        expected = [
            wanted.take(range(start, stop), axis).any(axis) for start, stop in zip(starts, ends, strict=True)
        ]
        assert np.array_equal(_any_between(wanted, starts, axis), np.stack(expected, axis))


@pytest.mark.parametrize(
    ("shape", "factor"), [((700, 5), 4), ((5, 700), 4), ((333, 7), 5), ((2000, 3), 8), ((64, 17), 6)]
)
def test_a_mask_of_every_so_manieth_pixel_of_a_narrow_image_lies_where_it_was_taken(
    tmp_path: Path, shape: tuple[int, int], factor: int
) -> None:
    image = (np.random.default_rng(factor).random(shape) < 0.3).astype("u1")
    values = np.ascontiguousarray(image[::factor, ::factor])
    mask = open_mask(str(write_array(tmp_path / "m.zarr", values)), open_source(make_source(tmp_path, shape)))
    rows, columns = np.indices(shape) // factor
    inside = mask.inside([(0, 1), *((0, size) for size in shape)])
    assert np.array_equal(inside, values[rows, columns] != 0)


@pytest.mark.parametrize(("shape", "size"), [((379, 23), (127, 12)), ((1000, 1000), (100, 90))])
def test_a_mask_of_another_field_is_refused(
    tmp_path: Path, shape: tuple[int, int], size: tuple[int, int]
) -> None:
    path = write_array(tmp_path / "m.zarr", np.ones(size, "u1"))
    source = open_source(make_source(tmp_path, shape))
    with pytest.raises(InputError, match="cannot be the same field"):
        open_mask(str(path), source)
