"""A result that keeps a table of its objects, made once."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

import unet_dask
from tests.measuring.results import save_image
from tests.run.tables import SHAPED, WANTED, noise
from tests.test_instances import CUTS
from tests.test_objects import ruled
from unet_dask.measuring.kept import TABLE

if TYPE_CHECKING:
    from pathlib import Path

    from unet_dask.model.file import Model
    from unet_dask.workers.cluster import Cluster


@pytest.fixture(scope="module")
def made(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Model, Cluster]:
    """Return a folder with an image, and a result of it in nine regions that keeps a table."""
    folder = tmp_path_factory.mktemp("tables")
    save_image(folder / "source.zarr", noise(300, 340), "yx")
    model = ruled(folder, SHAPED)
    run = unet_dask.segment_store(
        folder / "source.zarr", folder / "r.zarr", model, client=cluster.client, **CUTS, **WANTED
    )
    assert run.table == str(folder / "r.zarr" / TABLE)
    return folder, model, cluster


@pytest.fixture
def sink(made: tuple[Path, Model, Cluster], tmp_path: Path) -> Path:
    return shutil.copytree(made[0] / "r.zarr", tmp_path / "r.zarr")
