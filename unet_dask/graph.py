"""Waves of regions through dask: the only `map_overlap` of the project.

A wave is a box of neighbouring regions. Its array has one block per region; `map_overlap` completes each block
with the context from its neighbours, and :class:`RegionTask` does everything else on the worker: mirror,
network, write, flush. What comes back is a record of a few hundred bytes, never a voxel.

The blocks of a stored volume are windows that nobody has read (`io.source.unread`). Completing them is arithmetic,
so all of a region's graph is fused into one task, which reads its window itself: no voxel travels between workers,
and what fails or dies is one region.

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
from typing import TYPE_CHECKING, Any

import numpy as np

from unet_dask.ledger import Entry

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import dask.array as da
    from dask.task_spec import Task
    from numpy.typing import NDArray

    from unet_dask.engine.cache import NetworkKey
    from unet_dask.engine.infer import Counter, OutputSpec
    from unet_dask.io.sink.store import Sink
    from unet_dask.io.source.mask import Mask
    from unet_dask.io.source.unread import Unread
    from unet_dask.model.header import NetworkSpec, Normalisation
    from unet_dask.tiling.region import RegionGrid, Wave

Index = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Record:
    """What a worker tells of a finished piece of work.

    Attributes
    ----------
    entry : for the ledger
    seconds : of wall time from when the region was taken in hand, see `engine.turns`
    worker : process number
    peak_bytes : most resident memory of the worker so far
    loads : networks the worker has loaded so far
    exact : tiles that were run in float32 because they reach beyond what bytes can say
    """

    entry: Entry
    seconds: float
    worker: int
    peak_bytes: int
    loads: int
    exact: int = 0


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
    """

    grid: RegionGrid
    outputs: tuple[OutputSpec, ...]
    network: NetworkKey
    normalisation: Normalisation
    spec: NetworkSpec
    threads: int
    nan: str
    tta: str = "none"
    mask: Mask | None = None
    memory: int = 0

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
        from unet_dask.engine import infer, turns
        from unet_dask.tiling.mirror import extend

        grid, axes = self.grid, self.grid.axes
        write = grid.write(index)
        inside = None if self.mask is None else self.mask.inside(write)
        # (*planes, c, *space): the channel axis stands just before those along which the network looks.
        channel, before_space = axes.index("c"), len(axes) - self.spec.dims - 1
        if inside is not None and not inside.any():
            return self.background(index)
        origin = tuple(start for start, _ in grid.clipped(index))
        block = infer.check_finite(block, origin=origin, axes=axes, nan=self.nan)
        window = extend(block, origin=origin, read=grid.read(index), shape=grid.shape)
        with turns.computing:
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
                    self.network.exact(),
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
        from unet_dask.instances import numbered

        grid = self.grid
        kept = [axis for axis, name in enumerate(grid.axes) if name != "c"]
        start = [grid.write(index)[axis][0] - grid.roi[axis][0] for axis in kept]
        shape = [grid.roi[axis][1] - grid.roi[axis][0] for axis in kept]
        for output, values in zip(self.outputs, made, strict=True):
            if output.name == "instances":
                yield numbered(values, start=start, shape=shape, dims=self.spec.dims, dtype=output.dtype)  # type: ignore[arg-type] # classes are whole numbers
            else:
                yield values


@dataclass(frozen=True)
class WriteRegion:
    """The task of an eager run: segment one region, write it, return its record.

    Attributes
    ----------
    task : what to compute
    sink : where to write
    start : index of the wave's first region
    """

    task: RegionTask
    sink: Sink
    start: Index

    def __call__(self, block: Unread, block_info: Mapping[int, Mapping[str, Any]]) -> NDArray[np.object_]:
        """Return an array of one element, the :class:`Record`."""
        from unet_dask.engine.infer import Counter
        from unet_dask.engine.turns import in_hand

        location = block_info[0]["chunk-location"]
        index = tuple(int(first + offset) for first, offset in zip(self.start, location, strict=True))
        counter, records = Counter(), np.empty((1,) * block.ndim, dtype=np.object_)
        with in_hand:
            began = time.perf_counter()
            entry = _write(self.sink, self.task, index, self.task.products(index, block.read(), counter))
            records.flat[0] = record(entry, began, exact=counter.exact)
        return records


def write_background(sink: Sink, task: RegionTask, index: Index) -> Record:
    """Write a region that lies outside of the mask, on a worker: background is really written, and recorded."""
    from unet_dask.engine.turns import in_hand

    with in_hand:
        began = time.perf_counter()
        return record(_write(sink, task, index, task.background(index)), began)


def _write(sink: Sink, task: RegionTask, index: Index, products: tuple[NDArray[np.generic], ...]) -> Entry:
    """Write the products of a region, with canonical axes, and return its entry for the ledger."""
    grid = task.grid
    checksums: dict[str, str] = {}
    place = tuple(a - first for (a, _), (first, _) in zip(grid.write(index), grid.roi, strict=True))
    channel = grid.axes.index("c")
    for output, values in zip(task.outputs, products, strict=True):
        start = place
        if not output.has_channels:
            values = values.squeeze(channel)
            start = place[:channel] + place[channel + 1 :]
        digest = sink.write(output.name, 0, start, values)
        if output.name != "instances":  # whose numbers are provisional: see unet_dask.run.join
            checksums[output.name] = digest
    return Entry(index, 0, checksums)


@dataclass(frozen=True)
class ReturnRegion:
    """The task of a lazy array: segment one region and return its values."""

    task: RegionTask

    def __call__(
        self, block: NDArray[np.generic], block_info: Mapping[int, Mapping[str, Any]]
    ) -> NDArray[np.generic]:
        """Return the values of the first product."""
        return self.task.products(tuple(map(int, block_info[0]["chunk-location"])), block)[0]


def overlapped(
    function: WriteRegion | ReturnRegion,
    blocks: da.Array,
    wave: Wave,
    *,
    chunks: tuple[tuple[int, ...], ...],
    dtype: np.dtype[Any],
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


def wave_tasks(volume: Unread, wave: Wave, function: WriteRegion) -> dict[Index, Task]:
    """Return one task for every region of a wave of a volume, which returns an array of one :class:`Record`.

    All tasks of a run are one group to the scheduler, which never forgets a group.
    """
    import dask.array as da

    window = volume[tuple(slice(*each) for each in wave.window)]
    name = os.urandom(8).hex()
    blocks = da.from_array(
        window,
        chunks=wave.chunks,
        name=f"read-{name}",
        asarray=False,
        lock=False,
        meta=np.empty((0,) * window.ndim, window.dtype),
        inline_array=True,
    )
    ones = tuple((1,) * len(sizes) for sizes in wave.chunks)
    records = overlapped(function, blocks, wave, chunks=ones, dtype=np.dtype(object), name=name)
    return {
        tuple(first + place for first, place in zip(wave.start, task.key[2:], strict=True)): task
        for task in _fused(records, group=f"segment-{volume.run}")
    }


def _fused(blocks: da.Array, *, group: str) -> Iterator[Task]:
    """Yield every block, and all that leads to it, as a single task, whose key begins with a group."""
    import dask
    from dask.core import flatten
    from dask.task_spec import Task

    (blocks,) = dask.optimize(blocks)
    graph = dict(blocks.__dask_graph__())
    for key in flatten(blocks.__dask_keys__()):
        needed, open_ends = {}, {key}
        while open_ends:
            each = open_ends.pop()
            needed[each] = graph[each]
            open_ends |= graph[each].dependencies - needed.keys()
        yield Task.fuse(*needed.values(), key=(group, *key))


def record(entry: Entry, began: float, *, exact: int = 0) -> Record:
    """Return the record of work that began at a time of `perf_counter`."""
    from unet_dask.engine import cache

    return Record(entry, time.perf_counter() - began, os.getpid(), peak_bytes(), cache.loads(), exact)


def peak_bytes() -> int:
    """Return the most resident memory that this process has had."""
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak << 10
