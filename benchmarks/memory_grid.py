"""Peak memory of a worker against the plan's figure, over networks, tiles, products and dimensions (bar C1).

    python benchmarks/memory_grid.py [FOLDER]

Each of the 24 runs is a command of its own with one worker. The bar: measured <= plan <= 1.4 x measured.
"""

from __future__ import annotations

import argparse
import itertools
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import zarr
from memory import run

TOOL = str(Path(sys.executable).with_name("unet-dask"))
#: dims -> shape of the volume, depth of the network, tiles
SHAPES = {2: ((1536, 1536), 3, ("", "256,256")), 3: ((96, 192, 192), 2, ("", "32,64,64"))}
WIDTHS = (8, 16, 32)
PRODUCTS = ("classes", "classes,probabilities")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", default="out/memory-grid", type=Path)
    parser.add_argument("--memory", default="3GiB")
    options = parser.parse_args()
    shutil.rmtree(options.folder, ignore_errors=True)
    options.folder.mkdir(parents=True)
    print(
        f"{'dims':>4} {'width':>5} {'tile':>9} {'products':>22} {'plan':>7} {'worker':>7} {'plan/worker':>11}   MiB"
    )
    ratios = []
    for dims, (shape, depth, tiles) in SHAPES.items():
        source = options.folder / f"{dims}.zarr"
        array = zarr.create_array(source, shape=shape, chunks=(64,) * dims, dtype="uint8")
        array[...] = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        for width in WIDTHS:
            model = options.folder / f"{dims}-{width}.safetensors"
            sizes = ("--dims", str(dims), "--width", str(width), "--depth", str(depth))
            subprocess.run([TOOL, "init", *sizes, "-o", str(model)], check=True, capture_output=True)
            for tile, products in itertools.product(tiles, PRODUCTS):
                places = (str(source), "-o", str(options.folder / "sink.zarr"), "-m", str(model))
                settings = (
                    "--workers",
                    "1",
                    "--overwrite",
                    "--memory",
                    options.memory,
                    "--products",
                    products,
                )
                chosen = ("--tile", tile) if tile else ()
                outcome, _ = run([TOOL, "segment", *places, *settings, *chosen, "--json", "-q"])
                plan, peak = outcome["plan"]["worker_bytes"], outcome["peak_bytes"]
                ratios.append(plan / peak)
                print(
                    f"{dims:>4} {width:>5} {tile or 'planned':>9} {products:>22} {plan / 2**20:>7.0f} "
                    f"{peak / 2**20:>7.0f} {ratios[-1]:>11.3f}",
                    flush=True,
                )
    print(f"plan / worker from {min(ratios):.3f} to {max(ratios):.3f} over {len(ratios)} configurations")
    shutil.rmtree(options.folder)


if __name__ == "__main__":
    main()
