"""Plates and images of many."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import zarr

if TYPE_CHECKING:
    from pathlib import Path


def save_image(group: zarr.Group, name: str, shape: tuple[int, int] = (96, 96), *, seed: int = 0) -> None:
    """Write an OME-Zarr image of smooth noise, in one chunk."""
    scale = [{"type": "scale", "scale": [0.5, 0.5]}]
    axes = [{"name": axis, "type": "space", "unit": "micrometer"} for axis in "yx"]
    levels = [{"path": "0", "coordinateTransformations": scale}]
    image = group.create_group(
        name, attributes={"ome": {"version": "0.5", "multiscales": [{"axes": axes, "datasets": levels}]}}
    )
    noise = np.random.default_rng(seed).integers(0, 256, (-(-shape[0] // 8), -(-shape[1] // 8)))
    values = np.kron(noise, np.ones((8, 8)))[: shape[0], : shape[1]].astype(np.uint8)
    image.create_array("0", shape=shape, chunks=shape, dtype="uint8")[...] = values


def save_plate(path: Path, fields: dict[str, list[str]], shape: tuple[int, int] = (96, 96)) -> Path:
    """Write a plate of wells, each with its fields."""
    plate = {"wells": [{"path": well} for well in fields]}
    root = zarr.create_group(path, attributes={"ome": {"version": "0.5", "plate": plate}})
    for number, (well, own) in enumerate(fields.items()):
        images = [{"path": field} for field in own]
        root.create_group(well, attributes={"ome": {"version": "0.5", "well": {"images": images}}})
        for place, field in enumerate(own):
            save_image(root, f"{well}/{field}", shape, seed=10 * number + place)
    return path
