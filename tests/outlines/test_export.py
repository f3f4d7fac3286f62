"""Exported results: polygons that QuPath reads and that fill to the label image, pictures that Fiji reads."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import imagecodecs
import numpy as np
import pytest
import shapely
import tifffile
from shapely.geometry import shape as geometry_of

import unet_dask
from tests.measuring.results import SIZE, blobs, relabelled, save_image, segmented, shape_of, stored
from unet_dask.errors import OptionError, SinkError
from unet_dask.measuring import spill

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from tests.conftest import Outcome
    from unet_dask.workers.cluster import Cluster


def noise(*shape: int) -> NDArray[Any]:
    return np.random.default_rng(0).integers(0, 4000, shape).astype(np.uint16)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, cluster: Cluster) -> Path:
    """Return a folder with an image of two levels, and a result of a part of the coarser one."""
    folder = tmp_path_factory.mktemp("exported")
    save_image(folder / "s.zarr", noise(300, 280), "yx", levels=2)
    segmented(folder / "s.zarr", folder / "r.zarr", tiny_model, cluster, level=1, roi="10:140,20:140")
    labels = blobs((130, 120), 2, share=0.5)
    labels[40:60, 30:90] = labels.max()  # with pieces that lie apart or touch at corners
    labels[(np.add.outer(np.arange(130), np.arange(120)) % 7) == 0] = 0
    relabelled(folder / "r.zarr", labels)
    return folder


def filled(geometry: Any, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Return the pixels whose centres lie in a geometry."""
    y, x = np.indices(shape) + 0.5
    return np.asarray(shapely.contains_xy(geometry, x, y))


def features(path: Path, kind: str = "detection") -> list[dict[str, Any]]:
    """Return the features of a file, each of which must be valid."""
    read = json.loads(path.read_text())
    assert read["type"] == "FeatureCollection"
    for feature in read["features"]:
        assert geometry_of(feature["geometry"]).is_valid
        assert feature["properties"]["objectType"] == kind
    return list(read["features"])


def test_polygons_fill_to_the_label_image_in_pixels_of_the_finest_level(made: Path, tmp_path: Path) -> None:
    exported = unet_dask.export(made / "r.zarr", tmp_path / "o.geojson")
    labels = np.zeros((300, 280), np.uint32)
    small = stored(made / "r.zarr", "instances")
    labels[20:280, 40:280] = small.repeat(2, axis=0).repeat(2, axis=1)
    again = np.zeros_like(labels)
    found = features(tmp_path / "o.geojson")
    assert exported.objects == len(found) == len(np.unique(small)) - 1
    assert {each["geometry"]["type"] for each in found} == {"Polygon", "MultiPolygon"}
    for feature in found:
        again[filled(geometry_of(feature["geometry"]), labels.shape)] = feature["properties"]["measurements"][
            "label"
        ]
    assert np.array_equal(again, labels)


def test_features_have_classes_and_the_measurements_of_the_table(made: Path, tmp_path: Path) -> None:
    unet_dask.export(made / "r.zarr", tmp_path / "o.geojson")
    table = unet_dask.measure(made / "r.zarr").columns
    assert table is not None
    for row, feature in enumerate(features(tmp_path / "o.geojson")):
        said = feature["properties"]
        assert said["name"] == str(table["label"][row])
        assert said["classification"]["name"] == "class 1"
        assert len(said["classification"]["color"]) == 3
        for name in ("area", "area_um2", "intensity_mean", "intensity_std"):
            assert said["measurements"][name] == table[name][row]
        assert geometry_of(feature["geometry"]).area == table["area"][row]


def test_file_is_the_same_when_records_are_put_aside(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unet_dask.export(made / "r.zarr", tmp_path / "a.geojson")
    monkeypatch.setattr(spill.Spill.__init__, "__kwdefaults__", {"folder": None, "limit": 3000})
    monkeypatch.setattr("unet_dask.outlines.collection._CORNERS", 3000)
    monkeypatch.setattr("unet_dask.measuring.finished._BLOCK", 32 * 32)
    unet_dask.export(made / "r.zarr", tmp_path / "b.geojson")
    assert (tmp_path / "a.geojson").read_bytes() == (tmp_path / "b.geojson").read_bytes()


def test_objects_of_planes_say_in_which_they_lie(tmp_path: Path, tiny_model: Path, cluster: Cluster) -> None:
    source = save_image(tmp_path / "s.zarr", noise(4, 60, 64), "zyx")
    sink = segmented(
        source, tmp_path / "r.zarr", tiny_model, cluster, roi="1:4,0:60,0:64", chunks=(1, 32, 32)
    )
    relabelled(sink, blobs((3, 60, 64), 2))
    unet_dask.export(sink, tmp_path / "o.geojson")
    labels = stored(sink, "instances")
    again = np.zeros_like(labels)
    for feature in features(tmp_path / "o.geojson"):
        plane = feature["geometry"]["plane"]
        assert (plane["c"], plane["t"]) == (-1, 0)
        pixels = filled(geometry_of(feature["geometry"]), labels.shape[1:])
        again[plane["z"] - 1][pixels] = feature["properties"]["measurements"]["label"]
    assert np.array_equal(again, labels)


def test_objects_in_three_dimensions_have_an_outline_in_every_plane(
    tmp_path: Path, make_model: Callable[..., Path], cluster: Cluster
) -> None:
    source = save_image(tmp_path / "s.zarr", noise(24, 40, 40), "zyx")
    model = make_model(tmp_path / "m.safetensors", dims=3)
    sink = segmented(source, tmp_path / "r.zarr", model, cluster, chunks=(8, 16, 16))
    relabelled(sink, blobs((24, 40, 40), 3))
    exported = unet_dask.export(sink, tmp_path / "o.geojson")
    labels = stored(sink, "instances")
    found = features(tmp_path / "o.geojson")
    wanted = sorted((label, z) for z, plane in enumerate(labels) for label in np.unique(plane) if label)
    keys = [(each["properties"]["measurements"]["label"], each["geometry"]["plane"]["z"]) for each in found]
    assert keys == wanted
    assert exported.objects == len(np.unique(labels)) - 1


@pytest.fixture
def result(made: Path, tmp_path: Path) -> Path:
    """Return a result of its own for a test."""
    shutil.copytree(made / "r.zarr", tmp_path / "r.zarr")
    return tmp_path / "r.zarr"


def test_result_without_objects_is_a_collection_of_none(result: Path, tmp_path: Path) -> None:
    relabelled(result, np.zeros(shape_of(result), np.uint32))
    assert unet_dask.export(result, tmp_path / "o.geojson").objects == 0
    assert features(tmp_path / "o.geojson") == []


@pytest.mark.parametrize("ending", ["geojson", "ome.tif", "png"])
def test_torn_and_unfinished_results_are_refused(
    result: Path, tmp_path: Path, call_cli: Callable[..., Outcome], ending: str
) -> None:
    chunk = next(path for path in sorted((result / "instances" / "0" / "c").rglob("*")) if path.is_file())
    chunk.unlink()
    place = tmp_path / f"o.{ending}"
    outcome = call_cli("export", result, "-o", place)
    assert (outcome.code, len(outcome.lines)) == (2, 1)
    assert "never written" in outcome.stderr
    (result / "_unet_dask" / "ledger.jsonl").unlink()
    outcome = call_cli("export", result, "-o", place)
    assert (outcome.code, len(outcome.lines)) == (2, 1)
    assert "is not finished" in outcome.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["r.zarr"]


def numbered(labels: NDArray[Any]) -> NDArray[Any]:
    """Return labels as numbers of the table's rows."""
    return np.unique(np.append(0, labels), return_inverse=True)[1][1:].reshape(labels.shape)


def test_tiff_has_tiles_sizes_and_numbers_of_rows(made: Path, tmp_path: Path) -> None:
    exported = unet_dask.export(made / "r.zarr", tmp_path / "o.ome.tif")
    labels = stored(made / "r.zarr", "instances")
    with tifffile.TiffFile(tmp_path / "o.ome.tif") as file:
        page: Any = file.pages[0]
        assert page.is_tiled
        assert file.series[0].axes == "YX"
        assert np.array_equal(file.asarray(), numbered(labels))
        assert page.dtype == np.uint16
        across, centimetre = page.tags["XResolution"].value
        assert across / centimetre == pytest.approx(10_000 / (2 * SIZE["x"]))
        assert f'PhysicalSizeY="{2 * SIZE["y"]}"' in (file.ome_metadata or "")
    assert exported.objects == len(np.unique(labels)) - 1


def test_stack_of_classes_is_a_tiff_of_planes(tmp_path: Path, tiny_model: Path, cluster: Cluster) -> None:
    source = save_image(tmp_path / "s.zarr", noise(3, 90, 100), "zyx")
    sink = segmented(source, tmp_path / "r.zarr", tiny_model, cluster, products="classes", chunks=(2, 32, 32))
    exported = unet_dask.export(sink, tmp_path / "c.tif", product="classes")
    assert exported.objects is None
    with tifffile.TiffFile(tmp_path / "c.tif") as file:
        assert file.series[0].axes == "ZYX"
        assert np.array_equal(file.asarray(), stored(sink, "classes"))
    with pytest.raises(OptionError, match="too many planes"):
        unet_dask.export(sink, tmp_path / "c.png", product="classes")
    with pytest.raises(SinkError, match="--products classes,instances"):
        unet_dask.export(sink, tmp_path / "c.geojson")


def test_png_is_the_plane(made: Path, tmp_path: Path) -> None:
    unet_dask.export(made / "r.zarr", tmp_path / "o.png")
    read = imagecodecs.png_decode((tmp_path / "o.png").read_bytes())
    assert np.array_equal(read, numbered(stored(made / "r.zarr", "instances")))


@pytest.mark.parametrize("limit", ["pixels", "objects"])
def test_png_of_too_much_is_refused(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    if limit == "pixels":
        monkeypatch.setattr("unet_dask.outlines.pictures._MOST_IN_PNG", 1000)
    else:
        monkeypatch.setattr("unet_dask.outlines.pictures._SHORT", 20)
    with pytest.raises(OptionError, match=r"Write \.ome\.tif"):
        unet_dask.export(made / "r.zarr", tmp_path / "o.png")
    if limit == "objects":
        unet_dask.export(made / "r.zarr", tmp_path / "o.tif")
        read = tifffile.imread(tmp_path / "o.tif")
        assert read.dtype == np.uint32
        assert np.array_equal(read, numbered(stored(made / "r.zarr", "instances")))


@pytest.mark.parametrize(
    ("name", "product", "word"),
    [
        ("o.jpg", "instances", "ends in .geojson, .ome.tif, .tif or .png"),
        ("o.geojson", "classes", "Use instances"),
        ("o.tif", "probabilities", "Use classes or instances"),
        ("o.tif", "nonsense", "Use classes or instances"),
        ("r.zarr/o.tif", "instances", "only read"),
    ],
)
def test_formats_and_places_of_no_export_are_refused(made: Path, name: str, product: str, word: str) -> None:
    with pytest.raises(OptionError, match=word):
        unet_dask.export(made / "r.zarr", made / name, product=product)


@pytest.mark.parametrize(
    ("name", "outlines", "word"),
    [("o.png", "annotations", "Only .geojson"), ("o.geojson", "cells", "Use detections or annotations")],
)
def test_kinds_of_no_outlines_are_refused(made: Path, name: str, outlines: str, word: str) -> None:
    with pytest.raises(OptionError, match=word):
        unet_dask.export(made / "r.zarr", made / name, outlines=outlines)


def test_command_says_what_was_written(made: Path, tmp_path: Path, call_cli: Callable[..., Outcome]) -> None:
    outcome = call_cli("export", made / "r.zarr", "-o", tmp_path / "o.geojson")
    assert outcome.code == 0
    assert "o.geojson" in outcome.stderr
    said = json.loads(call_cli("export", made / "r.zarr", "-o", tmp_path / "o.png", "--json").stdout)
    assert said["objects"] == len(features(tmp_path / "o.geojson"))
    call_cli("export", made / "r.zarr", "-o", tmp_path / "a.geojson", "--as", "annotations")
    assert len(features(tmp_path / "a.geojson", "annotation")) == said["objects"]
