"""Segment a volume in Zarr from Python: plan, run, resume, look.

The volume is synthetic and small, so that this runs anywhere in a minute; with a path of yours in place of
`source`, the same lines segment a terabyte.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import zarr

import unet_dask
from unet_dask.demo.synthetic import nuclei


def write_volume(path: Path) -> None:
    """Write a (z, y, x) stack of four slices, chunked like a microscope's export."""
    slices = [nuclei((700, 900), seed=seed)[0] for seed in range(4)]
    array = zarr.create_array(
        str(path),
        shape=(4, 700, 900),
        dtype="uint16",
        chunks=(1, 256, 256),
        dimension_names=["z", "y", "x"],
    )
    array[:] = np.stack(slices)


def main(folder: Path) -> None:
    """Segment, resume, and draw."""
    source, sink = folder / "volume.zarr", folder / "volume.seg.zarr"
    write_volume(source)

    # What will it cost? Nothing is run, and nothing is written.
    plan = unet_dask.plan_store(source, "nuclei", memory="2GiB")
    for label, text in plan.describe():
        print(f"{label:>18}  {text}")

    # Killed at any moment, the same call with resume=True goes on where it was.
    run = unet_dask.segment_store(source, sink, "nuclei", workers=1, memory="2GiB", resume=True)
    print(run.summary())

    classes = zarr.open_array(str(sink), path="classes/0", mode="r")
    print(f"{float(np.mean(np.asarray(classes[:]) == 1)):.1%} of the voxels are nucleus")
    print(unet_dask.preview(sink, folder / "volume.png", z=2).path)


# Workers are started afresh and import this file; without the guard they would run it too.
if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as scratch:
            main(Path(scratch))
