"""daisy: `run_blockwise` with two worker processes of one thread each; reading and mirroring are the user's."""

from __future__ import annotations

import os
import shutil
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import zarr

from peers.job import classes, open_job, same_size
from unet_dask import load_model

if TYPE_CHECKING:
    import daisy

    from unet_dask.model.file import Model


def predict(source: str, sink: str, model: str) -> None:
    """Segment with daisy."""
    import daisy
    from daisy.logging import set_log_basedir

    logs = Path(f"{sink}.logs")
    set_log_basedir(logs)
    job = open_job(source, sink, model)
    dims, context, workers = job.dims, job.context, len(os.sched_getaffinity(0))
    window, core = (job.side + 2 * context,) * dims, (job.side,) * dims
    task = daisy.Task(
        "segment",
        total_roi=daisy.Roi((-context,) * dims, tuple(size + 2 * context for size in job.image.shape)),
        read_roi=daisy.Roi((-context,) * dims, window),
        write_roi=daisy.Roi((0,) * dims, core),
        process_function=partial(segment_block, source=source, sink=sink, model=model),
        read_write_conflict=False,
        fit="overhang",
        max_workers=workers,
    )
    if not daisy.run_blockwise([task], progress=False):
        raise RuntimeError("some blocks failed")
    shutil.rmtree(logs, ignore_errors=True)


def segment_block(block: daisy.Block, source: str, sink: str, model: str) -> None:
    """Segment one block in a worker."""
    loaded, network = _loaded(model)
    image, result = zarr.open_array(source, mode="r"), zarr.open_array(sink, mode="r+")
    read = list(zip(block.read_roi.begin, block.read_roi.end, image.shape, strict=True))
    widths = [(max(-start, 0), max(stop - size, 0)) for start, stop, size in read]
    inside = image[tuple(slice(max(start, 0), min(stop, size)) for start, stop, size in read)]
    window = loaded.normalise(np.pad(inside, widths, mode="reflect")[None])
    with torch.no_grad():
        scores = network(torch.from_numpy(window)[None])[0].numpy()
    write = list(zip(block.write_roi.begin, block.write_roi.end, image.shape, strict=True))
    inner = tuple(
        slice(first - start, min(last, size) - start)
        for (first, last, size), (start, _, _) in zip(write, read, strict=True)
    )
    result[tuple(slice(first, min(last, size)) for first, last, size in write)] = classes(scores)[inner]


@cache
def _loaded(model: str) -> tuple[Model, torch.nn.Module]:
    torch.set_num_threads(1)
    return load_model(model), same_size(model)
