"""The memory of the GPU: what the plan counts for a tile, and whether it knows how large the GPU is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
import zarr

import unet_dask
from tests.gpu.ways import model_of, noise
from unet_dask.engine.gpu import GpuBackend
from unet_dask.engine.heap import GPU_SHARE
from unet_dask.model.cost import pass_bytes
from unet_dask.model.header import NetworkSpec

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.gpu

TILES = {
    "2-D": (NetworkSpec(width=32, depth=4), (2108, 2108)),
    "2-D, elongated": (NetworkSpec(width=32, depth=4), (4156, 572)),
    "3-D": (NetworkSpec(dims=3, width=16, depth=3), (196, 196, 260)),
}


@pytest.mark.parametrize("kept", ["logits", "probabilities", "classes"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize(("spec", "sides"), TILES.values(), ids=TILES.keys())
def test_the_gpu_holds_no_more_than_the_plan_counts(
    spec: NetworkSpec, sides: tuple[int, ...], precision: str, kept: str
) -> None:
    """With what the plan adds for gaps and the workspaces of convolutions."""
    backend, tile = GpuBackend(model_of(spec), precision=precision), noise(1, sides)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    getattr(backend, kept)(tile)
    counted = pass_bytes(spec, sides, item=4 if precision == "float32" else 2)
    assert torch.cuda.max_memory_allocated() - before <= (1 + GPU_SHARE) * counted


def test_no_tile_is_planned_that_the_gpu_cannot_hold(tmp_path: Path) -> None:
    """However much memory the machine has."""
    source, side = tmp_path / "volume.zarr", 4096
    zarr.create_array(
        source, shape=(side,) * 3, chunks=(256,) * 3, dtype="uint8", dimension_names=["z", "y", "x"]
    )
    spec = NetworkSpec(dims=3, width=64, depth=3)
    plan = unet_dask.plan_store(
        source, model_of(spec), device="cuda", precision="bfloat16", memory="2TiB", workers=1
    )
    total = torch.cuda.get_device_properties(0).total_memory
    assert pass_bytes(spec, plan.tile, item=2) <= total
