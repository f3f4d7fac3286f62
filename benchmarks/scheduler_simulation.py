"""Where one scheduler ends: the real scheduler, client and waves, with workers that only take their time (S5, C2).

    python benchmarks/scheduler_simulation.py [FOLDER] [--workers 16,256] [--regions 0] [--seconds 2.0] [--dims 3]

The scheduler, the driver and all simulated workers are one process each. The driver makes the graphs of a run (a
3-D volume, halo 44, on the grid of a plan), submits them by `dispatch.run_waves`, fetches every record and appends
it to a real ledger, flushed to disk. Measured: the CPU seconds per region of scheduler and driver, their resident
memory before and after, tasks per region, and the share of time that workers were busy by the wall clock, from the
first region's begin to the last one's end. Computed: regions per second at which the scheduler, or the driver, would
use a whole core, and workers that this keeps busy. On a machine with fewer free cores than processes the wall-clock
share is a lower bound; the CPU seconds are not affected by others that use the machine.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask
import psutil
import zarr
from distributed import Client

from unet_dask.cluster import SETTINGS, Cluster
from unet_dask.config import SegmentConfig
from unet_dask.execute import regions
from unet_dask.io.sink.store import Sink
from unet_dask.ledger import Entry, Ledger
from unet_dask.model.file import model_file, new_model, save_model
from unet_dask.model.header import NetworkSpec, Normalisation
from unet_dask.pipeline import plan_store
from unet_dask.run import Prepared

#: Sides of a region and regions per axis: a million regions in three dimensions, or in two.
SIDE = {2: 256, 3: 128}
PER_AXIS = {2: 1000, 3: 100}

SCHEDULER = """
import asyncio, dask, sys
from distributed import Scheduler
from unet_dask.cluster import SETTINGS

async def main():
    with dask.config.set(SETTINGS):
        async with Scheduler(host="127.0.0.1", port=0, dashboard=False, dashboard_address="127.0.0.1:0") as scheduler:
            print(scheduler.address, flush=True)
            await scheduler.finished()

asyncio.run(main())
"""


@dataclass
class Figures:
    """What one simulation came to."""

    workers: int
    regions: int
    wall: float
    busy: float
    scheduler_cpu: float
    driver_cpu: float
    scheduler_grown: float
    driver_grown: float

    def __str__(self) -> str:
        scheduler, driver = 1e3 * self.scheduler_cpu / self.regions, 1e3 * self.driver_cpu / self.regions
        rate = 1e3 / max(scheduler, driver)
        return (
            f"{self.workers:>5} workers {self.regions:>8} regions {self.wall:>7.0f} s | busy {self.busy:.3f} | CPU ms per "
            f"region: scheduler {scheduler:.2f}, driver {driver:.2f} | a core full at {rate:.0f} regions/s, both in one "
            f"process {1e3 / (scheduler + driver):.0f} | grown MiB: scheduler {self.scheduler_grown:.0f}, driver "
            f"{self.driver_grown:.0f}"
        )


def prepared(folder: Path, dims: int) -> Prepared:
    """Plan a run on a volume of which nothing but the metadata is there."""
    side, count = SIDE[dims], PER_AXIS[dims]
    source, model = folder / f"source{dims}.zarr", folder / f"net{dims}.safetensors"
    zarr.create_array(
        source, shape=(side * count,) * dims, chunks=(side,) * dims, dtype="uint8", overwrite=True
    )
    save_model(new_model(NetworkSpec(dims=dims, width=4, depth={2: 4, 3: 3}[dims])), model)
    config = SegmentConfig(tile=(side,) * dims, region=(side,) * dims, chunks=(side,) * dims, memory=8 << 30)
    plan = plan_store(source, model, config=config)
    with model_file(model) as file:
        return Prepared(plan.source, file, config, plan)


def cpu(process: psutil.Process) -> float:
    return float(sum(process.cpu_times()[:2]))


def resident(process: psutil.Process) -> float:
    return process.memory_info().rss / 2**20


def simulate(folder: Path, run: Prepared, workers: int, count: int, seconds: float) -> Figures:
    """Run `count` regions of a plan on simulated workers."""
    scheduler = subprocess.Popen([sys.executable, "-c", SCHEDULER], stdout=subprocess.PIPE, text=True)
    address = scheduler.stdout.readline().strip()  # type: ignore[union-attr] # it is a pipe
    for name in ("ready", "busy"):
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder / "run", ignore_errors=True)
    crew = subprocess.Popen(
        [
            sys.executable,
            str(Path(__file__).with_name("simulated_workers.py")),
            address,
            str(workers),
            str(seconds),
            str(folder),
        ]
    )
    try:
        with dask.config.set(SETTINGS), Client(address, set_as_default=False) as client:
            while not (folder / "ready").exists():
                time.sleep(0.1)
            return _measure(folder, run, Cluster(client, workers, 1, local=False), count, scheduler.pid)
    finally:
        crew.kill()
        scheduler.kill()


def _measure(folder: Path, run: Prepared, cluster: Cluster, count: int, scheduler: int) -> Figures:
    driver, served = psutil.Process(), psutil.Process(scheduler)
    sink = Sink(str(folder / "sink.zarr"), run.plan.arrays)
    outcomes = regions(run, cluster, sink, range(count), set(), Normalisation("constant", (0.0,), (1.0,)))
    before: Any = None
    with Ledger(str(folder / "run")) as ledger:
        for number, outcome in enumerate(outcomes):
            # Memory and CPU time are taken from the second tenth on, when everything is imported and warm.
            if number == count // 10:
                before = cpu(served), cpu(driver), resident(served), resident(driver), time.perf_counter()
            ledger.append(
                Entry((number // 10000, number // 100 % 100, number % 100), 0, outcome.entry.checksums)
            )
    after = cpu(served), cpu(driver), resident(served), resident(driver), time.perf_counter()
    time.sleep(2.5)
    busy, done, first, last = map(float, (folder / "busy").read_text().split())
    assert done == count, (done, count)
    share = busy / (cluster.workers * max(last - first, 1e-9))
    grown = [late - early for early, late in zip(before, after, strict=True)]
    kept = count - count // 10
    # Per region, of the regions that were counted; memory as it grew.
    return Figures(cluster.workers, kept, grown[4], share, grown[0], grown[1], grown[2], grown[3])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", default="out/scheduler", type=Path)
    parser.add_argument("--workers", default="1,16,256,1000")
    parser.add_argument("--regions", type=int, help="by default ten for each worker")
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--dims", type=int, default=3)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    run = prepared(options.folder, options.dims)
    for workers in map(int, options.workers.split(",")):
        print(
            simulate(options.folder, run, workers, options.regions or 10 * workers, options.seconds),
            flush=True,
        )


if __name__ == "__main__":
    main()
