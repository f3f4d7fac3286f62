"""Objects of a volume are those of the whole, whatever it was cut into, killed at, or done by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile
import torch
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from ome_zarr_models import open_ome_zarr
from ome_zarr_models.v05 import ImageLabel

from tests.objects.slow import flooded
from tests.run.test_run import make_model, make_source, tree
from unet_dask.errors import OptionError
from unet_dask.evaluation.evaluate import EvaluateConfig, evaluate
from unet_dask.model.file import Model, load_model, save_model, tensor_checksum
from unet_dask.objects.pieces import merged, numbered, renumbered, touching
from unet_dask.picture.preview import preview
from unet_dask.pipeline import plan_store, segment_store
from unet_dask.products.instances import number_type
from unet_dask.run.edges import faces
from unet_dask.run.events import Event, Progress
from unet_dask.run.finish import by_region
from unet_dask.tiling.region import AxisGrid, RegionGrid
from unet_dask.tiling.valid import Context

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from unet_dask.workers.cluster import Cluster

CUTS: dict[str, Any] = {"region": (128, 128), "tile": (64, 128), "chunks": (64, 64)}


def speckled(folder: Path, **spec: int) -> Model:
    """Return a network that finds many small objects of every class in noise."""
    model = make_model(folder, **spec)
    network, dims = model.network, model.header.network.dims
    side = {2: 196, 3: 44}[dims]
    noise = np.random.default_rng(0).integers(0, 256, (1, *(side,) * dims)).astype(np.uint8)
    with torch.inference_mode():
        logits = network(torch.from_numpy(model.normalise(noise))[None])[0].flatten(1)
        shift = logits.median(dim=1).values
        shift[0] -= 0.5 * float((logits[1] - logits[0]).std())
        network.get_parameter("classify.bias").sub_(shift)
    save_model(Model(network, model.header, tensor_checksum(network.state_dict())), folder / "m.safetensors")
    return load_model(folder / "m.safetensors")


@st.composite
def cut_volumes(draw: st.DrawFn) -> tuple[NDArray[np.uint8], int, RegionGrid]:
    """Return a volume of up to three classes, the dimensions of a network, and regions."""
    dims = draw(st.sampled_from([2, 3]))
    ndim = draw(st.integers(dims, 3))
    shape = tuple(draw(st.integers(1, 9)) for _ in range(ndim))
    seed, density = draw(st.integers(0, 2**32 - 1)), draw(st.sampled_from([0.3, 0.6, 0.8]))
    rng = np.random.default_rng(seed)
    classes = (rng.random(shape) < density) * rng.integers(1, draw(st.integers(2, 3)), shape)
    starts = tuple(draw(st.integers(0, 5)) for _ in shape)
    grids = [
        AxisGrid(start + side + 2, start, start + side, draw(st.integers(1, side)), 1, Context())
        for start, side in zip(starts, shape, strict=True)
    ]
    axes = {2: "cyx", 3: "czyx"}[ndim]
    return classes.astype(np.uint8), dims, RegionGrid(axes, (AxisGrid(1, 0, 1, 1, 1, Context()), *grids))


@settings(max_examples=300, deadline=None)
@given(cut_volumes())
def test_pieces_of_any_regions_join_to_the_objects_of_the_whole(
    case: tuple[NDArray[np.uint8], int, RegionGrid],
) -> None:
    classes, dims, grid = case
    dtype = number_type(classes.shape)
    found = np.zeros(classes.shape, dtype)
    windows = {
        index: grid.box(index).relative_to(grid.whole).in_space_and_time.slices for index in grid.indices()
    }
    for window in windows.values():
        start = [part.start for part in window]
        found[window] = numbered(classes[window], start=start, shape=classes.shape, dims=dims, dtype=dtype)
    pairs = [np.empty((0, 2), np.uint64)]
    for index in grid.indices():
        for across, box, _ in faces(grid, index, dims):
            one, two = (
                np.moveaxis(values[box.slices], box.axes.index(across), 0) for values in (found, classes)
            )
            pairs.append(touching(one[0], one[1], two[0], two[1]))
    changes = by_region(grid, *merged(np.concatenate(pairs)))
    for index, change in changes.items():
        found[windows[index]] = renumbered(found[windows[index]], *change)
    assert np.array_equal(found, flooded(classes, dims))


def test_numbers_fit_their_type_with_background_and_sentinel() -> None:
    assert number_type((2**16, 2**16 - 1)) == "uint32"
    assert number_type((2**16, 2**16)) == "uint64"


def objects(sink: Path) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return classes and objects of a result."""
    names = ("classes/0", "instances/0")
    return tuple(np.asarray(zarr.open_array(sink, path=name, mode="r")[...]) for name in names)  # type: ignore[return-value] # two


def test_objects_of_a_run_do_not_depend_on_how_it_was_cut(cluster: Cluster, tmp_path: Path) -> None:
    model, source = speckled(tmp_path), make_source(tmp_path, (300, 340))
    wanted = {"products": "classes,instances", "memory": "1GiB", "client": cluster.client}
    segment_store(source, tmp_path / "cut.zarr", model, **CUTS, **wanted)
    segment_store(source, tmp_path / "whole.zarr", model, **wanted)
    classes, cut = objects(tmp_path / "cut.zarr")
    assert len(plan_store(source, model, **CUTS).grid) == 9
    assert len(np.unique(cut)) > 20
    assert np.array_equal(cut, flooded(classes, 2))
    assert np.array_equal(cut, objects(tmp_path / "whole.zarr")[1])
    assert open_ome_zarr(tmp_path / "cut.zarr" / "instances").__class__ is ImageLabel


def test_numbers_count_within_the_region_of_interest(cluster: Cluster, tmp_path: Path) -> None:
    model, source = speckled(tmp_path), make_source(tmp_path, (300, 340))
    segment_store(
        source, tmp_path / "s.zarr", model, client=cluster.client, roi="30:222,50:330", memory="1GiB",
        products="classes,instances", **CUTS,
    )  # fmt: skip
    classes, found = objects(tmp_path / "s.zarr")
    assert np.array_equal(found, flooded(classes, 2))


def test_planes_of_a_two_dimensional_network_have_objects_of_their_own(
    cluster: Cluster, tmp_path: Path
) -> None:
    model, source = speckled(tmp_path), make_source(tmp_path, (3, 128, 128))
    segment_store(
        source, tmp_path / "s.zarr", model, client=cluster.client, products="classes,instances", memory="1GiB"
    )
    classes, found = objects(tmp_path / "s.zarr")
    assert np.array_equal(found, flooded(classes, 2))
    assert not set(np.unique(found[0])) & set(np.unique(found[1])) - {0}


def test_objects_in_three_dimensions(cluster: Cluster, tmp_path: Path) -> None:
    model, source = speckled(tmp_path, dims=3, width=4, depth=1), make_source(tmp_path, (40, 48, 56))
    segment_store(
        source, tmp_path / "s.zarr", model, client=cluster.client, products="classes,instances",
        memory="1GiB", region=(16, 16, 32), chunks=(16, 16, 16),
    )  # fmt: skip
    classes, found = objects(tmp_path / "s.zarr")
    assert np.array_equal(found, flooded(classes, 3))


def test_objects_of_several_classes_need_and_respect_them(cluster: Cluster, tmp_path: Path) -> None:
    model, source = speckled(tmp_path, classes=3), make_source(tmp_path, (300, 340))
    with pytest.raises(OptionError, match="--products classes,instances"):
        plan_store(source, model, products="instances")
    segment_store(
        source, tmp_path / "s.zarr", model, client=cluster.client, products="classes,instances",
        memory="1GiB", **CUTS,
    )  # fmt: skip
    classes, found = objects(tmp_path / "s.zarr")
    assert set(np.unique(classes)) == {0, 1, 2}
    assert np.array_equal(found, flooded(classes, 2))


def interrupted_and_resumed(model: Model, folder: Path, cluster: Cluster, after: int) -> bool:
    """Return whether a run that is interrupted after so many pieces of work, and resumed, ends like another."""
    source = make_source(folder, (300, 340))
    wanted = {"products": "instances", "memory": "1GiB", "client": cluster.client, **CUTS}
    segment_store(source, folder / "whole.zarr", model, **wanted)

    def listen(event: Event) -> None:
        if isinstance(event, Progress) and event.done == after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        segment_store(source, folder / "s.zarr", model, on_event=listen, **wanted)
    segment_store(source, folder / "s.zarr", model, resume=True, **wanted)
    return bool(tree(folder / "s.zarr") == tree(folder / "whole.zarr"))


@pytest.mark.parametrize("after", [1, 4, 10, 13, 17])
def test_interrupted_while_objects_are_joined_resumes_to_the_same_bytes(
    cluster: Cluster, tmp_path: Path, after: int
) -> None:
    assert interrupted_and_resumed(speckled(tmp_path), tmp_path, cluster, after)


def test_renumbered_but_not_recorded_is_as_good_as_not_done(cluster: Cluster, tmp_path: Path) -> None:
    # Killed after the last region was renumbered and before the ledger heard of any.
    model, source = speckled(tmp_path), make_source(tmp_path, (300, 340))
    wanted = {"products": "instances", "memory": "1GiB", "client": cluster.client, **CUTS}
    sink = tmp_path / "s.zarr"
    segment_store(source, sink, model, **wanted)
    whole, ledger = tree(sink), sink / "_unet_dask" / "ledger.jsonl"
    lines = ledger.read_text().splitlines(keepends=True)
    ledger.write_text("".join(line for line in lines if '"level": -1' not in line))
    assert tree(sink) != whole
    segment_store(source, sink, model, resume=True, **wanted)
    assert tree(sink) == whole


def test_objects_are_drawn_and_scored(cluster: Cluster, tmp_path: Path) -> None:
    model, source, sink = speckled(tmp_path), make_source(tmp_path, (128, 128)), tmp_path / "s.zarr"
    segment_store(source, sink, model, client=cluster.client, products="instances,classes", memory="1GiB")
    shown = preview(sink, tmp_path / "p.png")
    assert shown.unwritten == 0
    assert (tmp_path / "p.png").stat().st_size > 10_000
    truth = objects(sink)[1] + (1 << 31)  # numbers of another kind: only which pixels they share may matter
    truth[objects(sink)[1] == 0] = 0
    tifffile.imwrite(tmp_path / "truth.tif", truth.astype(np.uint32))
    config = EvaluateConfig(metrics=("seg", "f1"), product="instances")
    scores = evaluate(sink, tmp_path / "truth.tif", config=config).scores
    assert {each.name: each.value for each in scores if each.name in ("seg", "f1")} == {"seg": 1.0, "f1": 1.0}
