"""The table of a result agrees with scikit-image, in pixels and micrometres of the source."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from skimage.measure import regionprops_table

import unet_dask
from tests.measuring.results import SIZE, blobs, relabelled, save_image, segmented, shape_of, stored
from unet_dask.errors import InputError, OptionError, SinkError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from tests.conftest import Outcome
    from unet_dask.workers.cluster import Cluster

NUCLEI = Path(__file__).parents[3] / "shared" / "data" / "nuclei_cc0" / "images"
PROPERTIES = (
    "label",
    "area",
    "centroid",
    "bbox",
    "intensity_mean",
    "intensity_min",
    "intensity_max",
    "intensity_std",
)


def noise(*shape: int, dtype: str = "uint16") -> NDArray[Any]:
    return np.random.default_rng(0).integers(0, 4000, shape).astype(dtype)


@pytest.fixture(scope="module")
def image() -> NDArray[Any]:
    return noise(3, 300, 280)


@pytest.fixture(scope="module")
def made(
    tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, cluster: Cluster, image: NDArray[Any]
) -> Path:
    """Return a folder with an image of three channels, and a result of a part of the second one."""
    folder = tmp_path_factory.mktemp("measured")
    save_image(folder / "s.zarr", image, "cyx")
    segmented(folder / "s.zarr", folder / "r.zarr", tiny_model, cluster, roi="20:290,30:280", channels="1")
    relabelled(folder / "r.zarr", blobs((270, 250), 2))
    return folder


@pytest.fixture
def result(made: Path, tmp_path: Path) -> Path:
    """Return a result of its own for a test, beside its source; what it names is the one that all share."""
    shutil.copytree(made / "r.zarr", tmp_path / "r.zarr")
    return tmp_path / "r.zarr"


def wanted(labels: NDArray[Any], image: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Return the table of scikit-image; grey values of (c, *space)."""
    found: dict[str, NDArray[Any]] = regionprops_table(
        labels.astype(np.int64), np.moveaxis(image, 0, -1), properties=PROPERTIES
    )
    return found


def test_table_agrees_with_scikit_image_on_the_whole(made: Path, image: NDArray[Any]) -> None:
    found = unet_dask.measure(made / "r.zarr")
    table, labels = found.columns, stored(made / "r.zarr", "instances")
    assert table is not None
    expected = wanted(labels, image[:, 20:290, 30:280])
    assert found.objects == len(expected["label"]) > 40
    assert found.notes == ()
    assert np.array_equal(table["label"], expected["label"])
    assert np.array_equal(table["area"], expected["area"])
    assert set(table["class"]) == {"class 1"}
    for number, (axis, corner) in enumerate((("y", 20), ("x", 30))):
        assert np.array_equal(table[f"bbox_min-{axis}"], expected[f"bbox-{number}"] + corner)
        assert np.array_equal(table[f"bbox_max-{axis}"], expected[f"bbox-{number + 2}"] + corner)
        centre = expected[f"centroid-{number}"] + corner
        np.testing.assert_allclose(table[f"centroid-{axis}"], centre, rtol=1e-12)
        np.testing.assert_allclose(table[f"centroid_um-{axis}"], centre * SIZE[axis], rtol=1e-12)
    np.testing.assert_allclose(table["area_um2"], expected["area"] * SIZE["y"] * SIZE["x"])
    for name in ("mean", "min", "max", "std"):
        for channel in range(3):
            np.testing.assert_allclose(
                table[f"intensity_{name}-{channel}"], expected[f"intensity_{name}-{channel}"], rtol=1e-12
            )
    edge = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    assert np.array_equal(table["touches_border"], np.isin(table["label"], edge))
    square = 270 * 250 * SIZE["y"] * SIZE["x"] / 1e6
    assert found.density == pytest.approx(found.objects / square)
    assert found.median == np.median(expected["area"])


def test_level_of_a_pyramid_is_told_in_pixels_of_the_finest(
    tmp_path: Path, tiny_model: Path, cluster: Cluster
) -> None:
    image = noise(200, 230)
    source = save_image(tmp_path / "s.zarr", image, "yx", levels=2)
    sink = segmented(source, tmp_path / "r.zarr", tiny_model, cluster, level=1, roi="10:90,0:100")
    labels = blobs((80, 100), 2)
    relabelled(sink, labels)
    table = unet_dask.measure(sink).columns
    assert table is not None
    # Every pixel of the level is four of the finest one.
    fine = np.zeros((200, 230), np.int64)
    fine[20:180, :200] = labels.repeat(2, axis=0).repeat(2, axis=1)
    expected: Any = regionprops_table(fine, properties=("label", "area", "centroid", "bbox"))
    assert np.array_equal(table["area"], expected["area"])
    assert table["area"].dtype.kind == "i"
    for number, axis in enumerate("yx"):
        np.testing.assert_allclose(table[f"centroid-{axis}"], expected[f"centroid-{number}"], rtol=1e-12)
        assert np.array_equal(table[f"bbox_max-{axis}"], expected[f"bbox-{number + 2}"])
    np.testing.assert_allclose(table["area_um2"], expected["area"] * SIZE["y"] * SIZE["x"])
    small = image[::2, ::2][10:90, :100]
    means: Any = regionprops_table(labels.astype(np.int64), small, properties=("intensity_mean",))
    np.testing.assert_allclose(table["intensity_mean"], means["intensity_mean"])


def test_planes_of_a_stack_have_objects_of_their_own(
    tmp_path: Path, tiny_model: Path, cluster: Cluster
) -> None:
    image = noise(4, 90, 100)
    source = save_image(tmp_path / "s.zarr", image, "zyx")
    sink = segmented(
        source, tmp_path / "r.zarr", tiny_model, cluster, roi="1:4,0:90,0:100", chunks=(1, 32, 32)
    )
    relabelled(sink, blobs((3, 90, 100), 2))
    found = unet_dask.measure(sink)
    expected = wanted(stored(sink, "instances"), image[None, 1:])
    assert found.columns is not None
    assert np.array_equal(found.columns["z"], expected["bbox-0"] + 1)
    assert set(found.columns["z"]) == {1, 2, 3}
    np.testing.assert_allclose(found.columns["centroid-y"], expected["centroid-1"])
    np.testing.assert_allclose(found.columns["intensity_std"], expected["intensity_std-0"])
    assert "centroid-z" not in found.columns
    assert found.unit == "um2"
    assert found.extent == pytest.approx(3 * 90 * 100 * SIZE["y"] * SIZE["x"] / 1e6)
    assert [plane.place for plane in found.planes] == [{"z": 1}, {"z": 2}, {"z": 3}]
    for plane in found.planes:
        assert plane.objects == np.count_nonzero(found.columns["z"] == plane.place["z"])
        assert plane.classes == {"class 1": plane.objects}
        assert plane.extent
        assert plane.extent == pytest.approx(90 * 100 * SIZE["y"] * SIZE["x"] / 1e6)
        assert plane.density == pytest.approx(plane.objects / plane.extent)
    said = dict(found.lines())["objects per plane"]
    assert f"{max(plane.objects for plane in found.planes)} (z " in said
    assert found.to_json()["planes"][0]["z"] == 1  # type: ignore[index] # plain JSON


def test_objects_in_three_dimensions_have_a_volume(
    tmp_path: Path, make_model: Callable[..., Path], cluster: Cluster
) -> None:
    image = noise(40, 50, 60, dtype="float32")
    source = save_image(tmp_path / "s.zarr", image, "zyx")
    model = make_model(tmp_path / "m.safetensors", dims=3)
    sink = segmented(source, tmp_path / "r.zarr", model, cluster, chunks=(16, 16, 16))
    relabelled(sink, blobs((40, 50, 60), 3))
    found = unet_dask.measure(sink)
    expected = wanted(stored(sink, "instances"), image[None])
    assert found.columns is not None
    for number, axis in enumerate("zyx"):
        np.testing.assert_allclose(found.columns[f"centroid-{axis}"], expected[f"centroid-{number}"])
    np.testing.assert_allclose(found.columns["volume_um3"], expected["area"] * 0.25)
    np.testing.assert_allclose(found.columns["intensity_mean"], expected["intensity_mean-0"], rtol=1e-6)
    np.testing.assert_allclose(found.columns["intensity_std"], expected["intensity_std-0"], rtol=1e-5)
    assert dict(found.lines())["objects per mm3"]


@pytest.mark.parametrize("kind", ["float32", "uint8"])
def test_classes_and_their_probabilities(
    tmp_path: Path, make_model: Callable[..., Path], cluster: Cluster, kind: str
) -> None:
    source = save_image(tmp_path / "s.zarr", noise(120, 120), "yx")
    model = make_model(tmp_path / "m.safetensors", classes=3)
    sink = segmented(
        source, tmp_path / "r.zarr", model, cluster, products="classes,instances,probabilities",
        probability_dtype=kind,
    )  # fmt: skip
    labels = blobs((120, 120), 2)
    classes = (labels > 0) * (1 + labels % 2).astype(np.uint8)
    relabelled(sink, labels, classes)
    found = unet_dask.measure(sink)
    table = found.columns
    assert table is not None
    assert found.classes == {f"class {n}": np.count_nonzero(table["class"] == f"class {n}") for n in (1, 2)}
    assert dict(found.lines())["of classes"].startswith(f"{found.classes['class 1']} class 1, ")
    assert found.planes == ()
    probabilities = stored(sink, "probabilities") / (254 if kind == "uint8" else 1)
    for row, label in enumerate(table["label"]):
        number = 1 + label % 2
        assert table["class"][row] == f"class {number}"
        mean = probabilities[int(number)][labels == label].mean()
        assert table["probability_mean"][row] == pytest.approx(mean, rel=1e-5)


def test_table_does_not_depend_on_chunks_or_threads(
    made: Path, tmp_path: Path, tiny_model: Path, cluster: Cluster
) -> None:
    sink = segmented(
        made / "s.zarr", tmp_path / "r.zarr", tiny_model, cluster, roi="20:290,30:280", channels="1",
        chunks=(128, 64), region=(128, 128),
    )  # fmt: skip
    relabelled(sink, stored(made / "r.zarr", "instances"))
    unet_dask.measure(made / "r.zarr", tmp_path / "a.csv", workers=1)
    unet_dask.measure(sink, tmp_path / "b.csv", workers=4)
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()


def test_files_are_read_by_pandas_as_they_were_measured(made: Path, tmp_path: Path) -> None:
    table = unet_dask.measure(made / "r.zarr").columns
    expected = pd.DataFrame(table)
    unet_dask.measure(made / "r.zarr", tmp_path / "o.csv")
    unet_dask.measure(made / "r.zarr", tmp_path / "o.parquet")
    written = pd.read_csv(tmp_path / "o.csv")
    pd.testing.assert_frame_equal(written, expected, check_dtype=False, check_exact=True)
    assert written["touches_border"].dtype == bool
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "o.parquet"), expected, check_exact=True)
    with (tmp_path / "o.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(expected)


def test_files_are_read_by_polars(made: Path, tmp_path: Path) -> None:
    polars = pytest.importorskip("polars")
    unet_dask.measure(made / "r.zarr", tmp_path / "o.csv")
    unet_dask.measure(made / "r.zarr", tmp_path / "o.parquet")
    text, binary = polars.read_csv(tmp_path / "o.csv"), polars.read_parquet(tmp_path / "o.parquet")
    assert text.columns == binary.columns
    assert text["touches_border"].dtype == polars.Boolean
    assert np.array_equal(text["centroid-y"].to_numpy(), binary["centroid-y"].to_numpy())


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_result_without_objects_is_a_table_without_rows(result: Path, tmp_path: Path, ending: str) -> None:
    relabelled(result, np.zeros(shape_of(result), np.uint32))
    found = unet_dask.measure(result, tmp_path / f"o.{ending}")
    assert (found.objects, found.median, found.density) == (0, None, 0.0)
    read = pd.read_csv if ending == "csv" else pd.read_parquet
    table = read(tmp_path / f"o.{ending}")
    assert len(table) == 0
    assert "intensity_mean-2" in table.columns
    assert dict(found.lines())["objects"] == "0"


def refused(run: Callable[..., Outcome], *arguments: str | Path) -> str:
    """Return the one line with which a command is refused."""
    outcome = run("measure", *arguments)
    assert outcome.code == 2
    assert outcome.stdout == ""
    (line,) = outcome.lines
    return line


def test_unfinished_result_is_refused(result: Path, tmp_path: Path, call_cli: Callable[..., Outcome]) -> None:
    run = result / "_unet_dask"
    (run / "ledger").mkdir()
    (run / "ledger.jsonl").rename(run / "ledger" / "a.jsonl")
    assert "is not finished: " in refused(call_cli, result, "-o", tmp_path / "o.csv")
    (run / "zarr.json").unlink()
    assert "never completely created" in refused(call_cli, result, "-o", tmp_path / "o.csv")
    assert not (tmp_path / "o.csv").exists()


def test_torn_and_missing_chunks_are_refused(
    result: Path, tmp_path: Path, call_cli: Callable[..., Outcome]
) -> None:
    chunk = next(path for path in sorted((result / "instances" / "0" / "c").rglob("*")) if path.is_file())
    whole = chunk.read_bytes()
    chunk.write_bytes(whole[: len(whole) // 2])
    (tmp_path / "o.csv").write_text("mine")
    assert "unet-dask verify" in refused(call_cli, result, "-o", tmp_path / "o.csv")
    chunk.unlink()
    assert "never written" in refused(call_cli, result, "-o", tmp_path / "o.csv")
    assert (tmp_path / "o.csv").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["o.csv", "r.zarr"]


def test_result_without_instances_is_refused(
    source: Path, tmp_path: Path, tiny_model: Path, cluster: Cluster
) -> None:
    segmented(source, tmp_path / "r.zarr", tiny_model, cluster, products="classes")
    with pytest.raises(SinkError, match="--products classes,instances"):
        unet_dask.measure(tmp_path / "r.zarr")


def test_source_that_is_gone_is_left_out_and_one_that_changed_is_refused(
    tmp_path: Path, tiny_model: Path, cluster: Cluster
) -> None:
    source = save_image(tmp_path / "s.zarr", noise(96, 96), "yx")
    sink = relabelled(segmented(source, tmp_path / "r.zarr", tiny_model, cluster), blobs((96, 96), 2))
    whole = unet_dask.measure(sink).columns
    assert whole is not None
    shutil.move(source, tmp_path / "moved.zarr")
    alone = unet_dask.measure(sink)
    assert alone.columns is not None
    assert "the source is not at hand" in alone.notes[0]
    assert set(whole) - set(alone.columns) == {f"intensity_{name}" for name in ("mean", "min", "max", "std")}
    moved = unet_dask.measure(sink, source=tmp_path / "moved.zarr").columns
    assert moved is not None
    assert all(np.array_equal(moved[name], whole[name]) for name in whole)
    with pytest.raises(InputError):
        unet_dask.measure(sink, source=tmp_path / "nowhere.zarr")
    save_image(tmp_path / "s.zarr", noise(96, 96) + 1, "yx")
    with pytest.raises(InputError, match=r"source\.content.*--no-source"):
        unet_dask.measure(sink)
    assert unet_dask.measure(sink, intensities=False).notes == ()


def test_parquet_without_pyarrow_says_which_extra(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(OptionError, match=r"Install unet-dask\[tables\]"):
        unet_dask.measure(made / "r.zarr", tmp_path / "o.parquet")


@pytest.mark.parametrize(
    ("place", "word"),
    [
        ("r.zarr/o.csv", "only read"),
        ("s.zarr/o.csv", "only read"),
        ("o.xlsx", "ends in .csv or .parquet"),
        ("o", "without an ending"),
        ("nowhere/o.csv", "no folder"),
        ("folder.csv", "it is a folder"),
    ],
)
def test_places_of_no_table_are_refused(made: Path, place: str, word: str) -> None:
    (made / "folder.csv").mkdir(exist_ok=True)
    with pytest.raises(OptionError, match=word):
        unet_dask.measure(made / "r.zarr", made / place)


def test_command_writes_a_table_and_says_how_many(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call_cli: Callable[..., Outcome]
) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = call_cli("measure", made / "r.zarr")
    assert outcome.code == 0
    assert "objects per mm2" in outcome.stderr
    assert (tmp_path / "r.csv").exists()
    said = json.loads(call_cli("measure", made / "r.zarr", "--no-source", "--json").stdout)
    assert said["objects"] == len(pd.read_csv(tmp_path / "r.csv"))
    assert "intensity_mean-0" not in (tmp_path / "r.csv").read_text().splitlines()[0]


@pytest.mark.skipif(not NUCLEI.is_dir(), reason="needs the shared images")
@pytest.mark.parametrize("name", ["bbbc039_A02_s1.png", "bbbc039_A06_s6.png"])
def test_nuclei_of_the_bundled_model(tmp_path: Path, cluster: Cluster, name: str) -> None:
    from skimage.io import imread

    sink = segmented(
        NUCLEI / name, tmp_path / "r.zarr", Path("nuclei"), cluster, objects="cells", chunks=(128, 128)
    )
    found = unet_dask.measure(sink)
    expected = wanted(stored(sink, "instances"), imread(NUCLEI / name)[None])
    assert found.columns is not None
    assert found.objects == len(expected["label"]) > 50
    assert found.classes == {"nucleus": found.objects}  # whatever is left of the rim, they grew from nuclei
    assert set(found.columns["class"]) == {"nucleus"}
    for column in ("area", "intensity_min", "intensity_max", "intensity_mean", "intensity_std"):
        theirs = expected[column if column == "area" else f"{column}-0"]
        np.testing.assert_allclose(found.columns[column], theirs, rtol=1e-12)
