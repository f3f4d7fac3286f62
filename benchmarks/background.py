"""What a slide of mostly glass costs with `--mask auto`, against the whole slide (bar S4).

    python benchmarks/background.py [FOLDER] [--side 8192] [--width 16] [--tissue 0.15] [--workers 2] [--rounds 1]
        [--precision bfloat16]

The slide is an RGB pyramid with three blots of tissue on white glass. Both runs do the same work but for the mask; the
time of the masked run, as a share of the whole, is compared with the share of tissue. The two runs take turns.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import zarr

from unet_dask.model.file import new_model, save_model
from unet_dask.model.header import NetworkSpec, Normalisation

if TYPE_CHECKING:
    from numpy.typing import NDArray


def tissue_of(side: int, share: float) -> NDArray[np.bool_]:
    """Return three blots with ragged edges that cover a share of a square."""
    rng = np.random.default_rng(0)
    y, x = np.indices((side, side)) / side
    field = np.full((side, side), -1.0)
    for row, column in ((0.3, 0.3), (0.65, 0.6), (0.35, 0.75)):
        angle = np.arctan2(y - row, x - column)
        ragged = sum(rng.uniform(-0.02, 0.02) * np.sin(k * angle + rng.uniform(0, 6)) for k in range(2, 9))
        field = np.maximum(field, ragged - np.hypot(y - row, x - column))
    return field > np.quantile(field, 1 - share)


def write_slide(path: Path, side: int, share: float) -> float:
    """Write the pyramid, band by band, and return the share of tissue."""
    coarse = tissue_of(side // 16, share)
    group = zarr.create_group(path, overwrite=True)
    datasets = []
    rng = np.random.default_rng(1)
    for level in range(5):
        size, step = side >> level, 16 >> level
        array = group.create_array(str(level), shape=(3, size, size), chunks=(3, 512, 512), dtype="u1")
        for top in range(0, size, 512):
            rows = coarse[top // step : -(-(top + 512) // step)].repeat(step, 0)[: min(512, size - top)]
            band = rows.repeat(step, 1)[:, :size]
            values = 235 + rng.normal(0, 3, (3, *band.shape)).astype(np.float32)
            stain = np.array([-40, -120, -50], np.float32)[:, None, None]
            values += band * stain * rng.uniform(0.6, 1.4, band.shape).astype(np.float32)
            array[:, top : top + 512] = np.clip(values, 0, 255).astype(np.uint8)
        scale = {"type": "scale", "scale": [1.0, 2.0**level, 2.0**level]}
        datasets.append({"path": str(level), "coordinateTransformations": [scale]})
    axes = [{"name": "c", "type": "channel"}, *({"name": axis, "type": "space"} for axis in "yx")]
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": datasets}]}
    return float(coarse.mean())


def timed(*command: str) -> tuple[float, float]:
    """Return wall and CPU seconds of unet-dask and all of its children."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, "-m", "unet_dask_cli", *command], check=True)
    after, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter() - began
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", default="out/background", type=Path)
    for name, default in (("side", 8192), ("width", 16), ("workers", 2), ("rounds", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--tissue", type=float, default=0.15)
    parser.add_argument(
        "--precision", default="float32", help="the network is not trained, so auto is float32 too"
    )
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    model, source = options.folder / "model.safetensors", options.folder / "slide.zarr"
    normalisation = Normalisation("constant", (200.0,) * 3, (50.0,) * 3)
    save_model(new_model(NetworkSpec(width=options.width, channels=3), normalisation=normalisation), model)
    share = write_slide(source, options.side, options.tissue)
    how = ("--precision", options.precision)
    common = ("-m", str(model), "-j", str(options.workers), *how, "-q", "--overwrite")
    for number in range(options.rounds):
        whole = timed("segment", str(source), "-o", str(options.folder / "whole.zarr"), *common)
        part = timed(
            "segment", str(source), "-o", str(options.folder / "part.zarr"), *common, "--mask", "auto"
        )
        print(
            f"round {number}: tissue {share:.3f}; whole {whole[0]:.1f} s wall, {whole[1]:.1f} CPU s; masked "
            f"{part[0]:.1f} s, {part[1]:.1f} CPU s; share of the time {part[0] / whole[0]:.3f} wall, "
            f"{part[1] / whole[1]:.3f} CPU: {part[0] / whole[0] / share:.2f} x and {part[1] / whole[1] / share:.2f} x "
            "the tissue",
            flush=True,
        )


if __name__ == "__main__":
    main()
