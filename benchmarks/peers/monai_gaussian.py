"""MONAI: `sliding_window_inference` as it is most often used, windows blended by a Gaussian, in memory.

Blending asks for scores as large as the window, so the network pads its convolutions with zeros. The image is extended
by the few voxels that put these windows on the pooling lattice of the valid network.
"""

from __future__ import annotations

import numpy as np
import torch

from peers.job import classes, open_job, zero_padded


def predict(source: str, sink: str, model: str) -> None:
    """Segment with MONAI, blended."""
    from monai.inferers import sliding_window_inference

    job = open_job(source, sink, model)
    stride = job.loaded.header.network.stride[0]
    # A padded network pools where the valid one does if it begins 2 voxels beyond a point of the lattice.
    before = stride - 2
    widths = [(before, -(size + before) % stride) for size in job.image.shape]
    whole = job.normalise(np.pad(job.image[...], widths, mode="reflect"))
    with torch.no_grad():
        scores = sliding_window_inference(
            torch.from_numpy(whole)[None, None], (job.side,) * job.dims, 1, zero_padded(job.loaded.network),
            overlap=0.25, mode="gaussian",
        )  # fmt: skip
    inner = tuple(slice(before, before + size) for size in job.image.shape)
    job.result[...] = classes(scores[0].numpy()[(slice(None), *inner)])
