"""A result and its source, written as a run would, without a network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import zarr

from tests.manifests import manifest_of
from unet_dask.io.sink import store as sinks
from unet_dask.io.sink.multiscale import pyramid
from unet_dask.io.sink.store import ArraySpec, Sink
from unet_dask.io.source.volume import open_source

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Made:
    source: Path
    sink: Path


SHAPE = (6, 300, 400)
#: The part of the source that the result covers.
ROI = ((2, 6), (40, 300), (0, 400))
CHUNKS = (2, 64, 64)


def make(folder: Path, *, unwritten_rows: int = 0) -> Made:
    """Write a source and a result of it, as a run would, without a network."""
    source, sink = folder / "image.zarr", folder / "image.seg.zarr"
    rng = np.random.default_rng(0)
    array = zarr.create_array(
        str(source), shape=SHAPE, dtype="uint16", chunks=CHUNKS, dimension_names=["z", "y", "x"]
    )
    values = rng.integers(100, 200, SHAPE).astype("uint16")
    values[:, 100:150, 100:200] += 1000
    array[:] = values
    size = tuple(stop - start for start, stop in ROI)
    specs = (
        ArraySpec("classes", "zyx", "uint8", CHUNKS, None, pyramid("zyx", size, {})),
        ArraySpec(
            "probabilities",
            "czyx",
            "float32",
            (1, *CHUNKS),
            None,
            pyramid("czyx", (2, *size), {}),
        ),
    )
    place = Sink(str(sink), specs)
    manifest = manifest_of(
        specs, ("background", "bright"), shape=SHAPE, roi=ROI, identity=open_source(source).identity()
    )
    sinks.create(
        place,
        manifest,
        class_names=("background", "bright"),
        spacing={},
        unit={},
        translation={},
        name="image",
    )
    classes = (values > 500).astype("uint8")[tuple(slice(a, b) for a, b in ROI)]
    written = size[1] - unwritten_rows
    place.write("classes", 0, (0, 0, 0), classes[:, :written])
    probability = np.stack([1 - classes, classes]).astype("float32")
    place.write("probabilities", 0, (0, 0, 0, 0), probability[:, :, :written])
    return Made(source, sink)
