from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile

from unet_dask.training.config import TrainConfig

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def toy(tmp_path: Path) -> tuple[Path, Path]:
    """Write six noisy images of bright discs and their class maps."""
    rng = np.random.default_rng(0)
    rows, columns = np.indices((64, 64))
    targets = np.zeros((6, 64, 64), dtype=np.uint8)
    for target in targets:
        for row, column, radius in rng.uniform((8, 8, 5), (56, 56, 10), (5, 3)):
            target[(rows - row) ** 2 + (columns - column) ** 2 < radius**2] = 1
    images = targets * 80 + 60 + rng.normal(0, 20, targets.shape)
    tifffile.imwrite(
        tmp_path / "images.tif", np.clip(images, 0, 255).astype(np.uint8), photometric="minisblack"
    )
    tifffile.imwrite(tmp_path / "targets.tif", targets, photometric="minisblack")
    return tmp_path / "images.tif", tmp_path / "targets.tif"


@pytest.fixture
def quick() -> TrainConfig:
    """Return a recipe whose iterations take milliseconds."""
    return TrainConfig(
        width=4,
        depth=1,
        tile=(32,),
        iterations=8,
        validate_every=4,
        checkpoint_every=4,
        validation=2,
        threads=1,
        device="cpu",
    )
