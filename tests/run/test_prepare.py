"""What a run is of is opened once, however often it is planned."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.written import SIZE, WRITERS
from unet_dask import segment_store
from unet_dask.errors import OptionError
from unet_dask.io.source.volume import levels, open_source
from unet_dask.model.file import inspect_model, load_model
from unet_dask.pipeline import plan_store
from unet_dask.run import prepare

if TYPE_CHECKING:
    from pathlib import Path

    from unet_dask.workers.cluster import Cluster


@pytest.mark.parametrize("part", [None, "1/1"])
def test_source_and_mask_are_opened_once(
    source: Path,
    tiny_model: Path,
    tmp_path: Path,
    cluster: Cluster,
    monkeypatch: pytest.MonkeyPatch,
    part: str | None,
) -> None:
    """Of a running cluster, what it has is known last; of a part, what the first driver chose."""
    opened: list[str] = []

    def counted(name: str) -> None:
        inner = getattr(prepare, name)

        def call(*arguments: Any, **settings: Any) -> Any:
            opened.append(name)
            return inner(*arguments, **settings)

        monkeypatch.setattr(prepare, name, call)

    names = ["open_source", "find_mask", "Occupancy", "worker_device"]
    for name in names:
        counted(name)
    segment_store(source, tmp_path / "out.zarr", tiny_model, client=cluster.client, mask="auto", part=part)
    assert opened == names


@pytest.mark.parametrize("name", ["ome4.ome.zarr", "ome5.ome.zarr", "pyramid.ome.tif"])
def test_the_level_that_fits_is_the_one_whose_pixels_are_as_large(
    tmp_path: Path, tiny_model: Path, name: str
) -> None:
    written = WRITERS[name](tmp_path / name, np.zeros((64, 96), np.uint8))
    finest, coarser = levels(open_source(written))
    header = replace(inspect_model(tiny_model).header, spacing=(2 * SIZE, 2 * SIZE), unit="micrometer")
    assert prepare.fitting_level(finest, header).spec == coarser.spec
    assert prepare.fitting_level(finest, replace(header, spacing=(1.2 * SIZE,) * 2)).spec == finest.spec
    with pytest.raises(OptionError, match="level 1, the nearest") as told:
        prepare.fitting_level(finest, replace(header, spacing=(9 * SIZE,) * 2))
    assert len(str(told.value).splitlines()) == 1
    with pytest.raises(OptionError, match="the model does not say"):
        prepare.fitting_level(finest, replace(header, spacing=None, unit=None))


def test_a_run_takes_the_level_that_fits(tmp_path: Path, tiny_model: Path) -> None:
    written = WRITERS["ome5.ome.zarr"](tmp_path / "a.ome.zarr", np.zeros((64, 96), np.uint8))
    model = load_model(tiny_model)
    model = replace(model, header=replace(model.header, spacing=(2 * SIZE, 2 * SIZE), unit="micrometer"))
    assert plan_store(written, model, level="fit").source.sizes["x"] == 48
    assert "--level fit" in " ".join(plan_store(written, model).notes)
    with pytest.raises(OptionError, match="is no level"):
        plan_store(written, model, level="best")
