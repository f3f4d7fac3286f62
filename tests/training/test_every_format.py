"""One annotated image trains the same network from every format, held in memory or read where it lies."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.written import SIZED, WRITERS
from unet_dask.training.events import Event, Stepped
from unet_dask.training.loop import train

if TYPE_CHECKING:
    from pathlib import Path

    from unet_dask.training.config import TrainConfig

TARGET = (np.indices((90, 70)).sum(axis=0) % 24 < 9).astype(np.uint8)
IMAGE = (TARGET * 90 + np.random.default_rng(0).integers(0, 60, TARGET.shape)).astype(np.uint8)


def losses(folder: Path, image: str, target: str, config: TrainConfig) -> list[float]:
    """Return the losses of a training on an image and a target of two formats."""
    folder.mkdir()
    found: list[float] = []

    def listen(event: Event) -> None:
        if isinstance(event, Stepped):
            found.append(event.loss)

    images, targets = WRITERS[image](folder / image, IMAGE), WRITERS[target](folder / f"t.{target}", TARGET)
    train(images, targets, folder / "m.safetensors", config, on_event=listen)
    return found


@pytest.mark.parametrize("name", WRITERS)
def test_losses_are_the_same(name: str, quick: TrainConfig, tmp_path: Path) -> None:
    config = replace(quick, validation=0.2)
    expected = losses(tmp_path / "expected", "plain.zarr", "plain.zarr", config)
    assert losses(tmp_path / "found", name, name, config) == expected


@pytest.mark.parametrize("name", ["pyramid.ome.tif", "imagej.tif"])
def test_losses_of_what_is_read_where_it_lies_are_the_same(
    name: str, quick: TrainConfig, tmp_path: Path
) -> None:
    config = replace(quick, validation=0.2, memory="1KiB")
    expected = losses(tmp_path / "expected", "plain.zarr", "plain.zarr", config)
    assert losses(tmp_path / "found", name, name, config) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("name", [name for name in SIZED if name.endswith(".tif")])
def test_a_model_knows_the_pixel_size_of_its_images(name: str, quick: TrainConfig, tmp_path: Path) -> None:
    from unet_dask.model.file import inspect_model
    from unet_dask.spacing import metres

    losses(tmp_path / "a", name, name, replace(quick, validation=0.2))
    header = inspect_model(tmp_path / "a" / "m.safetensors").header
    micrometres = [size * (metres(header.unit) or 0) * 1e6 for size in header.spacing or ()]
    assert micrometres == pytest.approx([0.25, 0.25])
