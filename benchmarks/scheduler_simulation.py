"""Where one scheduler ends: the real scheduler, client and waves, with workers that only take their time (S5, C2).

    python benchmarks/scheduler_simulation.py [FOLDER] [--workers 16,256] [--regions 0] [--seconds 2.0] [--dims 3]
        [--single] [--part 2/4]

The scheduler, the driver and all simulated workers are one process each. The driver makes the graphs of a run (of a
volume that consists of metadata alone), submits them by `dispatch.run_waves`, fetches every record and appends it to
a real ledger, flushed to disk. With --single each region is one task instead, submitted by `dispatch.run_calls`, as
it would be if workers read their context themselves. With --part the driver does one part of the regions, as one of
several with a scheduler and workers of their own would.

Measured: the CPU seconds per region of scheduler and driver from the second tenth of the regions on (the scheduler's
less what heartbeats alone cost, which is quoted too), and how their resident memory grew, from the first hundredth of
the regions, or the first thousand, to the end; the share of time that workers were busy by the wall clock, from the
begin of the first region to the end of the last. Computed: regions per
second at which the scheduler, or the driver, fills a core. On a machine with fewer free cores than processes the wall
clock is pessimistic; CPU seconds are hardly affected, so --seconds 0 is the quickest way to them.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask
import psutil
import zarr
from distributed import Client

from unet_dask.config import SegmentConfig
from unet_dask.dispatch import run_calls
from unet_dask.io.sink.store import Sink
from unet_dask.ledger import Entry, Ledger
from unet_dask.model.file import model_file, new_model, save_model
from unet_dask.model.header import NetworkSpec, Normalisation
from unet_dask.part import Part, parse_part
from unet_dask.pipeline import plan_store
from unet_dask.run.execute import region_stages
from unet_dask.run.prepared import Prepared
from unet_dask.workers.cluster import SETTINGS, Cluster

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Sides of a region and regions per axis: a million regions.
SIDE = {2: 256, 3: 128}
PER_AXIS = {2: 1000, 3: 100}

SCHEDULER = """
import asyncio, dask, logging
from distributed import Scheduler
from unet_dask.workers.cluster import SETTINGS

async def serve():
    logging.getLogger("distributed").setLevel(logging.ERROR)
    with dask.config.set(SETTINGS):
        async with Scheduler(host="127.0.0.1", port=0, dashboard=False, dashboard_address="127.0.0.1:0") as scheduler:
            print(scheduler.address, flush=True)
            await scheduler.finished()

asyncio.run(serve())
"""


@dataclass
class Figures:
    """What one simulation came to; memory in MiB."""

    workers: int
    regions: int
    wall: float
    busy: float
    scheduler_cpu: float
    driver_cpu: float
    scheduler_grown: float
    driver_grown: float
    idle: float

    def __str__(self) -> str:
        scheduler = 1e3 * max(self.scheduler_cpu - self.idle * self.wall, 0) / self.regions
        driver = 1e3 * self.driver_cpu / self.regions
        return (
            f"{self.workers:>5} workers {self.regions:>8} regions {self.wall:>7.0f} s | busy {self.busy:.3f} | "
            f"CPU ms a region: scheduler {scheduler:.2f}, driver {driver:.2f} | a core is full at "
            f"{1e3 * min((1 - self.idle) / scheduler, 1 / driver):.0f} regions/s | heartbeats {self.idle:.3f} of a "
            f"core | grown MiB: scheduler {self.scheduler_grown:.0f}, driver {self.driver_grown:.0f}"
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


def segment(grid: Any, index: tuple[int, ...]) -> None:
    """Stand for a region that is one task; simulated workers do not call it."""


def records_of(run: Prepared, cluster: Cluster, sink: Sink, own: range, *, single: bool) -> Iterator[Any]:
    """Yield a record per region: from the waves of a run, or from one task per region."""
    if not single:
        constants = Normalisation("constant", (0.0,), (1.0,))
        ((_, records),) = region_stages(run, cluster, sink, own, set(), constants)
        yield from records
        return
    calls = ((index, (run.plan.grid, index)) for index in run.plan.grid.stretch(own))
    for _, made in run_calls(cluster.client, segment, calls, in_flight=3 * cluster.workers):
        yield made[0]


def cost(process: psutil.Process) -> tuple[float, float]:
    """Return a process's CPU seconds and resident MiB."""
    return float(sum(process.cpu_times()[:2])), process.memory_info().rss / 2**20


def simulate(folder: Path, run: Prepared, workers: int, own: range, seconds: float, single: bool) -> Figures:
    """Run some regions of a plan on simulated workers."""
    scheduler = subprocess.Popen([sys.executable, "-c", SCHEDULER], stdout=subprocess.PIPE, text=True)
    address = scheduler.stdout.readline().strip()  # type: ignore[union-attr] # it is a pipe
    for name in ("ready", "busy"):
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder / "run", ignore_errors=True)
    script = str(Path(__file__).with_name("simulated_workers.py"))
    crew = subprocess.Popen([sys.executable, script, address, str(workers), str(seconds), str(folder)])
    try:
        with dask.config.set(SETTINGS), Client(address, set_as_default=False) as client:
            while not (folder / "ready").exists():
                time.sleep(0.1)
            cluster = Cluster(client, workers, 1, local=False)
            sink = Sink(str(folder / "sink.zarr"), run.plan.arrays)
            records = records_of(run, cluster, sink, own, single=single)
            return measured(folder, workers, records, len(own), scheduler.pid)
    finally:
        crew.kill()
        scheduler.kill()


def measured(folder: Path, workers: int, records: Iterator[Any], count: int, scheduler: int) -> Figures:
    """Take the records of a simulation into a ledger, and measure meanwhile."""
    driver, served = psutil.Process(), psutil.Process(scheduler)
    idle, began = cost(served)[0], time.perf_counter()
    time.sleep(10)  # heartbeats alone
    idle = (cost(served)[0] - idle) / (time.perf_counter() - began)
    before: Any = None
    held: Any = None
    with Ledger(str(folder / "run")) as ledger:
        for number, record in enumerate(records):
            if number == min(count // 100, 1000):  # by now everything is imported
                held = [cost(each)[1] for each in (served, driver)]
            if number == count // 10:  # by now all are busy
                before = (cost(served)[0], cost(driver)[0], time.perf_counter())
            index = (number // 10000, number // 100 % 100, number % 100)
            ledger.append(Entry(index, 0, record.entry.checksums))
    after = (cost(served)[0], cost(driver)[0], time.perf_counter())
    grown = [cost(each)[1] - mib for each, mib in zip((served, driver), held, strict=True)]
    time.sleep(2.5)  # the workers tell every second
    busy, done, first, last = map(float, (folder / "busy").read_text().split())
    assert done == count, (done, count)
    served_cpu, driver_cpu, wall = (late - early for early, late in zip(before, after, strict=True))
    share = busy / (workers * max(last - first, 1e-9))
    kept = count - count // 10
    return Figures(workers, kept, wall, share, served_cpu, driver_cpu, *grown, idle)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", default="out/scheduler", type=Path)
    parser.add_argument("--workers", default="1,16,256,1000")
    parser.add_argument("--regions", type=int, default=0, help="by default ten for each worker")
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--dims", type=int, default=3)
    parser.add_argument("--single", action="store_true", help="one task per region instead of waves")
    parser.add_argument("--part", type=parse_part, default=Part(), help="of the regions")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    run = prepared(options.folder, options.dims)
    for workers in map(int, options.workers.split(",")):
        own = options.part.stretch(options.regions or 10 * workers * options.part.count)
        print(simulate(options.folder, run, workers, own, options.seconds, options.single), flush=True)


if __name__ == "__main__":
    main()
