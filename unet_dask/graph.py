"""Waves of regions through dask: the only `map_overlap` of the project.

A wave is a box of neighbouring regions. Its array has one block per region; `map_overlap` completes each block
with the context from its neighbours, and :class:`RegionTask` does everything else on the worker: mirror,
network, write, flush. What comes back is a record of a few hundred bytes, never a voxel.

The blocks of a stored volume are windows that nobody has read (`io.source.lazy_window`). Completing them is arithmetic,
which the driver does; what it submits is one task a region, which reads its window itself: no voxel travels between
workers, what fails or dies is one region, and workers need not know Dask's arrays.

How it is used well, each point a trap that was measured:

- ``boundary="none"``: dask's "reflect" repeats the edge sample; the mirror is made in the worker.
- ``trim=False``: the valid convolutions eat the context; dask's own trimming is wrong once a class axis appears.
- ``allow_rechunk=False``: a thin last block would silently move the edges off the store's chunks.
- only ``chunk-location`` is taken from ``block_info``; its positions are those of the overlapped array.
- one graph per wave, so that neither client nor scheduler grow with the volume.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from unet_dask.errors import InputError
from unet_dask.io.sink.place import NUMBERS
from unet_dask.ledger import Entry

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator, Mapping

    import dask.array as da
    from dask.task_spec import Task
    from numpy.typing import NDArray

    from unet_dask.engine.cache import NetworkKey
    from unet_dask.engine.infer import Counter
    from unet_dask.io.sink.store import Sink
    from unet_dask.io.source.lazy_window import LazyWindow
    from unet_dask.io.source.mask import Mask
    from unet_dask.model.header import Normalisation
    from unet_dask.model.spec import Spec
    from unet_dask.products import Product
    from unet_dask.tiling.region import RegionGrid, Wave

Index = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Record:
    """What a worker tells of a finished piece of work.

    Attributes
    ----------
    entry : for the ledger
    seconds : of wall time from when the region was taken in hand, see `engine.slots`
    worker : process number
    peak_bytes : most resident memory of the worker so far
    loads : networks the worker has loaded so far
    float32_fallbacks : tiles that were run in float32 because they reach beyond what bytes can say
    attempt : that staged what was written, "" if it lies in its place: see `io.sink.session`
    unshaped : objects beginning there that are too large to be given another shape
    """

    entry: Entry
    seconds: float
    worker: int
    peak_bytes: int
    loads: int
    float32_fallbacks: int = 0
    attempt: str = ""
    unshaped: int = 0


@dataclass(frozen=True)
class RegionTask:
    """What a worker computes from the completed block of a region.

    Attributes
    ----------
    grid : of all regions
    outputs : products
    network : which, and how to run it; no weights
    normalisation : constants of the whole volume
    spec : of the network
    threads : of the network; 0 leaves them as they are
    nan : "stop" or "zero"
    tta : symmetries to average over
    mask : what to segment; None for everything
    memory : bytes that a worker may hold; 0 for as many as there are
    core : class whose pieces become objects; 0 for every class but background
    """

    grid: RegionGrid
    outputs: tuple[Product, ...]
    network: NetworkKey
    normalisation: Normalisation
    spec: Spec
    threads: int
    nan: str
    tta: str = "none"
    mask: Mask | None = None
    memory: int = 0
    core: int = 0

    def products(
        self, index: Index, block: NDArray[np.generic], counter: Counter | None = None
    ) -> tuple[NDArray[np.generic], ...]:
        """Return the products of a region, with canonical axes; classes have a channel axis of one.

        Parameters
        ----------
        index : of the region
        block : completed, but not mirrored
        counter : of tiles that were run otherwise than was asked
        """
        from unet_dask.engine import slots
        from unet_dask.engine.finite import check_finite
        from unet_dask.tiling.mirror import extend

        grid, axes = self.grid, self.grid.axes
        write = grid.write(index)
        inside = None if self.mask is None else self.mask.inside(write)
        # (*planes, c, *space): the channel axis stands just before those along which the network looks.
        channel, before_space = axes.index("c"), len(axes) - self.spec.dims - 1
        if inside is not None and not inside.any():
            return self.background(index)
        origin = tuple(start for start, _ in grid.source_window(index))
        block = check_finite(block, origin=origin, axes=axes, nan=self.nan)
        window = extend(block, origin=origin, read=grid.read(index), shape=grid.shape)
        with slots.computing:
            made = self._computed(np.moveaxis(window, channel, before_space), write, inside, counter)
        return tuple(
            np.moveaxis(
                values if output.has_channels else np.expand_dims(values, before_space), before_space, channel
            )
            for output, values in zip(self.outputs, self._with_objects(index, made), strict=True)
        )

    def _computed(
        self,
        window: NDArray[np.generic],
        write: tuple[tuple[int, int], ...],
        inside: NDArray[np.bool_] | None,
        counter: Counter | None,
    ) -> tuple[NDArray[np.generic], ...]:
        """Return what the network makes of a window, within what this process may hold."""
        from unet_dask.engine import cache, heap, infer
        from unet_dask.engine.device import use_threads

        if self.threads:
            use_threads(self.threads)
        heap.grant(self.memory)
        try:
            return infer.infer(
                window,
                grids=self.grid.grids[-self.spec.dims :],
                write=write[-self.spec.dims :],
                through=infer.Pass(
                    cache.network(self.network),
                    self.normalisation,
                    self.spec,
                    self.tta,
                    self.network.in_float32(),
                    counter or infer.Counter(),
                ),
                outputs=self.outputs,
                inside=inside,
            )
        finally:
            heap.grant(0)  # this process may serve other runs

    def background(self, index: Index) -> tuple[NDArray[np.generic], ...]:
        """Return the products of a region that lies outside of the mask, with canonical axes."""
        shape = [stop - start for start, stop in self.grid.write(index)]
        channel = self.grid.axes.index("c")
        products = []
        for output in self.outputs:
            values = output.background(self.spec.classes)
            shape[channel] = self.spec.classes if output.has_channels else 1
            along = [-1 if axis == channel else 1 for axis in range(len(shape))]
            products.append(np.ascontiguousarray(np.broadcast_to(values.reshape(along), shape)))
        return tuple(products)

    def _with_objects(
        self, index: Index, made: tuple[NDArray[np.generic], ...]
    ) -> Iterator[NDArray[np.generic]]:
        """Yield the products of a region, with numbers in place of classes where objects are asked for."""
        from unet_dask.objects.pieces import numbered

        whole = self.grid.whole
        start = self.grid.box(index).relative_to(whole).in_space_and_time.start
        shape = whole.in_space_and_time.shape
        number = partial(numbered, start=start, shape=shape, dims=self.spec.dims, core=self.core)
        for output, values in zip(self.outputs, made, strict=True):
            # What is joined is kept as classes, which are whole numbers.
            yield number(values, dtype=output.dtype) if output.joined else values  # type: ignore[arg-type]


@dataclass(frozen=True)
class WriteRegion:
    """The task of an eager run: segment one region, write it, return its record.

    Attributes
    ----------
    task : what to compute
    sink : where to write
    """

    task: RegionTask
    sink: Sink

    def __call__(self, index: Index, window: LazyWindow) -> Record:
        """Return the record of a region.

        Parameters
        ----------
        index : of the region
        window : all that it reads of the volume
        """
        from unet_dask.engine.infer import Counter
        from unet_dask.engine.slots import region_slots

        counter = Counter()
        with region_slots:
            began = time.perf_counter()
            values, stamp = window.read_stamped()
            products = self.task.products(index, values, counter)
            del values
            with self.sink.attempted() as sink:
                entry = _write(sink, self.task, index, products, stamp)
                return record(entry, began, float32_fallbacks=counter.float32_fallbacks, attempt=sink.attempt)


def write_background(sink: Sink, task: RegionTask, index: Index) -> Record:
    """Write a region that lies outside of the mask, on a worker: background is really written, and recorded."""
    from unet_dask.engine.slots import region_slots

    with region_slots:
        began = time.perf_counter()
        with sink.attempted() as own:
            return record(_write(own, task, index, task.background(index)), began, attempt=own.attempt)


def _write(
    sink: Sink, task: RegionTask, index: Index, products: tuple[NDArray[np.generic], ...], stamp: str = ""
) -> Entry:
    """Write the products of a region, with canonical axes, and return its entry for the ledger."""
    checksums: dict[str, str] = {}
    place = task.grid.box(index).relative_to(task.grid.whole)
    channel = place.axes.index("c")
    for output, values in zip(task.outputs, products, strict=True):
        start = place.start
        if not output.has_channels:
            values, start = values.squeeze(channel), place.in_space_and_time.start
        if output.joined:  # later, and then they take their place: see unet_dask.run.join
            sink.write(NUMBERS, 0, start, values)
        else:
            checksums[output.name] = sink.write(output.name, 0, start, values)
    return Entry(index, 0, checksums, stamp)


@dataclass(frozen=True)
class ReturnRegion:
    """The task of a lazy array: segment one region and return its values."""

    task: RegionTask

    def __call__(
        self, block: NDArray[np.generic], block_info: Mapping[int, Mapping[str, Any]]
    ) -> NDArray[np.generic]:
        """Return the values of the first product."""
        if isinstance(block, np.ma.MaskedArray):  # dask was not told so
            raise InputError(
                "A block of the image is a masked array, and a network sees every value. Fill it."
            )
        return self.task.products(tuple(map(int, block_info[0]["chunk-location"])), block)[0]


def overlapped(
    function: Callable[..., NDArray[np.generic]],
    blocks: da.Array,
    wave: Wave,
    *,
    chunks: tuple[tuple[int, ...], ...],
    dtype: np.dtype[np.generic],
    name: str | None = None,
) -> da.Array:
    """Return `function` of every block of a wave, completed with its context: the one `map_overlap`.

    Parameters
    ----------
    function : of the completed block
    blocks : the wave's window of the volume, one block per region
    wave : to run
    chunks, dtype : of what the function returns
    name : of the result; None lets dask derive it
    """
    import dask.array as da

    return da.map_overlap(
        function,
        blocks,
        depth=dict(enumerate(wave.depth)),
        boundary="none",
        trim=False,
        allow_rechunk=False,
        chunks=chunks,
        dtype=dtype,
        meta=np.empty((0,) * blocks.ndim, dtype),
        name=name,
    )


def wave_tasks(volume: LazyWindow, wave: Wave, function: WriteRegion) -> dict[Index, Task]:
    """Return one task for every region of a wave of a volume, which returns its :class:`Record`.

    All tasks of a run are one group to the scheduler, which never forgets a group.
    """
    from dask.task_spec import Task

    group, name = f"segment-{volume.run}", os.urandom(8).hex()
    tasks = {}
    for place, window in windows(volume, wave).items():
        index = tuple(first + offset for first, offset in zip(wave.start, place, strict=True))
        tasks[index] = Task((group, name, *place), function, index, window)
    return tasks


def windows(volume: LazyWindow, wave: Wave) -> dict[Index, LazyWindow]:
    """Return what each region of a wave reads of a volume, by its place in the wave."""
    window = volume[tuple(slice(*each) for each in wave.window)]
    if len(wave) == 1:  # it has no neighbour to be completed by
        return {(0,) * window.ndim: window}
    import dask
    import dask.array as da
    from dask.core import flatten

    blocks = da.from_array(
        window,
        chunks=wave.chunks,
        name="read",  # a name of its own would be a hash, and the graph does not leave this function
        asarray=False,
        lock=False,
        meta=np.empty((0,) * window.ndim, window.dtype),
        inline_array=True,
    )
    ones = tuple((1,) * len(sizes) for sizes in wave.chunks)
    (completed,) = dask.optimize(
        overlapped(_held, blocks, wave, chunks=ones, dtype=np.dtype(object), name="completed")
    )
    graph = dict(completed.__dask_graph__())
    made: dict[Hashable, Any] = {}

    def value(key: Hashable) -> Any:  # a window, or an array of one
        """Return what a node makes; Dask's own schedulers take five times as long to order so little."""
        if key not in made:
            made[key] = graph[key]({each: value(each) for each in graph[key].dependencies})
        return made[key]

    return {tuple(key[1:]): value(key).flat[0] for key in flatten(completed.__dask_keys__())}


def _held(block: LazyWindow) -> NDArray[np.object_]:
    """Return a window as an array of one object, which is what Dask's arrays are made of."""
    held = np.empty((1,) * block.ndim, dtype=np.object_)
    held.flat[0] = block
    return held


def record(
    entry: Entry, began: float, *, float32_fallbacks: int = 0, attempt: str = "", unshaped: int = 0
) -> Record:
    """Return the record of work that began at a time of `perf_counter`."""
    from unet_dask.engine import cache

    seconds = time.perf_counter() - began
    return Record(
        entry, seconds, os.getpid(), peak_bytes(), cache.loads(), float32_fallbacks, attempt, unshaped
    )


def peak_bytes() -> int:
    """Return the most resident memory that this process has had, and not what its parent had before it."""
    import resource
    import sys

    try:
        with open("/proc/self/status", "rb") as file:  # noqa: PTH123 # often, and small
            return next(int(line.split()[1]) << 10 for line in file if line.startswith(b"VmHWM:"))
    except (OSError, StopIteration):  # not Linux
        # Linux hands this figure down when a process starts another, so it comes second.
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak << 10
