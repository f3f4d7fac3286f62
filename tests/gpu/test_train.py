"""Training on the GPU: the loss of the CPU in every precision, and a network that runs anywhere."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import pytest
import tifffile
import torch

from unet_dask.demo.synthetic import nuclei, separated
from unet_dask.model.file import load_model
from unet_dask.training.config import TrainConfig
from unet_dask.training.events import Event, Stepped
from unet_dask.training.loop import train

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.gpu

#: Without drop-out, whose numbers each device draws for itself.
CONFIG = TrainConfig(
    width=8,
    depth=2,
    dropout=0.0,
    tile=(128,),
    iterations=6,
    validate_every=6,
    checkpoint_every=6,
    validation=1,
    threads=1,
)

Precision = Literal["float32", "bfloat16", "float16"]


@pytest.fixture
def annotated(tmp_path: Path) -> tuple[Path, Path]:
    """Write three fields of nuclei and their class maps."""
    images, labels = zip(*(nuclei((192, 192), seed=seed) for seed in range(3)), strict=True)
    targets = np.stack([separated(each) for each in labels])
    tifffile.imwrite(tmp_path / "i.tif", np.stack(images), photometric="minisblack")
    tifffile.imwrite(tmp_path / "t.tif", targets, photometric="minisblack")
    return tmp_path / "i.tif", tmp_path / "t.tif"


def losses(annotated: tuple[Path, Path], output: Path, config: TrainConfig) -> list[float]:
    """Return the loss of every iteration."""
    found: list[float] = []

    def listen(event: Event) -> None:
        if isinstance(event, Stepped):
            found.append(event.loss)

    train(*annotated, output, config, on_event=listen)
    return found


@pytest.mark.parametrize(("precision", "bound"), [("float32", 1e-3), ("bfloat16", 1e-2), ("float16", 1e-3)])
def test_the_first_loss_is_that_of_the_cpu(
    annotated: tuple[Path, Path], tmp_path: Path, precision: Precision, bound: float
) -> None:
    """Later ones are of other weights: in float16 the first updates overflow, and are left out."""
    config = replace(CONFIG, device="cuda", precision=precision)
    made = losses(annotated, tmp_path / "gpu.safetensors", config)
    expected = losses(annotated, tmp_path / "cpu.safetensors", replace(CONFIG, device="cpu"))
    assert len(made) == CONFIG.iterations
    assert np.isfinite(made).all()
    assert made[0] == pytest.approx(expected[0], rel=bound)


def test_a_network_of_the_gpu_runs_on_the_cpu(annotated: tuple[Path, Path], tmp_path: Path) -> None:
    output = tmp_path / "gpu.safetensors"
    losses(annotated, output, replace(CONFIG, device="cuda"))
    weights = load_model(output).network.state_dict().values()
    assert {each.device.type for each in weights} == {"cpu"}
    assert all(torch.isfinite(each).all() for each in weights)
