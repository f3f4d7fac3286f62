"""What the two volumes share: a pair of Zarr arrays to learn from, the rest to be segmented."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr

import unet_dask
from unet_dask.training.events import Validated
from unet_dask.training.loop import train

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from unet_dask.training.config import TrainConfig


def arguments(doc: str | None, name: str) -> argparse.ArgumentParser:
    """Return what both scripts are told."""
    parser = argparse.ArgumentParser(description=doc)
    parser.add_argument("data", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path("out") / name)
    parser.add_argument("--iterations", type=int, default=1000)
    parser.add_argument("--width", type=int, default=8)
    return parser


def write(path: Path, values: NDArray[Any]) -> Path:
    """Write values as a Zarr array of named axes."""
    chunks = tuple(min(64, side) for side in values.shape)
    names = ["z", "y", "x"]
    array = zarr.create_array(
        path, shape=values.shape, chunks=chunks, dtype=values.dtype, dimension_names=names, overwrite=True
    )
    array[...] = values
    return path


def learn(out: Path, images: NDArray[Any], targets: NDArray[Any], config: TrainConfig) -> Path:
    """Train, or go on with it, and return the model."""

    def report(event: object) -> None:
        if isinstance(event, Validated):
            print(
                f"iteration {event.iteration}: loss {event.loss:.3f}, mean IoU {event.score:.3f}", flush=True
            )

    out.mkdir(parents=True, exist_ok=True)
    places = write(out / "raw.zarr", images), write(out / "label.zarr", targets)
    again = (out / "model.checkpoint").exists()
    return train(*places, out / "model.safetensors", config, resume=again, on_event=report).model


def segmented(out: Path, volume: NDArray[Any], model: Path, product: str, **settings: object) -> NDArray[Any]:
    """Segment a volume with some settings of `segment`, and return a product of it."""
    sink = out / "rest.seg.zarr"
    source = write(out / "rest.zarr", volume)
    unet_dask.segment_store(
        source, sink, model, products=f"classes,{product}", workers=1, overwrite=True, **settings
    )
    return np.asarray(zarr.open_array(sink, path=f"{product}/0", mode="r")[...])
