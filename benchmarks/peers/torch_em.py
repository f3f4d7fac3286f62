"""torch-em: `predict_with_halo` in two threads, its own mirror, straight to Zarr."""

from __future__ import annotations

import os

import torch

from peers.job import SameSize, classes, open_job


def predict(source: str, sink: str, model: str) -> None:
    """Segment with torch-em."""
    _make_torchvision_load()
    from torch_em.util.prediction import predict_with_halo

    job = open_job(source, sink, model)
    workers = len(os.sched_getaffinity(0))
    predict_with_halo(
        job.image, SameSize(job.loaded.network), ["cpu"] * workers, (job.side,) * job.dims,
        (job.context,) * job.dims, output=job.result, preprocess=job.normalise, postprocess=classes,
        disable_tqdm=True,
    )  # fmt: skip


def _make_torchvision_load() -> None:
    """Let torchvision load without its kernels: torch-em draws with it, and its wheels ask for a torch with CUDA."""
    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        for name in ("nms", "qnms"):
            torch.library.define(
                f"torchvision::{name}", "(Tensor boxes, Tensor scores, float threshold) -> Tensor"
            )
