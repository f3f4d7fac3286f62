"""Waves of regions through dask: the only `map_overlap` of the project.

A wave is a box of neighbouring regions. Its array has one block per region; `map_overlap` completes each block
with the context from its neighbours, and :class:`RegionTask` does everything else on the worker: mirror,
network, write, flush. What comes back is a record of a few hundred bytes, never a voxel.

How it is used well, each point a trap that was measured:

- ``boundary="none"``: dask's "reflect" repeats the edge sample; the mirror is made in the worker.
- ``trim=False``: the valid convolutions eat the context; dask's own trimming is wrong once a class axis appears.
- ``allow_rechunk=False``: a thin last block would silently move the edges off the store's chunks.
- only ``chunk-location`` is taken from ``block_info``; its positions are those of the overlapped array.
- one graph per wave, so that neither client nor scheduler grow with the volume.
"""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from unet_dask.errors import ClusterError, UnetDaskError
from unet_dask.ledger import Entry

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

    import dask.array as da
    from distributed import Client, Future
    from numpy.typing import NDArray

    from unet_dask.engine.cache import NetworkKey
    from unet_dask.engine.infer import OutputSpec
    from unet_dask.io.sink import Sink
    from unet_dask.io.source import SourceSpec
    from unet_dask.model.header import Normalisation
    from unet_dask.tiling.region import RegionGrid, Wave

logger = logging.getLogger(__name__)

Index = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Record:
    """What a worker tells of a finished piece of work.

    Attributes
    ----------
    entry : for the ledger
    seconds : of wall time in the task
    worker : process number
    peak_bytes : most resident memory of the worker so far
    loads : networks the worker has loaded so far
    """

    entry: Entry
    seconds: float
    worker: int
    peak_bytes: int
    loads: int


@dataclass(frozen=True, slots=True)
class Failure:
    """A piece of work that could not be done; the others go on.

    Attributes
    ----------
    index : of the region
    level : 0 for a region, else of the pyramid
    reason : one line
    """

    index: Index
    level: int
    reason: str


@dataclass(frozen=True, slots=True)
class SourceWindow:
    """A box of the source that looks like an array to dask; it is read block by block, on the workers."""

    spec: SourceSpec
    origin: tuple[int, ...]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def __getitem__(self, window: tuple[slice, ...]) -> NDArray[np.generic]:
        """Read a part of the box."""
        from unet_dask.io.source import read_window

        return read_window(
            self.spec,
            tuple(
                slice(first + part.start, first + part.stop)
                for first, part in zip(self.origin, window, strict=True)
            ),
        )


@dataclass(frozen=True)
class RegionTask:
    """What a worker does with the completed block of a region.

    Attributes
    ----------
    start : index of the wave's first region
    grid : of all regions
    sink : to write to
    outputs : products
    network : which, and how to run it; no weights
    normalisation : constants of the whole volume
    dims, classes : of the network
    threads : of the network
    nan : "stop" or "zero"
    """

    start: Index
    grid: RegionGrid
    sink: Sink
    outputs: tuple[OutputSpec, ...]
    network: NetworkKey
    normalisation: Normalisation
    dims: int
    classes: int
    threads: int
    nan: str

    def __call__(
        self, block: NDArray[np.generic], block_info: Mapping[int, Mapping[str, Any]]
    ) -> NDArray[np.object_]:
        """Segment one region, write it, and return its record as an array of one element."""
        began = time.perf_counter()
        location = block_info[0]["chunk-location"]
        index = tuple(int(first + offset) for first, offset in zip(self.start, location, strict=True))
        entry = Entry(index, 0, self._segment(index, block))
        return np.full((1,) * block.ndim, record(entry, began), dtype=object)

    def _segment(self, index: Index, block: NDArray[np.generic]) -> dict[str, str]:
        from unet_dask.engine import cache, infer
        from unet_dask.engine.device import use_threads
        from unet_dask.tiling.mirror import extend

        use_threads(self.threads)
        grid, axes = self.grid, self.grid.axes
        origin = tuple(start for start, _ in grid.clipped(index))
        infer.check_finite(block, origin=origin, axes=axes, nan=self.nan)
        window = extend(block, origin=origin, read=grid.read(index), shape=grid.shape)
        # (\*planes, c, \*space): the channel axis stands just before those along which the network looks.
        channel, before_space = axes.index("c"), len(axes) - self.dims - 1
        products = infer.infer(
            np.moveaxis(window, channel, before_space),
            grids=grid.grids[-self.dims :],
            write=grid.write(index)[-self.dims :],
            backend=cache.network(self.network),
            normalisation=self.normalisation,
            outputs=self.outputs,
            classes=self.classes,
        )
        checksums = {}
        for output, values in zip(self.outputs, products, strict=True):
            place = {
                axis: start - first
                for axis, (start, _), (first, _) in zip(axes, grid.write(index), grid.roi, strict=True)
            }
            if output.has_channels:
                values = np.moveaxis(values, before_space, channel)
                start = tuple(place[axis] for axis in axes)
            else:
                start = tuple(place[axis] for axis in axes if axis != "c")
            checksums[output.name] = self.sink.write(output.name, 0, start, values)
        return checksums


def wave_array(spec: SourceSpec, dtype: np.dtype[Any], wave: Wave, task: RegionTask) -> da.Array:
    """Return the records of a wave as a lazy array with one element per region."""
    import dask.array as da

    window = wave.window
    source = SourceWindow(spec, tuple(a for a, _ in window), tuple(b - a for a, b in window), dtype)
    name = f"wave-{os.urandom(8).hex()}"
    blocks = da.from_array(
        source,
        chunks=wave.chunks,
        name=f"read-{name}",
        asarray=False,
        lock=False,
        meta=np.empty((0,) * source.ndim, dtype),
        inline_array=True,
    )
    return da.map_overlap(
        task,
        blocks,
        depth=dict(enumerate(wave.depth)),
        boundary="none",
        trim=False,
        allow_rechunk=False,
        chunks=tuple((1,) * len(sizes) for sizes in wave.chunks),
        dtype=object,
        meta=np.empty((0,) * source.ndim, object),
        name=f"segment-{name}",
    )


def submit_wave(
    client: Client, array: da.Array, wave: Wave, wanted: Collection[Index], priority: int
) -> dict[Future, Index]:
    """Submit the wanted regions of a wave, each with a future of its own."""
    blocks = array.to_delayed(optimize_graph=True)
    chosen = {
        index: blocks[tuple(each - first for each, first in zip(index, wave.start, strict=True))]
        for index in wave.indices()
        if index in wanted
    }
    futures = client.compute(list(chosen.values()), priority=priority, optimize_graph=False)
    return dict(zip(futures, chosen, strict=True))


def run_waves(
    client: Client,
    waves: Iterable[Wave],
    wanted: Collection[Index],
    build: Callable[[Wave], da.Array],
    *,
    low_water: int,
) -> Iterator[Record | Failure]:
    """Run the wanted regions, wave after wave, and yield each result as it comes.

    A wave is submitted as soon as no more than `low_water` regions are in flight, so that workers never wait
    and the scheduler never holds more than about two waves.
    """

    def batches() -> Iterator[Callable[[], dict[Future, Index]]]:
        for number, wave in enumerate(waves):
            if any(index in wanted for index in wave.indices()):
                yield lambda wave=wave, number=number: submit_wave(client, build(wave), wave, wanted, -number)

    for index, outcome in _drain(client, batches(), low_water=low_water):
        if isinstance(outcome, str):
            yield Failure(index, 0, outcome)
        else:
            yield outcome.reshape(-1)[0]


def run_calls(
    client: Client,
    function: Callable[..., Any],
    calls: Iterable[tuple[Index, tuple[Any, ...]]],
    *,
    in_flight: int,
) -> Iterator[tuple[Index, Any]]:
    """Run ``function(*arguments)`` for each (index, arguments), a bounded number at a time.

    Yields
    ------
    index and result, in the order in which they come; a reason (str) in place of a result that failed
    """

    def batches() -> Iterator[Callable[[], dict[Future, Index]]]:
        for index, arguments in calls:
            yield lambda index=index, arguments=arguments: {
                client.submit(function, *arguments, pure=False): index
            }

    yield from _drain(client, batches(), low_water=in_flight)


def record(entry: Entry, began: float) -> Record:
    """Return the record of work that began at a time of `perf_counter`."""
    from unet_dask.engine import cache

    return Record(entry, time.perf_counter() - began, os.getpid(), peak_bytes(), cache.loads())


def peak_bytes() -> int:
    """Return the most resident memory that this process has had."""
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak << 10


def _drain(
    client: Client, batches: Iterator[Callable[[], dict[Future, Index]]], *, low_water: int
) -> Iterator[tuple[Index, Any]]:
    """Keep more than `low_water` futures in flight while there are batches; yield what each came to."""
    from distributed import as_completed

    in_flight: dict[Future, Index] = {}
    finished = as_completed(loop=client.loop, raise_errors=False)
    waiting = deque(_next(batches))
    try:
        while waiting or in_flight:
            while waiting and len(in_flight) <= low_water:
                futures = waiting.popleft()()
                in_flight |= futures
                finished.update(list(futures))
                waiting.extend(_next(batches))
            future = next(finished)
            index = in_flight.pop(future)
            outcome = _outcome(future)
            future.release()
            yield index, outcome
    finally:
        if in_flight:
            client.cancel(list(in_flight), force=True)


def _next(batches: Iterator[Callable[[], dict[Future, Index]]]) -> list[Callable[[], dict[Future, Index]]]:
    """Return the next batch, if there is one."""
    batch = next(batches, None)
    return [] if batch is None else [batch]


def _outcome(future: Future) -> Any:  # whatever the task returned
    """Return a finished future's result, or the reason of its failure in one line.

    Raises
    ------
    ClusterError
        If the scheduler or all workers were lost, so that no region can be done any more.
    """
    from distributed import KilledWorker

    if future.status in ("cancelled", "lost"):
        raise ClusterError("The connection to the scheduler was lost. What is done is kept; use --resume.")
    if future.status == "finished":
        return future.result()
    error = future.exception()
    if type(error).__name__ == "NoWorkerError":
        raise ClusterError("No worker is left. What is done is kept; start workers and use --resume.")
    if isinstance(error, KilledWorker):
        return "its worker was killed every time, most likely for memory; try a larger --memory"
    reason = str(error) if isinstance(error, UnetDaskError) else f"{type(error).__name__}: {error}"
    return " ".join(reason.split())
