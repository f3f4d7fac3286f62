"""The bare loop that `end_to_end.py` compares with: the tiles of a plan in one process, and nothing around them.

    python benchmarks/gpu/loop.py SOURCE.zarr SINK.zarr MODEL.safetensors [--overlapped] [--stages FILE.json]

Grey values of a region go to the device at once, from pinned memory, and are normalised there, tile by tile; classes
are made there, and come back. Pyramids are made of what is at hand. Overlapped, the next region is read and the last
one written by a thread each while one is computed. Otherwise the device is waited for after every stage, and the
seconds of each stage are written to a file.
"""

from __future__ import annotations

import json
import os
import time
from collections import defaultdict
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import zarr
from clock import DTYPES, parsed, parser_of

from unet_dask.model.file import load_model
from unet_dask.model.folding import fold_batch_norm
from unet_dask.model.network import layout
from unet_dask.pipeline import plan_store
from unet_dask.products.coarse import voted
from unet_dask.tiling.mirror import extend

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray
    from torch import Tensor

    from unet_dask.model.header import Normalisation
    from unet_dask.planning.plan import Plan

Index = tuple[int, ...]


class AtOnce(Executor):
    """Does what it is given before it returns."""

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **more: Any) -> Future[Any]:
        """Return what was done."""
        done: Future[Any] = Future()
        done.set_result(function(*arguments, **more))
        return done


class Stages:
    """Seconds by stage.

    Parameters
    ----------
    device : that is waited for at the end of each; None to wait for nothing, and time nothing
    """

    def __init__(self, device: str | None) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._device = device

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time what is done within."""
        began = time.perf_counter()
        yield
        if self._device == "cuda":
            torch.cuda.synchronize()
        if self._device:
            self.seconds[name] += time.perf_counter() - began


@dataclass(frozen=True)
class Loop:
    """What is run, and with what.

    Attributes
    ----------
    plan : of the regions and tiles
    image : grey values, (y, x)
    levels : of the pyramid to write, the finest first
    network : on the device
    constants : of the normalisation
    dtype : of the network
    device : "cuda" or "cpu"
    stages : to time by
    """

    plan: Plan
    image: zarr.Array[Any]
    levels: list[zarr.Array[Any]]
    network: Callable[[Tensor], Tensor]
    constants: Normalisation
    dtype: torch.dtype
    device: str
    stages: Stages

    def run(self, reading: Executor, writing: Executor) -> None:
        """Run all regions; the next is asked for before one is computed."""
        indices = list(self.plan.grid.indices())
        coming = reading.submit(self.read, indices[0])
        written: Future[None] | None = None
        for index, following in zip_longest(indices, indices[1:]):
            window = coming.result()
            if following is not None:
                coming = reading.submit(self.read, following)
            classes = self.compute(index, window)
            if written is not None:
                written.result()  # one region waits to be written, not all of them
            written = writing.submit(self.write, index, classes)
        assert written is not None
        written.result()

    def read(self, index: Index) -> NDArray[np.uint8]:
        """Return what a region reads, (y, x), mirrored where it lies beyond the image."""
        grid = self.plan.grid
        with self.stages.stage("read"):
            clipped = grid.source_window(index)[1:]
            block = np.asarray(self.image[tuple(slice(a, b) for a, b in clipped)])
            return extend(
                block, origin=[a for a, _ in clipped], read=grid.read(index)[1:], shape=grid.shape[1:]
            )

    def compute(self, index: Index, window: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the classes of a region, (y, x)."""
        lengths = tuple(b - a for a, b in self.plan.grid.write(index)[1:])
        pinned = self.device == "cuda"
        with self.stages.stage("copy"):
            grey = torch.from_numpy(window)
            grey = (grey.pin_memory() if pinned else grey).to(self.device, non_blocking=True)
        classes = torch.empty(lengths, dtype=torch.uint8, device=self.device)
        grids = self.plan.spatial
        for core in product(*(grid.cores(n) for grid, n in zip(grids, lengths, strict=True))):
            with self.stages.stage("normalise"):
                tile = self._tile(grey, core)
            begun = "first forward" in self.stages.seconds  # it loads kernels
            with self.stages.stage("forward" if begun else "first forward"):
                logits = self.network(tile)
            with self.stages.stage("arg-max"):
                kept = [grid.kept(each, n) for grid, each, n in zip(grids, core, lengths, strict=True)]
                first = [
                    a - start + grid.phase for (a, _), (start, _), grid in zip(kept, core, grids, strict=True)
                ]
                source = tuple(slice(at, at + b - a) for at, (a, b) in zip(first, kept, strict=True))
                classes[tuple(slice(a, b) for a, b in kept)] = logits[(0, slice(None), *source)].argmax(0)
        with self.stages.stage("copy"):
            back = torch.empty(lengths, dtype=torch.uint8, pin_memory=pinned)
            back.copy_(classes, non_blocking=True)
            if pinned:
                torch.cuda.current_stream().synchronize()
        return back.numpy()

    def write(self, index: Index, classes: NDArray[np.uint8]) -> None:
        """Write a region, and what it is on the coarser levels."""
        start = [
            a - first
            for (a, _), (first, _) in zip(self.plan.grid.write(index), self.plan.grid.roi, strict=True)
        ]
        start, specs = start[1:], self.plan.arrays[0].levels
        for number, level in enumerate(self.levels):
            if number:
                step = specs[number].step_from(specs[number - 1])
                start = [at // by for at, by in zip(start, step, strict=True)]
                with self.stages.stage("pyramid"):
                    classes = voted(classes, step)
            with self.stages.stage("write"):
                level[tuple(slice(at, at + n) for at, n in zip(start, classes.shape, strict=True))] = classes

    def _tile(self, grey: Tensor, core: tuple[tuple[int, int], ...]) -> Tensor:
        """Return the network's input of a core; zero beyond the region, where no voxel that is kept looks."""
        whole = tuple(b - a + g.tile - g.core for (a, b), g in zip(core, self.plan.spatial, strict=True))
        part = grey[tuple(slice(a, a + n) for (a, _), n in zip(core, whole, strict=True))]
        ((offset,), (scale,)) = self.constants.offset, self.constants.scale
        tile = torch.zeros((1, 1, *whole), dtype=self.dtype, device=self.device)
        tile[(0, 0, *map(slice, part.shape))] = (part.float() - offset) / scale
        return tile.contiguous(memory_format=layout(2))


def levels_of(plan: Plan, sink: str) -> list[zarr.Array[Any]]:
    """Create the arrays of a pyramid, compressed as a sink's."""
    group, spec = zarr.create_group(sink, overwrite=True), plan.arrays[0]
    return [
        group.create_array(
            str(number), shape=level.shape, dtype=spec.dtype, chunks=spec.chunks, fill_value=spec.unwritten,
            compressors=zarr.codecs.ZstdCodec(level=1, checksum=True),
        )
        for number, level in enumerate(spec.levels)
    ]  # fmt: skip


def main() -> None:
    parser = parser_of(__doc__)
    for name in ("source", "sink", "model"):
        parser.add_argument(name)
    parser.add_argument("--precision", default="bfloat16")
    parser.add_argument("--memory", default="12GiB")
    parser.add_argument("--overlapped", action="store_true")
    parser.add_argument("--stages", type=Path)
    options = parsed(parser, {"precision": "float32", "memory": "1GiB"})
    device, dtype = options.device, DTYPES[options.precision]
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    plan = plan_store(
        options.source, options.model, memory=options.memory, device=device, precision=options.precision
    )
    model = load_model(options.model)
    network = fold_batch_norm(model.network).eval().to(memory_format=layout(2)).to(device=device, dtype=dtype)
    stages = Stages(None if options.overlapped else device)
    loop = Loop(
        plan, zarr.open_array(options.source, mode="r"), levels_of(plan, options.sink), network,
        model.header.normalisation, dtype, device, stages,
    )  # fmt: skip
    with (
        torch.inference_mode(),
        torch.backends.cudnn.flags(enabled=True, allow_tf32=False),
        ThreadPoolExecutor(1) if options.overlapped else AtOnce() as reading,
        ThreadPoolExecutor(1) if options.overlapped else AtOnce() as writing,
    ):
        loop.run(reading, writing)
    if options.stages:
        options.stages.write_text(json.dumps(stages.seconds), encoding="utf-8")


if __name__ == "__main__":
    main()
