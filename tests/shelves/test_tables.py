"""A table of objects lies in the image as ngio has it, beside the labels that it is about."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
import pytest
import zarr

import unet_dask
from tests.measuring.results import blobs, relabelled, save_image, segmented
from unet_dask.errors import InputError, SinkError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import Outcome
    from unet_dask.workers.cluster import Cluster


@pytest.fixture(params=[2, 3])
def folder(tmp_path: Path, tiny_model: Path, cluster: Cluster, request: pytest.FixtureRequest) -> Path:
    """Return a folder with an image and a result, for a version of Zarr."""
    version: Literal[2, 3] = request.param
    image = np.random.default_rng(0).integers(0, 4000, (120, 110)).astype(np.uint16)
    save_image(tmp_path / "s.zarr", image, "yx", zarr_format=version)
    segmented(tmp_path / "s.zarr", tmp_path / "r.zarr", tiny_model, cluster)
    relabelled(tmp_path / "r.zarr", blobs((120, 110), 2))
    return tmp_path


def test_table_is_that_of_measure_and_is_listed(folder: Path, call_cli: Callable[..., Outcome]) -> None:
    group = zarr.open_group(str(folder / "s.zarr"))
    group.create_group("tables/wells").attrs["type"] = "roi_table"
    group["tables"].attrs["tables"] = ["wells"]
    arguments = ("measure", folder / "r.zarr", "--table-in", folder / "s.zarr", "--name", "nuclei", "--json")
    outcome = call_cli(*arguments)
    assert outcome.code == 0
    place = folder / "s.zarr" / "tables" / "nuclei"
    assert json.loads(outcome.stdout)["path"] == str(place)
    unet_dask.measure(folder / "r.zarr", folder / "o.csv")
    assert (place / "table.csv").read_bytes() == (folder / "o.csv").read_bytes()
    assert group["tables"].attrs["tables"] == ["wells", "nuclei"]
    said: Any = dict(zarr.open_group(str(place), mode="r").attrs)
    assert said["region"] == {"path": "../labels/nuclei"}
    assert (said["type"], said["backend"]) == ("feature_table", "csv")
    assert said["index_key"] in pd.read_csv(place / "table.csv").columns
    assert call_cli(*arguments).code == 2
    assert call_cli(*arguments, "--overwrite").code == 0
    assert group["tables"].attrs["tables"] == ["wells", "nuclei"]
    with pytest.raises(SinkError, match="not written by unet-dask"):
        unet_dask.measure_into(folder / "r.zarr", folder / "s.zarr", name="wells", overwrite=True)


def test_options_of_another_place_are_refused(
    tmp_path: Path, call_cli: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for arguments in (["--name", "x"], ["--overwrite"], ["--table-in", "s.zarr", "-o", "o.csv"]):
        outcome = call_cli("measure", "r.zarr", *arguments)
        assert (outcome.code, len(outcome.lines)) == (2, 1), outcome.stderr
        assert "goes with" in outcome.stderr


def test_another_image_is_refused(folder: Path) -> None:
    other = save_image(folder / "o.zarr", np.zeros((120, 111), np.uint16), "yx")
    with pytest.raises(InputError):
        unet_dask.measure_into(folder / "r.zarr", other)
    assert not (other / "tables").exists()
