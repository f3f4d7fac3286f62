"""What docs/training.md says of corrected results, done: segment, export, edit as napari does, train on."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile
import zarr

import unet_dask
from tests.measuring.results import save_image
from unet_dask.model.file import inspect_model

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from tests.conftest import Outcome
    from unet_dask.workers.cluster import Cluster

BRIEFLY = ("--iterations", "1", "--validate-every", "1", "--tile", "40", "--device", "cpu", "--json")


@pytest.fixture
def discs() -> NDArray[np.uint8]:
    """Return an image of bright discs on a dark ground."""
    y, x = np.indices((120, 140))
    image = np.full(y.shape, 20, np.uint8)
    for row, column in ((30, 30), (30, 100), (85, 60), (90, 115)):
        image[np.hypot(y - row, x - column) < 14] = 200
    return image


def edited(labels: NDArray[Any]) -> NDArray[Any]:
    """Return a label image as somebody leaves it who takes an object out and paints another, with the next number."""
    labels = labels.copy()
    labels[labels == np.unique(labels)[1]] = 0
    labels[50:70, 90:110] = labels.max() + 1
    return labels


def trained(run: Callable[..., Outcome], *arguments: str | Path) -> Path:
    outcome = run("train", *arguments, *BRIEFLY)
    assert outcome.code == 0, outcome.stderr
    return inspect_model(json.loads(outcome.stdout)["model"]).path


def in_pictures(
    folder: Path, discs: NDArray[np.uint8], segmented: Callable[[Path], Path]
) -> list[str | Path]:
    """Correct a picture of the objects, saved over a copy; return what `train` is told of it."""
    for name in ("images", "targets"):
        (folder / name).mkdir()
    image, copy = folder / "images" / "field.tif", folder / "targets" / "field.tif"
    tifffile.imwrite(image, discs)
    unet_dask.export(segmented(image), copy)
    labels = edited(tifffile.imread(copy))
    tifffile.imwrite(
        copy, labels, compression="zlib", compressionargs={"level": 1}
    )  # as napari's own writer does
    return [image.parent, copy.parent]


def in_the_image(
    folder: Path, discs: NDArray[np.uint8], segmented: Callable[[Path], Path]
) -> list[str | Path]:
    """Correct labels in the image itself; return what `train` is told of it."""
    source = save_image(folder / "field.zarr", discs, "yx")
    unet_dask.export_labels(segmented(source), source, name="corrected")
    layer: Any = zarr.open_array(str(source / "labels" / "corrected" / "0"), mode="r+")
    layer[...] = edited(layer[...])
    return [source, source, "--key", "0", "--target-key", "labels/corrected/0"]


@pytest.mark.parametrize("corrected", [in_pictures, in_the_image])
def test_objects_that_napari_edits_are_targets(
    corrected: Callable[..., list[str | Path]],
    discs: NDArray[np.uint8],
    tmp_path: Path,
    tiny_model: Path,
    cluster: Cluster,
    call_cli: Callable[..., Outcome],
) -> None:
    def segmented(source: Path) -> Path:
        sink = tmp_path / "field.seg.zarr"
        unet_dask.segment_store(source, sink, tiny_model, client=cluster.client, products="classes,instances")
        return sink

    better = trained(
        call_cli, *corrected(tmp_path, discs, segmented), "-o", tmp_path / "better.safetensors",
        "--start", tiny_model, "--target-kind", "instances",
    )  # fmt: skip
    record: Any = inspect_model(better).header.training
    assert record["started_from"] == inspect_model(tiny_model).checksum
    assert record["target_kind"] == "instances"


def test_training_on_goes_on_with_the_cores_of_the_model(
    discs: NDArray[np.uint8], tmp_path: Path, call_cli: Callable[..., Outcome]
) -> None:
    for folder in ("images", "targets"):
        (tmp_path / folder).mkdir()
    tifffile.imwrite(tmp_path / "images" / "field.tif", discs)
    tifffile.imwrite(tmp_path / "targets" / "field.tif", edited((discs > 99).astype(np.uint16)))
    places = (tmp_path / "images", tmp_path / "targets")
    settings = "core = 2\nclasses = 3\ntarget_kind = 'instances'\nwidth = 4\ndepth = 2\n"
    (tmp_path / "cores.toml").write_text(settings)
    first = trained(
        call_cli, *places, "-o", tmp_path / "first.safetensors", "--config", tmp_path / "cores.toml"
    )
    again = trained(call_cli, *places, "-o", tmp_path / "again.safetensors", "--start", first)
    record: Any = inspect_model(again).header.training
    assert record["recipe"]["core"] == 2
    assert inspect_model(again).header.objects.core == 2
