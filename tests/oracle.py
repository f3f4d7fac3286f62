"""The slow oracle: one forward pass over the whole mirrored image."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
import zarr

from unet_dask.engine.infer import softmax
from unet_dask.tiling import valid

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from unet_dask.model.file import Model


def whole_image(model: Model, image: NDArray[np.generic]) -> NDArray[np.float32]:
    """Return probabilities (classes, *space) of one pass over (c, *space), padded with numpy's reflect."""
    return softmax(whole_logits(model, image))


def whole_logits(model: Model, image: NDArray[np.generic]) -> NDArray[np.float32]:
    """Return what :func:`whole_image` takes the softmax of."""
    network = model.header.network
    pad = [(0, 0)]
    for size, halo, stride, slack in zip(
        image.shape[1:], network.halo, network.stride, network.slack, strict=True
    ):
        pad.append((halo, valid.aligned(size, stride) + slack - size + halo))
    padded = np.pad(image, pad, mode="reflect")
    with torch.inference_mode():
        logits = model.network(torch.from_numpy(model.normalise(padded))[None])[0].numpy()
    found: NDArray[np.float32] = logits[(slice(None), *(slice(0, size) for size in image.shape[1:]))]
    return found


def write_array(path: Path, values: NDArray[np.generic], *, chunks: tuple[int, ...] | None = None) -> Path:
    """Write values as a Zarr array without names of axes."""
    array = zarr.create_array(
        path, shape=values.shape, dtype=values.dtype, chunks=chunks or tuple(min(64, n) for n in values.shape)
    )
    array[...] = values
    return path


def disagreement(found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    """Return the largest difference of probabilities, infinite where a voxel was never written."""
    return float(np.nan_to_num(np.abs(found - expected), nan=np.inf).max())


def sure_classes_differ(
    classes: NDArray[np.generic], expected: NDArray[np.float32], *, margin: float = 1e-5
) -> int:
    """Return how many voxels have another class although their best two probabilities differ by more."""
    best = np.sort(expected, axis=0)
    sure = best[-1] - best[-2] > margin
    return int((classes != expected.argmax(axis=0))[sure].sum())
