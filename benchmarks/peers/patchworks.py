"""patchworks: `tile_process` over a mirrored dask array in two threads; its labels are copied to the sink as classes.

It numbers objects and merges those that touch, so it knows background and foreground, two classes.
"""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import dask
import dask.array as da
import numpy as np
import torch

from peers.job import SameSize, classes, open_job

if TYPE_CHECKING:
    from numpy.typing import NDArray


def predict(source: str, sink: str, model: str) -> None:
    """Segment with patchworks."""
    from patchworks import tile_process

    job = open_job(source, sink, model)
    stride, workers = job.loaded.header.network.stride[0], len(os.sched_getaffinity(0))
    torch.set_num_threads(1)
    network = SameSize(job.loaded.network)

    def labels(tile: NDArray[np.generic]) -> NDArray[np.int32]:
        with torch.no_grad():
            scores = network(torch.from_numpy(job.normalise(tile))[None, None])
        return classes(scores[0].numpy()).astype(np.int32)

    whole = da.pad(da.from_zarr(job.image), job.filled(stride), mode="reflect")
    # As many tiles as the image has blocks; the mirrored rim makes each a little larger.
    tile = tuple(
        -(-extended // (-(-size // job.side) * stride)) * stride
        for size, extended in zip(job.image.shape, whole.shape, strict=True)
    )
    store = f"{sink}.labels.zarr"
    numbered = tile_process(
        whole,
        labels,
        tile_shape=tile,
        overlap=job.context,
        max_workers=workers,
        progress=False,
        write_to=store,
    )
    with dask.config.set(num_workers=workers):
        da.store((numbered[job.inner] > 0).astype(np.uint8).rechunk(job.result.chunks), job.result)
    shutil.rmtree(store)
