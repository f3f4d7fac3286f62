"""Two regions in hand, one network at a time, however many threads a worker has."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tests.oracle import write_array
from tests.run.test_run import make_model
from unet_dask import graph
from unet_dask.engine import infer, slots
from unet_dask.engine.cache import NetworkKey
from unet_dask.io.sink import store as sinks
from unet_dask.io.source.lazy_window import LazyWindow
from unet_dask.pipeline import plan_store

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


@dataclass
class Most:
    """Counts how many are within at once."""

    now: int = 0
    most: int = 0

    def __enter__(self) -> None:
        with _counting:
            self.now += 1
            self.most = max(self.most, self.now)
        time.sleep(0.02)

    def __exit__(self, *_: object) -> None:
        with _counting:
            self.now -= 1


_counting = threading.Lock()


def test_one_network_runs_while_another_region_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model(tmp_path)
    image = np.random.default_rng(0).integers(0, 256, (128, 256), dtype="u1")
    source = write_array(tmp_path / "s.zarr", image)
    sizes: dict[str, Any] = {"region": (32, 32), "tile": (32, 32), "chunks": (32, 32), "memory": "1GiB"}
    plan = plan_store(source, model, **sizes)
    sink = sinks.Sink(str(tmp_path / "sink.zarr"), plan.arrays)
    sinks.create(sink, {}, class_names=("a", "b"), spacing={}, unit={}, translation={}, name="x")
    reading, computing, either = Most(), Most(), Most()
    read, run = LazyWindow.read_stamped, infer.infer

    def reads(window: LazyWindow) -> Any:
        with either, reading:
            return read(window)

    def runs(*arguments: Any, **options: Any) -> Any:
        with either, computing:
            return run(*arguments, **options)

    monkeypatch.setattr(LazyWindow, "read_stamped", reads)
    monkeypatch.setattr(infer, "infer", runs)
    task = graph.RegionTask(
        grid=plan.grid,
        outputs=plan.outputs,
        network=NetworkKey(str(model.path), model.checksum, "cpu", "float32"),
        normalisation=model.header.normalisation,
        spec=model.header.network,
        threads=1,
        nan="stop",
    )
    volume = LazyWindow(plan.source.spec, tuple((0, size) for size in plan.source.shape), plan.source.dtype)
    tasks = [
        each
        for wave in plan.grid.waves(64)
        for each in graph.wave_tasks(volume, wave, graph.WriteRegion(task, sink)).values()
    ]
    assert len(tasks) == len(plan.grid) == 32
    with ThreadPoolExecutor(8) as threads:
        records = list(threads.map(lambda each: each(), tasks))
    assert {record.entry.index for record in records} == set(plan.grid.indices())
    assert computing.most == 1
    assert either.most == slots.REGION_SLOTS == 2
