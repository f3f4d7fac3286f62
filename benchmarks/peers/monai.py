"""MONAI: `sliding_window_inference` used exactly, an overlap-tile over the mirrored image, in memory.

Each window weighs nothing but its core, and the cores lie side by side.
"""

from __future__ import annotations

import numpy as np
import torch

from peers.job import SameSize, classes, open_job


def predict(source: str, sink: str, model: str) -> None:
    """Segment with MONAI, exactly."""
    from monai.inferers import sliding_window_inference

    job = open_job(source, sink, model)
    window = job.side + 2 * job.context
    core = torch.zeros((window,) * job.dims)
    core[(slice(job.context, job.context + job.side),) * job.dims] = 1
    whole = job.normalise(np.pad(job.image[...], job.filled(job.side), mode="reflect"))
    with torch.no_grad():
        scores = sliding_window_inference(
            torch.from_numpy(whole)[None, None], (window,) * job.dims, 1, SameSize(job.loaded.network),
            overlap=1 - (job.side + 0.5) / window, roi_weight_map=core,
        )  # fmt: skip
    job.result[...] = classes(scores[0].numpy()[(slice(None), *job.inner)])
