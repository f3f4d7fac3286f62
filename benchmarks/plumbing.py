"""What a region costs beside the network: an identity in its place, through the real waves (bar B3).

    python benchmarks/plumbing.py [FOLDER] [--regions 1000] [--workers 2]

Region by region the same work is done as in a run (haloed block through `map_overlap`, mirror, write, flush,
record), but the network is replaced by a crop. Quoted: milliseconds per region of wall time, and of CPU time of
client, scheduler and workers together.
"""

from __future__ import annotations

import argparse
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import psutil
import zarr
from identity import IdentityTask

from unet_dask import graph
from unet_dask.dispatch import run_waves
from unet_dask.io.sink import store as sinks
from unet_dask.io.source.lazy_window import LazyWindow
from unet_dask.model.file import new_model, save_model
from unet_dask.model.header import NetworkSpec
from unet_dask.pipeline import plan_store
from unet_dask.workers.cluster import local_cluster

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Regions that are not counted, in which workers import and open what they need once.
WARM = 20


def measure(folder: Path, dims: int, regions: int, workers: int) -> tuple[int, float, float, float, int]:
    """Return regions; wall, driver's and workers' CPU milliseconds per region; and the pickled bytes of one task."""
    from distributed.protocol.pickle import dumps

    side = {2: 256, 3: 64}[dims]
    count = round(regions ** (1 / dims))
    depth = {2: 3, 3: 2}[dims]
    model = folder / f"net{dims}.safetensors"
    save_model(new_model(NetworkSpec(dims=dims, width=4, depth=depth)), model)
    shape = (side * count,) * dims
    source = folder / f"source{dims}.zarr"
    rng = np.random.default_rng(0)
    array = zarr.create_array(source, shape=shape, chunks=(side,) * dims, dtype="uint8", overwrite=True)
    array[...] = np.tile(rng.integers(0, 256, (side,) * dims).astype(np.uint8), (count,) * dims)
    sizes = (side,) * dims
    plan = plan_store(source, model, region=sizes, chunks=sizes, tile=sizes, memory="2GiB")
    sink = sinks.Sink(str(folder / f"sink{dims}.zarr"), plan.arrays)
    sinks.create(sink, {}, class_names=("a", "b"), spacing={}, unit={}, translation={}, name="x")
    window = tuple((0, size) for size in plan.source.shape)
    volume = LazyWindow(plan.source.spec, window, plan.source.dtype, run="plumbing")
    task = IdentityTask(
        grid=plan.grid, outputs=plan.outputs, network=None, normalisation=None, spec=NetworkSpec(dims=dims),
        threads=1, nan="stop",
    )  # type: ignore[arg-type] # fmt: skip
    with local_cluster(workers=workers, threads=1, limit=2 << 30, device="cpu") as cluster:
        driver, children = psutil.Process(), psutil.Process().children(recursive=True)

        def cpu() -> NDArray[np.float64]:
            return np.array(
                [sum(driver.cpu_times()[:2]), sum(sum(each.cpu_times()[:2]) for each in children)]
            )

        results, before, began = [], cpu(), 0.0
        for result in run_waves(
            cluster.client,
            plan.grid.waves(16),
            lambda index: True,
            lambda wave: graph.wave_tasks(volume, wave, graph.WriteRegion(replace(task), sink)),
        ):
            results.append(result)
            if len(results) == WARM:  # by now every worker has imported what it needs
                before, began = cpu(), time.perf_counter()
        counted = len(results) - WARM
        wall, (driven, worked) = time.perf_counter() - began, cpu() - before
    assert all(isinstance(each, graph.Record) for each in results), results[0]
    written = zarr.open_array(sink.url, path="classes/0", mode="r")[...]
    assert np.array_equal(written, array[...] & 1)
    shutil.rmtree(source)
    shutil.rmtree(sink.url)
    size = len(dumps(graph.WriteRegion(task, sink)))
    return counted, 1e3 * wall / counted, 1e3 * driven / counted, 1e3 * worked / counted, size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", default="out/plumbing", type=Path)
    parser.add_argument("--regions", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--dims", type=int, nargs="+", default=[2, 3])
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    for dims in options.dims:
        count, wall, driven, worked, size = measure(options.folder, dims, options.regions, options.workers)
        print(
            f"{dims}-D: {count} regions, {wall:.1f} ms wall and {driven + worked:.1f} ms CPU per region ({driven:.1f} "
            f"client and scheduler, {worked:.1f} workers); a task's function is {size} bytes",
            flush=True,
        )


if __name__ == "__main__":
    main()
