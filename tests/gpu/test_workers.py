"""Workers on GPUs: one each, in turn, and a GPU that is full costs nothing but a resumed run."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
import zarr

import unet_dask
from tests.conftest import save_source, save_tiny_model
from unet_dask.errors import IncompleteError
from unet_dask.workers.cluster import default_workers, local_cluster

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.gpu

#: Bytes of the host for a worker: CUDA's libraries alone take more than a gigabyte.
LIMIT = 6 << 30
#: Three by three regions.
SETTINGS: dict[str, Any] = {
    "region": (32, 32),
    "tile": (32, 32),
    "chunks": (32, 32),
    "precision": "float32",
    "device": "cuda",
}


def seen() -> tuple[str, int]:
    """Return what a worker is shown, and how many GPUs that is."""
    return os.environ["CUDA_VISIBLE_DEVICES"], torch.cuda.device_count()


def gpu_name() -> str:
    """Return the name that no other GPU has."""
    return str(torch.cuda.get_device_properties(0).uuid)


def fill(share: float) -> None:
    """Let this process have so much of the GPU's memory, and forget what it has loaded."""
    from unet_dask.engine import cache

    cache._loaded.clear()
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(share)


def test_there_is_a_worker_for_every_gpu() -> None:
    assert default_workers("cuda") == torch.cuda.device_count()


def test_every_worker_sees_exactly_one_gpu_and_together_they_see_all() -> None:
    count = torch.cuda.device_count()
    with local_cluster(workers=count + 1, threads=1, limit=LIMIT, device="cuda") as opened:
        shown = list(opened.client.run(seen).values())
        gpus = list(opened.client.run(gpu_name).values())
    assert {number for _, number in shown} == {1}
    assert len({name for name, _ in shown}) == len(set(gpus)) == count


def test_workers_keep_to_the_gpus_that_the_driver_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    last = str(torch.cuda.device_count() - 1)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", last)
    with local_cluster(workers=2, threads=1, limit=LIMIT, device="cuda") as opened:
        shown = list(opened.client.run(seen).values())
    assert shown == [(last, 1)] * 2


def test_a_gpu_that_is_full_is_said_in_one_line_and_the_run_resumes(tmp_path: Path) -> None:
    model, source = save_tiny_model(tmp_path / "tiny.safetensors"), save_source(tmp_path / "small.zarr")
    sinks = [tmp_path / "once.zarr", tmp_path / "resumed.zarr"]
    with local_cluster(workers=1, threads=1, limit=LIMIT, device="cuda") as opened:
        unet_dask.segment_store(source, sinks[0], model, client=opened.client, **SETTINGS)
        opened.client.run(fill, 1e-6)
        with pytest.raises(IncompleteError, match=r"9 of 9 regions failed.*out of memory") as ended:
            unet_dask.segment_store(source, sinks[1], model, client=opened.client, **SETTINGS)
        opened.client.run(fill, 1.0)
        run = unet_dask.segment_store(source, sinks[1], model, client=opened.client, resume=True, **SETTINGS)
    assert len(str(ended.value).splitlines()) == 1
    assert run.complete
    once, resumed = (np.asarray(zarr.open_array(each / "classes" / "0", mode="r")[...]) for each in sinks)
    np.testing.assert_array_equal(resumed, once)
