"""Results with objects that a test chose: a run is made, and its label image is written over."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import zarr
from scipy import ndimage

import unet_dask

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from unet_dask.workers.cluster import Cluster

#: Micrometres of a pixel of the finest level.
SIZE = {"z": 2.0, "y": 0.5, "x": 0.25}


def save_image(
    path: Path, values: NDArray[Any], axes: str, *, levels: int = 1, zarr_format: Literal[2, 3] = 3
) -> Path:
    """Write an OME-Zarr image whose pixels have a size, with coarser levels; version 0.4 in Zarr 2, 0.5 in Zarr 3."""
    old = zarr_format == 2
    group = zarr.create_group(str(path), zarr_format=zarr_format)
    space = [axis for axis in axes if axis in "zyx"]
    kind: Any = {"chunk_key_encoding": {"name": "v2", "separator": "/"}} if old else {}
    datasets = []
    for level in range(levels):
        step = tuple(slice(None, None, 2**level if axis in "yx" else 1) for axis in axes)
        part = np.ascontiguousarray(values[step])
        chunks = tuple(min(48, size) for size in part.shape)
        array = group.create_array(str(level), shape=part.shape, dtype=part.dtype, chunks=chunks, **kind)
        array[...] = part
        scale = [SIZE[axis] * (2**level if axis in "yx" else 1) if axis in space else 1.0 for axis in axes]
        transformations = [{"type": "scale", "scale": scale}]
        datasets.append({"path": str(level), "coordinateTransformations": transformations})
    kinds = {"c": "channel", "t": "time"}
    named = [
        {"name": axis, "type": "space", "unit": "micrometer"} if axis in space else {"name": axis, "type": kinds[axis]}
        for axis in axes
    ]  # fmt: skip
    multiscale: Any = {"axes": named, "datasets": datasets}
    ome: Any = {"version": "0.5", "multiscales": [multiscale]}
    group.attrs.update({"multiscales": [multiscale | {"version": "0.4"}]} if old else {"ome": ome})
    return path


def blobs(shape: tuple[int, ...], dims: int, *, seed: int = 0, share: float = 0.25) -> NDArray[np.uint32]:
    """Return a label image of objects of odd shapes, numbered by the place of their first voxel."""
    random = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(random.random(shape), [0] * (len(shape) - dims) + [2] * dims)
    mask = smooth > np.quantile(smooth, 1 - share)
    links = np.zeros((3,) * len(shape), bool)
    for axis in range(len(shape) - dims, len(shape)):
        links[tuple(slice(None) if place == axis else 1 for place in range(len(shape)))] = True
    pieces, count = ndimage.label(mask, links)
    first = ndimage.minimum(np.arange(1, mask.size + 1).reshape(shape), pieces, np.arange(1, count + 1))
    return np.append(0, np.asarray(first)).astype(np.uint32)[pieces]


def relabelled(sink: Path, labels: NDArray[Any], classes: NDArray[Any] | None = None) -> Path:
    """Write other objects into a result."""
    for name, values in (("instances", labels), ("classes", classes)):
        if values is not None:
            zarr.open_array(str(sink / name / "0"), mode="r+")[...] = values
    return sink


def segmented(source: Path, sink: Path, model: Path, cluster: Cluster, **settings: Any) -> Path:
    """Run a network whose objects nobody looks at."""
    settings = {"products": "classes,instances", "chunks": (32, 32), "memory": "1GiB", **settings}
    unet_dask.segment_store(source, sink, model, client=cluster.client, **settings)
    return sink


def shape_of(sink: Path) -> tuple[int, ...]:
    """Return the shape of the label image."""
    return tuple(zarr.open_array(str(sink / "instances/0"), mode="r").shape)


def stored(sink: Path, name: str) -> NDArray[Any]:
    """Return the finest level of a product."""
    return np.asarray(zarr.open_array(str(sink / name / "0"), mode="r")[...])
