"""A result is opened as labelled arrays, which hold what is on disk."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import dask
import numpy as np
import pytest
import zarr

import unet_dask
from unet_dask.errors import InputError, SinkError, UnetDaskError
from unet_dask.io.source.volume import read_window

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from unet_dask.io.source.window import SourceSpec
    from unet_dask.workers.cluster import Cluster


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, cluster: Cluster) -> Path:
    """Return a result of a part of an image whose pixels have a size."""
    folder = tmp_path_factory.mktemp("result")
    group = zarr.create_group(str(folder / "s.zarr"))
    values = np.random.default_rng(0).integers(0, 256, (300, 560)).astype("u1")
    group.create_array("0", data=values, chunks=(64, 64))
    scale = [{"type": "scale", "scale": [0.5, 0.25]}]
    axes = [{"name": name, "type": "space", "unit": "micrometer"} for name in "yx"]
    levels = [{"path": "0", "coordinateTransformations": scale}]
    ome: Any = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": levels}]}
    group.attrs["ome"] = ome
    unet_dask.segment_store(
        folder / "s.zarr", folder / "r.zarr", tiny_model, client=cluster.client, roi="20:300,0:560", chunks=(64, 64),
        products="classes,instances,probabilities",
    )  # fmt: skip
    return folder / "r.zarr"


@pytest.mark.parametrize("level", [0, 1])
def test_values_are_those_on_disk(result: Path, level: int) -> None:
    opened = unet_dask.open_result(result, level=level)
    for name in ("classes", "instances", "probabilities"):
        stored = np.asarray(zarr.open_array(str(result / name / str(level)), mode="r")[...])
        assert dask.is_dask_collection(opened[name])
        assert np.array_equal(opened[name].to_numpy(), stored)
        assert opened[name].dtype == stored.dtype


def test_axes_names_and_positions_are_those_of_the_source(result: Path) -> None:
    opened = unet_dask.open_result(result)
    assert opened.probabilities.dims == ("c", "y", "x")
    assert list(opened.c.to_numpy()) == opened.attrs["classes"] == ["background", "class 1"]
    assert (float(opened.y[0]), float(opened.y[1] - opened.y[0]), float(opened.x[2])) == (10.0, 0.5, 0.5)
    assert opened.y.attrs["units"] == "micrometer"
    assert float(opened.classes.sel(y=12.5, x=1.0)) == float(opened.classes[5, 4])


def test_a_part_is_read_and_no_more(result: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = unet_dask.open_result(result)
    read: list[tuple[slice, ...]] = []

    def noted(spec: SourceSpec, window: tuple[slice, ...]) -> NDArray[Any]:
        read.append(window)
        return read_window(spec, window)

    monkeypatch.setattr("unet_dask.result.read_window", noted)
    opened.classes[10:20, 70:80].compute(scheduler="synchronous")
    assert len(read) == 1
    assert opened.classes.data.chunksize == (64, 64)


def test_unfinished_result_says_so(result: Path, tmp_path: Path) -> None:
    assert unet_dask.open_result(result).attrs["complete"] is True
    shutil.copytree(result, tmp_path / "r.zarr")
    (tmp_path / "r.zarr" / "_unet_dask" / "ledger.jsonl").unlink()
    shutil.rmtree(tmp_path / "r.zarr" / "classes" / "0" / "c" / "0")
    opened = unet_dask.open_result(tmp_path / "r.zarr")
    assert opened.attrs["complete"] is False
    assert int(opened.classes[0, 0]) == opened.classes.attrs["unwritten"] == 255


@pytest.mark.parametrize("level", [-1, 9])
def test_level_that_is_not_there_is_refused(result: Path, level: int) -> None:
    with pytest.raises(InputError, match="Use one from 0 to"):
        unet_dask.open_result(result, level=level)


def test_what_is_no_result_is_refused(source: Path, tmp_path: Path) -> None:
    for place, kind in ((source, SinkError), (tmp_path / "nothing.zarr", UnetDaskError)):
        with pytest.raises(kind) as caught:
            unet_dask.open_result(place)
        assert len(str(caught.value).splitlines()) == 1
