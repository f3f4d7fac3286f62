"""Train in three dimensions on a part of a volume, segment the rest, and score its objects.

    python examples/volume/nuclei.py 1135_mini.h5 [-o FOLDER] [--iterations 1000]

The file is of PlantSeg's test data (nuclei of an Arabidopsis ovule): `raw` and `label` of (z, y, x). The first 70 of
its 100 rows are learnt from, the other 30 are scored: they are apart along y, so no nucleus is in both but those cut.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import zarr

import unet_dask
from unet_dask.metrics.contingency import contingency
from unet_dask.metrics.objects import match, seg
from unet_dask.train.config import RECIPES
from unet_dask.train.events import Validated
from unet_dask.train.loop import train

ROWS = 70


def write(path: Path, values: np.ndarray) -> Path:
    """Write values as a Zarr array of named axes."""
    chunks = tuple(min(64, side) for side in values.shape)
    names = ["z", "y", "x"]
    array = zarr.create_array(
        path, shape=values.shape, chunks=chunks, dtype=values.dtype, dimension_names=names, overwrite=True
    )
    array[...] = values
    return path


def main() -> None:
    """Prepare, train, segment, score."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path("out") / "volume")
    parser.add_argument("--iterations", type=int, default=1000)
    parser.add_argument("--width", type=int, default=8)
    options = parser.parse_args()
    out: Path = options.output
    out.mkdir(parents=True, exist_ok=True)
    with h5py.File(options.file, "r") as opened:
        raw, labels = opened["raw"][...], opened["label"][...].astype(np.uint16)
    config = replace(
        RECIPES["fast"],
        dims=3,
        width=options.width,
        depth=2,
        tile=(16, 24, 24),
        iterations=options.iterations,
        target_kind="instances",
        class_names=("background", "nucleus"),
        balance=0.5,
        validation=0.15,
        validate_every=max(options.iterations // 10, 1),
        threads=1,
    )

    def report(event: object) -> None:
        if isinstance(event, Validated):
            print(
                f"iteration {event.iteration}: loss {event.loss:.3f}, mean IoU {event.score:.3f}", flush=True
            )

    result = train(
        write(out / "raw.zarr", raw[:, :ROWS]),
        write(out / "label.zarr", labels[:, :ROWS]),
        out / "nuclei.safetensors",
        config,
        resume=(out / "nuclei.checkpoint").exists(),
        on_event=report,
    )
    source = write(out / "rest.zarr", raw[:, ROWS:])
    sink = out / "rest.seg.zarr"
    unet_dask.segment_store(
        source, sink, result.model, products="classes,instances", workers=1, overwrite=True
    )
    found = np.asarray(zarr.open_array(sink, path="instances/0", mode="r")[...])
    table = contingency(labels[:, ROWS:], found)
    score, half = seg(table), match(table, (0.5,))[0]
    print(f"{score.below} nuclei: SEG {score.value:.3f}, F1 at an overlap of a half {half.f1.value:.3f}")


if __name__ == "__main__":
    main()
