"""What the three experiments share: commands that are printed, run, and can be typed by hand."""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import tifffile
import zarr

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Experiment:
    """One experiment of section 4 of the paper.

    Attributes
    ----------
    name : of the recipe's file and of the model
    metrics : to report
    evaluate : further options of `unet-dask evaluate`
    paper : figures of the paper, by metric
    """

    name: str
    metrics: str
    evaluate: tuple[str, ...]
    paper: dict[str, float]


def write_training(folder: Path, images: Sequence[NDArray], targets: Sequence[NDArray]) -> None:
    """Write pairs of images and targets as two folders of TIFF files."""
    for kind, arrays in (("images", images), ("targets", targets)):
        shutil.rmtree(folder / kind, ignore_errors=True)
        (folder / kind).mkdir(parents=True)
        for number, array in enumerate(arrays):
            tifffile.imwrite(folder / kind / f"{number:03}.tif", array, compression="deflate")


def write_test(folder: Path, images: NDArray, truth: NDArray) -> None:
    """Write the stack to segment as Zarr, one plane a chunk, and its truth as a TIFF stack."""
    array = zarr.create_array(
        folder / "test.zarr",
        shape=images.shape,
        chunks=(1, *images.shape[1:]),
        dtype=images.dtype,
        dimension_names=["z", "y", "x"],
        overwrite=True,
    )
    array[...] = images
    tifffile.imwrite(folder / "truth.tif", truth, photometric="minisblack", compression="deflate")


def run(*command: str | Path) -> str:
    """Print a command of unet-dask, run it, and return what it wrote to standard output."""
    words = [str(word) for word in command]
    print("$ unet-dask", *words, flush=True)
    done = subprocess.run(
        [sys.executable, "-m", "unet_dask_cli", *words], check=True, stdout=subprocess.PIPE, text=True
    )
    return done.stdout


def reproduce(experiment: Experiment, prepare: Callable[[Path, Path], None]) -> None:
    """Train, segment what was not trained on, score it, and draw it."""
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
    parser.add_argument("data", type=Path, help="folder with the data set")
    parser.add_argument("-o", "--output", type=Path, default=Path("out") / experiment.name)
    parser.add_argument("--width", type=int, help="feature channels of the first level, the paper's are 64")
    parser.add_argument("--iterations", type=int)
    parser.add_argument("--tile", type=int)
    parser.add_argument("--tta", default="rotations", choices=["none", "flips", "rotations"])
    options = parser.parse_args()
    out = options.output
    out.mkdir(parents=True, exist_ok=True)
    prepare(options.data, out)
    model, sink = out / f"{experiment.name}.safetensors", out / "result.zarr"
    recipe = ["--recipe", "fast", "--config", HERE / f"{experiment.name}.toml"]
    for name in ("width", "iterations", "tile"):
        if getattr(options, name) is not None:
            recipe += [f"--{name}", str(getattr(options, name))]
    again = ["--resume"] if model.with_suffix(".checkpoint").exists() else []
    run("train", out / "images", out / "targets", "-o", model, *recipe, *again)
    products = ("--products", "classes,probabilities")
    run("segment", out / "test.zarr", "-o", sink, "-m", model, "--tta", options.tta, *products, "--overwrite")
    scores = run(
        *("evaluate", sink, out / "truth.tif", "--metrics", experiment.metrics, "--json"),
        *experiment.evaluate,
    )
    (out / "scores.json").write_text(scores, encoding="utf-8")
    print(json.dumps(json.loads(scores), indent=2))
    print("figures of the paper:", experiment.paper)
    run("preview", sink, "-o", out / "result.png")


def planes(paths: Sequence[Path]) -> NDArray:
    """Read images of one shape into a stack."""
    return np.stack([tifffile.imread(path) for path in paths])
