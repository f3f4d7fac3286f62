"""The demo: reproducible data, honest scores, and a second run that destroys nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import zarr

from unet_dask.demo.job import Demo, _make, run_demo, score
from unet_dask.demo.synthetic import nuclei, separated
from unet_dask.errors import OptionError, SinkError
from unet_dask.io.source.volume import open_source
from unet_dask.model.file import new_model, save_model
from unet_dask.model.header import NetworkSpec, Normalisation

if TYPE_CHECKING:
    from pathlib import Path

SIDE = 600


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "small.safetensors"
    spec = NetworkSpec(dims=2, width=2, depth=2)
    save_model(new_model(spec, normalisation=Normalisation("constant", (150.0,), (200.0,))), path)
    return path


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Demo:
    return run_demo(tmp_path_factory.mktemp("demo") / "here", model=model, side=SIDE, workers=1)


def test_windows_of_the_image_fit_together() -> None:
    image, labels = nuclei((1024, 512), seed=5)
    lower, lower_labels = nuclei((512, 512), seed=5, origin=(512, 0))
    np.testing.assert_array_equal(image[512:], lower)
    np.testing.assert_array_equal(labels[512:], lower_labels)


def test_seed_decides_the_image() -> None:
    one, _ = nuclei((128, 128), seed=1)
    again, _ = nuclei((128, 128), seed=1)
    other, _ = nuclei((128, 128), seed=2)
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()


def test_nuclei_are_brighter_than_the_background() -> None:
    image, labels = nuclei((512, 512), seed=0)
    assert 0.05 < (labels > 0).mean() < 0.3
    assert np.median(image[labels > 0]) > 2 * np.median(image[labels == 0])


def test_touching_nuclei_are_separated_in_the_classes() -> None:
    labels = np.zeros((6, 8), np.uint32)
    labels[1:5, 1:4], labels[1:5, 4:7] = 3, 9
    classes = separated(labels)
    assert not (classes[:, 3:5] == 1).any()
    assert (classes[1:5, 1:3] == 1).all()


def test_truth_scores_perfectly(tmp_path: Path) -> None:
    _make(tmp_path / "image.zarr", tmp_path / "truth.zarr", side=SIDE, seed=0)
    truth = zarr.open_array(str(tmp_path / "truth.zarr"), path="0", mode="r")
    result = zarr.create_group(str(tmp_path / "result.zarr"))
    labels = zarr.open_array(str(tmp_path / "truth.zarr"), path="labels", mode="r")
    result.create_array("classes/0", shape=truth.shape, dtype="uint8")[:] = truth[:]
    result.create_array("instances/0", shape=truth.shape, dtype="uint32")[:] = labels[:]
    scores = score(tmp_path / "result.zarr", tmp_path / "truth.zarr", side=SIDE)
    assert (scores.iou, scores.pixel_error) == (1.0, 0.0)
    assert scores.object_f1 == 1


def test_image_is_an_ome_zarr_with_a_pyramid(demo: Demo) -> None:
    source = open_source(demo.image)
    assert (source.axes, source.shape, source.dtype) == ("cyx", (1, SIDE, SIDE), np.dtype("uint16"))
    assert source.unit["y"] == "micrometer"
    assert open_source(demo.image, level=1).shape == (1, SIDE // 2, SIDE // 2)


def test_demo_reports_scores_speed_and_memory(demo: Demo) -> None:
    told = dict(demo.describe())
    assert demo.run.computed > 0
    assert "object F1" in told["scores"]
    assert "Mvoxel/s" in told["speed"]
    assert "planned" in told["memory"]
    assert demo.picture.exists()
    assert len(demo.next_commands()) == 3


def test_second_run_finds_everything_done(demo: Demo, model: Path) -> None:
    before = (demo.image / "zarr.json").stat().st_mtime_ns
    again = run_demo(demo.folder, model=model, side=SIDE, workers=1)
    assert again.run.computed == 0
    assert again.scores == demo.scores
    assert "nothing was left to do" in dict(again.describe())["speed"]
    assert (demo.image / "zarr.json").stat().st_mtime_ns == before


def test_folder_with_something_else_is_left_alone(tmp_path: Path, model: Path) -> None:
    zarr.create_array(str(tmp_path / "nuclei.zarr"), shape=(3,), dtype="uint8")[:] = 7
    with pytest.raises(SinkError, match="was not made by a demo, so it is left alone"):
        run_demo(tmp_path, model=model, side=SIDE)
    assert zarr.open_array(str(tmp_path / "nuclei.zarr"), mode="r")[0] == 7


def test_tiny_image_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="at least 64"):
        run_demo(tmp_path, side=10)
