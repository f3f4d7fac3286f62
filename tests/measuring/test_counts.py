"""Objects are counted per area of what was segmented: of the mask, if a run had one."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import zarr
from skimage.measure import regionprops_table

import unet_dask
from tests.measuring.results import SIZE, blobs, relabelled, save_image, segmented
from unet_dask.io.sink.place import sealed
from unet_dask.measuring.block import block_sums, pixel_rows
from unet_dask.measuring.columns import columns_of
from unet_dask.measuring.frame import Frame
from unet_dask.measuring.sums import Layout
from unet_dask.measuring.tally import Tally

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from unet_dask.workers.cluster import Cluster


def noise(*shape: int) -> NDArray[Any]:
    return np.random.default_rng(0).integers(0, 4000, shape).astype(np.uint16)


def test_planes_are_counted_per_area_of_the_mask(tmp_path: Path, tiny_model: Path, cluster: Cluster) -> None:
    source = save_image(tmp_path / "s.zarr", noise(3, 64, 64), "zyx")
    inside = np.ones((3, 64, 64), np.uint8)
    inside[1, 16:] = 0
    zarr.create_array(str(tmp_path / "m.zarr"), data=inside, dimension_names=["z", "y", "x"])
    mask = str(tmp_path / "m.zarr")
    sink = segmented(source, tmp_path / "r.zarr", tiny_model, cluster, mask=mask, chunks=(3, 32, 32))
    relabelled(sink, blobs((3, 64, 64), 2) * (inside > 0))
    found = unet_dask.measure(sink)
    square = SIZE["y"] * SIZE["x"] / 1e6
    for plane, rows in zip(found.planes, (64, 16, 64), strict=True):
        assert plane.extent == pytest.approx(rows * 64 * square)
    assert found.extent == pytest.approx(144 * 64 * square)


def test_objects_are_counted_per_area_of_the_mask(tmp_path: Path, tiny_model: Path, cluster: Cluster) -> None:
    source = save_image(tmp_path / "s.zarr", noise(128, 128), "yx")
    inside = np.zeros((32, 32), np.uint8)
    inside[:10, :16] = 1
    zarr.create_array(str(tmp_path / "m.zarr"), data=inside, dimension_names=["y", "x"])
    sink = segmented(source, tmp_path / "r.zarr", tiny_model, cluster, mask=str(tmp_path / "m.zarr"))
    relabelled(sink, blobs((128, 128), 2))
    found = unet_dask.measure(sink)
    assert found.extent == pytest.approx(10 * 16 * 16 * SIZE["y"] * SIZE["x"] / 1e6)
    assert found.masked
    shutil.rmtree(tmp_path / "m.zarr")
    alone = unet_dask.measure(sink)
    assert alone.extent == pytest.approx(128 * 128 * SIZE["y"] * SIZE["x"] / 1e6)
    assert "mask" in alone.notes[0]


def test_objects_that_grew_from_cores_are_of_the_class_of_the_core() -> None:
    layout, labels = Layout("yx", certain=2), np.array([[5, 5, 5, 0, 9]], np.uint32)
    certain = np.array(
        [[[0.6, 0.2, 0.6, 0, 0.1]], [[0.2, 0.6, 0.2, 0, 0.7]]], np.float32
    )  # the rim, and the core
    rows = block_sums(pixel_rows(labels), (0, 0), layout, certain=certain)
    frame, names = Frame("yx", 2, (1, 5), (0, 0), (1, 1)), ("background", "rim", "nucleus")
    table = columns_of(rows, frame, names, (), core=2)
    assert table["class"].tolist() == ["nucleus", "nucleus"]
    np.testing.assert_allclose(table["probability_mean"], [0.8, 0.8], rtol=1e-6)
    tally = Tally(frame, names, core=2)
    tally.count(rows)
    assert tally.by_class == {"nucleus": 2}


def test_objects_linked_across_planes_have_a_volume(
    tmp_path: Path, tiny_model: Path, cluster: Cluster
) -> None:
    source = save_image(tmp_path / "s.zarr", noise(12, 60, 70), "zyx")
    sink = segmented(source, tmp_path / "r.zarr", tiny_model, cluster, chunks=(4, 32, 32))
    labels = blobs((12, 60, 70), 3)
    relabelled(sink, labels)
    place = sink / "_unet_dask" / "zarr.json"
    document = json.loads(place.read_text())
    manifest = document["attributes"]["unet_dask"]
    manifest["fingerprint"]["plan.objects"] = (
        '{"fill_holes": false, "linked": 0.5, "min_size": 0, "split": 0.0}'
    )
    document["attributes"]["unet_dask"] = sealed(manifest)
    place.write_text(json.dumps(document))
    found = unet_dask.measure(sink)
    expected: Any = regionprops_table(labels.astype(np.int64), properties=("label", "area", "centroid"))
    assert found.columns is not None
    assert np.array_equal(found.columns["label"], expected["label"])
    assert np.array_equal(found.columns["area"], expected["area"])
    np.testing.assert_allclose(found.columns["centroid-z"], expected["centroid-0"])
    assert found.unit == "um3"
    assert "z" not in found.columns
    assert found.planes == ()
