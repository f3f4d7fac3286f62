"""Properties of a whole run: the same bytes for any workers, valid OME-Zarr, one network per worker."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
import zarr
from ome_zarr_models import open_ome_zarr
from ome_zarr_models.v05 import Image, ImageLabel

from tests.oracle import disagreement, whole_image, write_array
from unet_dask.dispatch import Failure
from unet_dask.engine.cache import NetworkKey
from unet_dask.engine.device import native_bfloat16
from unet_dask.errors import OptionError
from unet_dask.graph import RegionTask, WriteRegion
from unet_dask.io.sink.store import Sink
from unet_dask.model.file import load_model, new_model, save_model
from unet_dask.model.header import NetworkSpec, Normalisation
from unet_dask.pipeline import plan_store, segment_store
from unet_dask.run.events import Event, Progress
from unet_dask.workers.preflight import multiplies

if TYPE_CHECKING:
    from distributed import Future

    from unet_dask.graph import Record
    from unet_dask.model.file import Model
    from unet_dask.workers.cluster import Cluster

DATA = Path(__file__).parents[3] / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.exists(), reason="the real images are not here")


def make_model(folder: Path, **spec: int) -> Model:
    made = new_model(
        NetworkSpec(**({"width": 8, "depth": 2} | spec)),  # type: ignore[arg-type] # whole numbers all
        seed=1,
        normalisation=Normalisation("constant", (128.0,), (64.0,)),
    )
    save_model(made, folder / "model.safetensors")
    return load_model(folder / "model.safetensors")


def make_source(folder: Path, shape: tuple[int, ...] = (600, 700)) -> Path:
    image = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    write_array(folder / "source.zarr", image)
    return folder / "source.zarr"


def tree(folder: Path) -> dict[str, str]:
    """Return the digest of every file under a folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


CUTS: dict[str, Any] = {
    "region": (128, 128),
    "tile": (64, 128),
    "chunks": (64, 64),
    "products": "classes,probabilities",
}


def test_the_bytes_do_not_depend_on_the_number_of_workers(tmp_path: Path) -> None:
    model, source = make_model(tmp_path), make_source(tmp_path, (300, 340))
    trees = []
    for workers in (1, 3):
        sink = tmp_path / f"{workers}.zarr"
        segment_store(source, sink, model, workers=workers, threads=1, memory="1GiB", **CUTS)
        trees.append(tree(sink))
    assert trees[0] == trees[1]
    assert len(trees[0]) > 70


def test_each_worker_loads_one_network_and_tells_little(tmp_path: Path) -> None:
    model, source = make_model(tmp_path), make_source(tmp_path, (600, 640))
    records: list[Record] = []

    def keep(event: Event) -> None:
        if isinstance(event, Progress) and not isinstance(event.outcome, Failure):
            records.append(event.outcome)

    settings: dict[str, Any] = {"workers": 2, "memory": "1GiB", "precision": "float32", **CUTS}
    run = segment_store(source, tmp_path / "sink.zarr", model, on_event=keep, **settings)
    regions = [record for record in records if record.entry.level == 0]
    assert len(regions) == run.regions == 25
    assert len({record.worker for record in regions}) == 2
    assert {record.loads for record in regions} == {1}


def test_no_task_carries_a_weight(tmp_path: Path) -> None:
    from distributed.protocol.pickle import dumps

    model, source = make_model(tmp_path, width=64, depth=4), make_source(tmp_path)
    plan = plan_store(source, model)
    task = RegionTask(
        grid=plan.grid,
        outputs=plan.outputs,
        network=NetworkKey(str(model.path), model.checksum, "cpu", "float32"),
        normalisation=model.header.normalisation,
        spec=model.header.network,
        threads=1,
        nan="stop",
    )
    size = len(dumps(WriteRegion(task, Sink("sink.zarr", plan.arrays))))
    weights = sum(each.numel() for each in model.network.parameters()) * 4
    assert weights > 100e6
    assert size < 5000


@pytest.mark.skipif(native_bfloat16(), reason="this processor has bfloat16")
def test_bfloat16_is_not_emulated(tmp_path: Path, cluster: Cluster) -> None:
    with pytest.raises(OptionError, match=r"has no bfloat16.*--precision float32"):
        segment_store(
            make_source(tmp_path), tmp_path / "sink.zarr", make_model(tmp_path), client=cluster.client,
            precision="bfloat16",
        )  # fmt: skip
    assert not (tmp_path / "sink.zarr").exists()


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_every_worker_is_asked_for_bfloat16(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {"tcp://one": True, "tcp://two": False}
    monkeypatch.setattr("unet_dask.workers.preflight._asked", lambda client, function: answers)
    foreign: Any = SimpleNamespace(local=False, client=None)
    assert not multiplies(foreign, "bfloat16", device)
    assert multiplies(foreign, "float16", device)
    answers["tcp://two"] = True
    assert multiplies(foreign, "bfloat16", device)


@pytest.mark.skipif(native_bfloat16(), reason="this processor has bfloat16")
def test_float32_is_chosen_for_workers_without_bfloat16(
    tmp_path: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the client has it, so only what it would choose by itself is changed here."""
    monkeypatch.setattr(
        "unet_dask.run.prepare.choose_precision",
        lambda precision, *others: "bfloat16" if precision == "auto" else precision,
    )
    model, source = make_model(tmp_path), make_source(tmp_path)
    run = segment_store(source, tmp_path / "sink.zarr", model, client=cluster.client)
    assert run.plan.precision == "float32"


def ome_source(folder: Path) -> Path:
    """Make an OME-Zarr 0.5 image with spacing, unit and a corner."""
    group = zarr.create_group(folder / "image.ome.zarr")
    transforms: Any = [
        {"type": "scale", "scale": [0.5, 0.1, 0.1]},
        {"type": "translation", "translation": [10.0, 20.0, 30.0]},
    ]
    axes: Any = [{"name": name, "type": "space", "unit": "micrometer"} for name in "zyx"]
    group.attrs["ome"] = {
        "version": "0.5",
        "multiscales": [
            {
                "name": "em",
                "axes": axes,
                "datasets": [{"path": "s0", "coordinateTransformations": transforms}],
            }
        ],
    }
    array = group.create_array("s0", shape=(9, 130, 700), dtype="uint8", dimension_names=list("zyx"))
    array[...] = np.random.default_rng(0).integers(0, 256, array.shape).astype(np.uint8)
    return folder / "image.ome.zarr"


def transforms_of(multiscale: Any, level: int) -> Any:
    """Return scale and translation of a level."""
    return multiscale.datasets[level].coordinateTransformations


def test_every_product_is_a_valid_ome_zarr_that_keeps_spacing_and_place(
    cluster: Cluster, tmp_path: Path
) -> None:
    source, model = ome_source(tmp_path), make_model(tmp_path)
    segment_store(
        source, tmp_path / "sink.zarr", model, client=cluster.client, memory="1GiB", roi="2:9,16:130,0:700",
        products="classes,probabilities",
    )  # fmt: skip
    classes = open_ome_zarr(zarr.open_group(tmp_path / "sink.zarr", path="classes", mode="r"))
    probabilities = open_ome_zarr(zarr.open_group(tmp_path / "sink.zarr", path="probabilities", mode="r"))
    assert isinstance(classes, ImageLabel)
    assert isinstance(probabilities, Image)
    (scale,) = classes.attributes.ome.multiscales
    assert [axis.name for axis in scale.axes] == ["z", "y", "x"]
    assert {axis.unit for axis in scale.axes} == {"micrometer"}
    first, corner = transforms_of(scale, 0)
    assert first.scale == [0.5, 0.1, 0.1]
    assert corner.translation == pytest.approx([11.0, 21.6, 30.0])
    assert len(scale.datasets) == 2
    second = transforms_of(scale, 1)
    assert second[0].scale == pytest.approx([0.5, 0.2, 0.2])
    assert second[1].translation == pytest.approx([11.0, 21.65, 30.05])


def test_the_pyramid_is_a_vote_over_classes(cluster: Cluster, tmp_path: Path) -> None:
    model, source = make_model(tmp_path), make_source(tmp_path)
    segment_store(source, tmp_path / "sink.zarr", model, client=cluster.client, memory="1GiB")
    group = zarr.open_group(tmp_path / "sink.zarr" / "classes", mode="r")
    fine, coarse = (np.asarray(zarr.open_array(group.store_path / level, mode="r")[...]) for level in "01")
    votes = fine.reshape(300, 2, 350, 2).sum(axis=(1, 3))
    assert np.array_equal(coarse, (votes > 2).astype(np.uint8))


def test_no_sentinel_is_left_in_a_finished_run(cluster: Cluster, tmp_path: Path) -> None:
    model, source = make_model(tmp_path), make_source(tmp_path, (130, 90))
    segment_store(
        source,
        tmp_path / "sink.zarr",
        model,
        client=cluster.client,
        memory="1GiB",
        products="classes,probabilities",
    )
    group = zarr.open_group(tmp_path / "sink.zarr", mode="r")
    assert zarr.open_array(group.store_path / "classes/0", mode="r").fill_value == 255
    assert np.asarray(zarr.open_array(group.store_path / "classes/0", mode="r")[...]).max() < 2
    assert np.isfinite(np.asarray(zarr.open_array(group.store_path / "probabilities/0", mode="r")[...])).all()


def test_an_existing_client_is_used_and_left_open(cluster: Cluster, tmp_path: Path) -> None:
    model, source = make_model(tmp_path), make_source(tmp_path, (130, 90))
    segment_store(source, tmp_path / "sink.zarr", model, client=cluster.client, memory="1GiB")
    assert cluster.client.status == "running"


def test_an_interrupted_run_leaves_no_work_behind(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Work in flight is cancelled while there is still a cluster to tell, not when the last frame is forgotten."""
    cancelled: list[object] = []
    cancel = cluster.client.cancel

    def noted(futures: list[Future], **options: bool) -> None:
        cancelled.extend(futures)
        cancel(futures, **options)

    monkeypatch.setattr(cluster.client, "cancel", noted)

    def interrupt(event: Event) -> None:
        if isinstance(event, Progress):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        segment_store(
            make_source(tmp_path, (1200, 1100)), tmp_path / "out.zarr", make_model(tmp_path),
            client=cluster.client, region=(512, 512), on_event=interrupt,
        )  # fmt: skip
    assert caught.tb is not None  # and with it every frame of the run: nothing was closed by being forgotten
    assert len(cancelled) >= 1


def test_a_sink_replaced_with_other_chunks_is_written_by_the_new_ones(
    cluster: Cluster, tmp_path: Path
) -> None:
    model, source = make_model(tmp_path), make_source(tmp_path, (130, 150))
    found = []
    for chunks in ((64, 64), (32, 48)):
        segment_store(
            source,
            tmp_path / "sink.zarr",
            model,
            client=cluster.client,
            memory="1GiB",
            overwrite=True,
            chunks=chunks,
        )
        found.append(np.asarray(zarr.open_array(tmp_path / "sink.zarr/classes/0", mode="r")[...]))
    assert np.array_equal(found[0], found[1])


def test_a_model_that_was_never_saved_is_run(cluster: Cluster, tmp_path: Path) -> None:
    model = replace(make_model(tmp_path), path=None)
    segment_store(
        make_source(tmp_path, (130, 90)), tmp_path / "sink.zarr", model, client=cluster.client, memory="1GiB"
    )


def test_weights_changed_in_memory_are_the_ones_that_run(cluster: Cluster, tmp_path: Path) -> None:
    model, source = make_model(tmp_path), make_source(tmp_path, (130, 90))
    with torch.no_grad():
        for parameter in model.network.get_submodule("classify").parameters():
            parameter.mul_(0.5).add_(0.01)
    settings: dict[str, Any] = {"memory": "1GiB", "products": "probabilities", "precision": "float32"}
    segment_store(source, tmp_path / "sink.zarr", model, client=cluster.client, **settings)
    found = np.asarray(zarr.open_array(tmp_path / "sink.zarr/probabilities/0", mode="r")[...])
    image = np.asarray(zarr.open_array(source, mode="r")[...])
    assert disagreement(found, whole_image(model, image[None])) <= 1e-5


@needs_data
@pytest.mark.parametrize("version", ["v0.4", "v0.5"])
def test_real_ome_zarr_is_segmented(version: str, cluster: Cluster, tmp_path: Path) -> None:
    name = {"v0.4": "CMU-1-Small-Region.ome.zarr", "v0.5": "isbi2012_z00-z09_v0.5.ome.zarr"}[version]
    roi = {"v0.4": "0:1,1000:1300,800:1200", "v0.5": "3:5,100:300,0:512"}[version]
    model = make_model(tmp_path)
    segment_store(
        DATA / "ome_zarr" / name, tmp_path / "sink.zarr", model, client=cluster.client, memory="1GiB", roi=roi,
        channels=(0,) if version == "v0.4" else None, products="probabilities",
    )  # fmt: skip
    found = zarr.open_array(tmp_path / "sink.zarr" / "probabilities" / "0", mode="r")
    assert np.isfinite(np.asarray(found[...])).all()
    assert isinstance(
        open_ome_zarr(zarr.open_group(tmp_path / "sink.zarr", path="probabilities", mode="r")), Image
    )
