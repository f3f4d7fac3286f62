"""Peak memory of a worker against the plan's figure, over networks, tiles, products, classes and masks (bar C1).

    python benchmarks/memory_grid.py [FOLDER] [--only masked]

Each of the 52 runs is a command of its own with one worker. The bar: measured <= plan <= 1.4 x measured. Two groups
are held to the first half of it only. Of many classes, some outputs need not exist at the time that is planned for.
Within a mask, that of a tile as large as the mask allows is planned, and need not occur.
"""

from __future__ import annotations

import argparse
import itertools
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import zarr
from memory import run

from unet_dask import load_model, save_model
from unet_dask.engine.device import native_int8

if TYPE_CHECKING:
    from collections.abc import Iterator

TOOL = str(Path(sys.executable).with_name("unet-dask"))
SHAPES = {2: (1536, 1536), 3: (96, 192, 192)}
DEPTHS = {2: 3, 3: 2}
TILES = {2: ("", "256,256"), 3: ("", "32,64,64")}
WIDTHS = (8, 16, 32)
PRODUCTS = ("classes", "classes,probabilities")


@dataclass(frozen=True)
class Case:
    """A run of the grid."""

    group: str
    dims: int
    width: int
    tile: str = ""
    products: str = "classes"
    classes: int = 2
    depth: int = 0
    mask: bool = False
    settings: tuple[str, ...] = field(default=())

    def __str__(self) -> str:
        what = [f"{self.dims}-D", f"width {self.width}", f"tile {self.tile or 'planned'}", self.products]
        what += [f"{self.classes} classes"] * (self.classes > 2) + ["masked"] * self.mask
        return ", ".join([*what, " ".join(self.settings)]).rstrip(", ")


def cases() -> Iterator[Case]:
    for dims in SHAPES:
        for width, tile, products in itertools.product(WIDTHS, TILES[dims], PRODUCTS):
            yield Case("networks", dims, width, tile, products)
    averaged = ("--tta", "flips")
    as_bytes = ("--probability-dtype", "uint8")
    yield Case("classes", 2, 8, "512,512", classes=100, depth=1)
    yield Case("classes", 2, 8, "512,512", classes=30, depth=1, settings=averaged)
    yield Case("classes", 2, 16, products="classes,probabilities", classes=40, settings=as_bytes)
    yield Case("classes", 3, 8, classes=30)
    yield Case("classes", 3, 8, "32,64,64", classes=100, depth=1, settings=averaged)
    yield Case("classes", 2, 16, settings=averaged)
    for dims, width in ((2, 8), (2, 16), (2, 32), (3, 8), (3, 16), (3, 32)):
        yield Case("masked", dims, width, products="classes,probabilities", mask=True)
    if native_int8():
        for dims, width, tile in itertools.product(SHAPES, (*WIDTHS, 64), (0, 1)):
            yield Case("bytes", dims, width, TILES[dims][tile], settings=("--precision", "int8"))


def blobs(shape: tuple[int, ...]) -> np.ndarray:
    """Return a mask of balls of all sizes, so that the tiles that are fitted to it have many shapes."""
    rng = np.random.default_rng(1)
    axes = np.ogrid[tuple(slice(side) for side in shape)]
    mask = np.zeros(shape, np.uint8)
    for _ in range(12):
        centre, radius = rng.uniform(0, shape), rng.uniform(0.02, 0.15) * max(shape)
        mask |= sum((axis - at) ** 2 for axis, at in zip(axes, centre, strict=True)) < radius**2
    return mask


def volume(path: Path, values: np.ndarray) -> str:
    array = zarr.create_array(path, shape=values.shape, chunks=(64,) * values.ndim, dtype="uint8")
    array[...] = values
    return str(path)


def make_sure(path: Path) -> None:
    """Let a network of random weights be sure of its class everywhere, or reduced precision is refused."""
    model = load_model(path)
    model.network.classify.bias.data[0] += 100
    save_model(model, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", default="out/memory-grid", type=Path)
    parser.add_argument("--memory", default="3GiB")
    parser.add_argument("--only", choices=("networks", "classes", "masked", "bytes"))
    options = parser.parse_args()
    shutil.rmtree(options.folder, ignore_errors=True)
    options.folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for dims, shape in SHAPES.items():
        volume(options.folder / f"{dims}.zarr", rng.integers(0, 256, shape, dtype=np.uint8))
        volume(options.folder / f"{dims}-mask.zarr", blobs(shape))
    print(f"{'plan':>7} {'worker':>7} {'plan/worker':>11}   MiB")
    ratios: dict[str, list[float]] = {}
    for case in cases():
        if options.only in (None, case.group):
            plan, peak = measured(case, options.folder, options.memory)
            ratios.setdefault(case.group, []).append(plan / peak)
            print(f"{plan / 2**20:>7.0f} {peak / 2**20:>7.0f} {plan / peak:>11.3f}   {case}", flush=True)
    for group, found in ratios.items():
        print(f"{group}: plan / worker from {min(found):.3f} to {max(found):.3f} over {len(found)} runs")
    shutil.rmtree(options.folder)


def measured(case: Case, folder: Path, memory: str) -> tuple[int, int]:
    """Return what the plan says of a worker, and the most that it had, in bytes."""
    depth = case.depth or DEPTHS[case.dims]
    model = folder / f"{case.dims}-{case.width}-{depth}-{case.classes}.safetensors"
    sizes = {"dims": case.dims, "width": case.width, "depth": depth, "classes": case.classes}
    named = [text for name, value in sizes.items() for text in (f"--{name}", str(value))]
    subprocess.run([TOOL, "init", *named, "-o", str(model)], check=True, capture_output=True)
    make_sure(model)
    command = [TOOL, "segment", str(folder / f"{case.dims}.zarr"), "-o", str(folder / "sink.zarr")]
    command += ["-m", str(model), "--workers", "1", "--overwrite", "--memory", memory]
    command += ["--products", case.products, *case.settings]
    command += ["--tile", case.tile] if case.tile else []
    command += ["--mask", str(folder / f"{case.dims}-mask.zarr")] if case.mask else []
    outcome, _ = run([*command, "--json", "-q"])
    return outcome["plan"]["worker_bytes"], outcome["peak_bytes"]


if __name__ == "__main__":
    main()
