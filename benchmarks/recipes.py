"""The recipes side by side: the paper's and "fast", the same network, images, augmentation and number of iterations.

    python benchmarks/recipes.py IMAGES TARGETS [--config FILE.toml] [--width 16] [--iterations 600]

Three trainings, one after the other: the paper's recipe as it stands (momentum 0.99, dropout, no normalisation), the
paper's with batch normalisation, and fast (Adam, normalisation, average of the weights). Printed is what is held out,
by iterations and by CPU seconds, since an iteration with normalisation takes longer.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from pathlib import Path

import psutil

TOOL = str(Path(sys.executable).with_name("unet-dask"))
RECIPES = {
    "paper": ("--recipe", "paper"),
    "paper, normalised": ("--recipe", "paper", "--batch-norm"),
    "fast": ("--recipe", "fast"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", type=Path)
    parser.add_argument("targets", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path("out") / "recipes")
    parser.add_argument("--config", type=Path, help="what all three share")
    parser.add_argument("--width", default="16")
    parser.add_argument("--iterations", default="600")
    parser.add_argument("--tile", default="256")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    print(f"{'recipe':>18} {'iteration':>9} {'pixel error':>11} {'mean IoU':>8} {'CPU s':>7}")
    for name, recipe in RECIPES.items():
        model = options.output / f"{name.replace(', ', '-')}.safetensors"
        sizes = ("--width", options.width, "--iterations", options.iterations, "--tile", options.tile)
        every = ("--validate-every", str(max(int(options.iterations) // 4, 1)), "--threads", "1", "-q")
        config = ("--config", str(options.config)) if options.config else ()
        command = [TOOL, "train", str(options.images), str(options.targets), "-o", str(model)]
        cpu = _run([*command, *recipe, *config, *sizes, *every])
        with model.with_suffix(".csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        for row in rows:
            share = float(row["seconds"]) / float(rows[-1]["seconds"])
            print(
                f"{name:>18} {row['iteration']:>9} {float(row['pixel_error']):>11.4f} {float(row['score']):>8.3f} "
                f"{share * cpu:>7.0f}",
                flush=True,
            )


def _run(command: list[str]) -> float:
    """Run a command to its end, and return its CPU seconds."""
    seconds = 0.0
    with psutil.Popen(command) as process:
        while process.poll() is None:
            try:
                times = process.cpu_times()
                seconds = times.user + times.system
            except psutil.Error:
                break
            time.sleep(0.5)
    if process.returncode:
        sys.exit(f"{' '.join(command)} ended with {process.returncode}")
    return seconds


if __name__ == "__main__":
    main()
