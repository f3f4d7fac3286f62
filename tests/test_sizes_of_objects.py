"""Sizes of objects in micrometres become pixels of the source, which is what a run is known by."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import zarr

import unet_dask
from tests.measuring.results import SIZE, save_image
from unet_dask.errors import OptionError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import Outcome
    from unet_dask.workers.cluster import Cluster


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an image of two levels whose pixels have a size."""
    folder = tmp_path_factory.mktemp("sizes")
    return save_image(folder / "s.zarr", np.zeros((96, 96), np.uint16), "yx", levels=2)


@pytest.mark.parametrize(
    ("size", "level", "pixels"), [("30um2", 0, 240), ("30.1 um2", 0, 241), ("30um2", 1, 60), ("7", 1, 7)]
)
def test_area_is_said_in_pixels_and_micrometres(
    source: Path, tiny_model: Path, size: str, level: int, pixels: int
) -> None:
    plan = unet_dask.plan_store(source, tiny_model, products="classes,instances", min_size=size, level=level)
    assert plan.rule.min_size == pixels
    square = SIZE["y"] * SIZE["x"] * 4**level
    assert dict(plan.describe())["smallest object"] == f"{pixels} pixels, {pixels * square:.4g} um2"


def test_volume_is_for_objects_in_three_dimensions(
    tmp_path: Path, make_model: Callable[..., Path], tiny_model: Path, source: Path
) -> None:
    stack = save_image(tmp_path / "s.zarr", np.zeros((24, 40, 40), np.uint16), "zyx")
    model = make_model(tmp_path / "m.safetensors", dims=3)
    plan = unet_dask.plan_store(stack, model, products="classes,instances", min_size="20000 um3")
    assert plan.rule.min_size == 20_000 / 0.25
    with pytest.raises(OptionError, match="Write it in um3"):
        unet_dask.plan_store(stack, model, products="classes,instances", min_size="20um2")
    with pytest.raises(OptionError, match="Write it in um2"):
        unet_dask.plan_store(source, tiny_model, products="classes,instances", min_size="20um3")


def test_fingerprint_is_that_of_the_pixels(source: Path, tiny_model: Path, cluster: Cluster) -> None:
    sink = source.parent / "r.zarr"
    settings = {"products": "classes,instances", "memory": "1GiB", "client": cluster.client}
    unet_dask.segment_store(source, sink, tiny_model, min_size="30um2", **settings)
    run = unet_dask.segment_store(source, sink, tiny_model, min_size=240, resume=True, **settings)
    assert run.computed == 0


def test_what_cannot_be_told_in_pixels_is_refused_in_one_line(
    tmp_path: Path, tiny_model: Path, call_cli: Callable[..., Outcome]
) -> None:
    zarr.save_array(str(tmp_path / "a.zarr"), np.zeros((64, 64), np.uint8))  # type: ignore[arg-type] # any array
    with pytest.raises(OptionError, match="does not say how large a pixel is"):
        unet_dask.plan_store(tmp_path / "a.zarr", tiny_model, products="classes,instances", min_size="30um2")
    outcome = call_cli("segment", tmp_path / "a.zarr", "-m", tiny_model, "--dry-run", "--min-size", "30um")
    assert (outcome.code, len(outcome.lines)) == (2, 1)
    assert "no size of an object" in outcome.stderr
