"""The oracle: one pass of the network over the whole mirrored image."""

from __future__ import annotations

import numpy as np
import torch

from peers.job import open_job
from unet_dask.model.cost import pass_bytes
from unet_dask.model.file import inspect_model
from unet_dask.tiling.valid import aligned


def predict(source: str, sink: str, model: str) -> None:
    """Segment in one pass."""
    job = open_job(source, sink, model)
    spec = job.loaded.header.network
    widths = [
        (job.halo, spec.contexts[0].input_size(aligned(size, spec.stride[0])) - size - job.halo)
        for size in job.image.shape
    ]
    whole = torch.from_numpy(job.normalise(np.pad(job.image[...], widths, mode="reflect")))
    with torch.no_grad():
        scores = job.loaded.network(whole[None, None])[0]
    made = scores.argmax(dim=0).numpy().astype(np.uint8)
    job.result[...] = made[tuple(slice(size) for size in job.image.shape)]


def bytes_needed(size: int, model: str) -> int:
    """Return the bytes of feature maps of that pass."""
    spec = inspect_model(model).header.network
    side = spec.contexts[0].input_size(aligned(size, spec.stride[0]))
    return int(pass_bytes(spec, (side,) * spec.dims, item=4))
