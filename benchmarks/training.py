"""An iteration of `train` against the bare forward and backward pass of the same network (bar P4), and the weight map.

    python benchmarks/training.py [--width 16] [--tile 256] [--iterations 30] [--threads 1] [--rounds 3]
    python benchmarks/training.py --device cuda --precision bfloat16 --width 64 --tile 384 --threads 4

The bare loop repeats one tile that is drawn beforehand: forward, energy, backward, update. The training draws, deforms
and varies a new one for every iteration, in a thread beside. The two take turns; quoted are medians, their ratio, and
what they are in voxels of the target and, at three times a forward pass, in FLOP per second. Each iteration waits for
its loss, so that on a GPU too the clock says what an iteration takes.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import tifffile
import torch
from scipy import ndimage

from unet_dask.io.images.annotated import read_annotated
from unet_dask.model.cost import tile_flop
from unet_dask.model.header import NetworkSpec
from unet_dask.training.config import RECIPES, TrainConfig
from unet_dask.training.events import Event, Stepped
from unet_dask.training.job import Job, device_of, initial
from unet_dask.training.loop import train
from unet_dask.training.parallel import Team
from unet_dask.training.prepare import training_set
from unet_dask.training.sample import draw_patch, tile_cores
from unet_dask.training.step import step
from unet_dask.training.weight_map import separation_term


def cells(side: int, count: int) -> np.ndarray:
    """Return a label image of about `count` cells that fill it but for gaps."""
    rng = np.random.default_rng(0)
    seeds = np.zeros((side, side), np.int32)
    seeds[rng.integers(0, side, count), rng.integers(0, side, count)] = np.arange(1, count + 1)
    distance, nearest = ndimage.distance_transform_edt(seeds == 0, return_indices=True)
    return np.where(distance < 0.45 * side / count**0.5, seeds[tuple(nearest)], 0)


def bare(config: TrainConfig, folder: Path) -> float:
    """Return the median seconds of an iteration on one tile that is drawn once."""
    data = training_set(read_annotated(folder / "i.tif", folder / "t.tif", dims=2), config)
    cores = tile_cores(config, [each.target.shape for each in data.images])
    job = Job(config, data, cores, folder / "none.safetensors", device_of(config), Team())
    state = initial(job)
    patch = draw_patch(data.images, np.random.default_rng(0), cores=cores, config=config)
    seconds = []
    for _ in range(config.iterations):
        began = time.perf_counter()
        step(job, state, patch, 1e-4)
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def whole(config: TrainConfig, folder: Path) -> float:
    """Return the median seconds from one iteration of a training to the next."""
    times: list[float] = []

    def listen(event: Event) -> None:
        if isinstance(event, Stepped):
            times.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as out:
        train(folder / "i.tif", folder / "t.tif", Path(out) / "m.safetensors", config, on_event=listen)
    return float(np.median(np.diff(times)))


def rates(config: TrainConfig, seconds: float) -> str:
    """Return what an iteration of so many seconds is in voxels and FLOP per second."""
    spec = NetworkSpec(dims=config.dims, width=config.width, depth=config.depth)
    (core,) = config.tile
    flop = 3 * float(tile_flop(spec, [context.input_size(core) for context in spec.contexts]))
    return f"{core**config.dims / seconds / 1e6:.2f} Mvoxel/s, {flop / seconds / 1e12:.3f} TFLOP/s"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, default in (("width", 16), ("tile", 256), ("iterations", 30), ("threads", 1), ("rounds", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1")
    parser.add_argument("--precision", default="float32", choices=("float32", "bfloat16", "float16"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    config = replace(
        RECIPES["fast"],
        width=options.width,
        tile=(options.tile,),
        iterations=options.iterations,
        validation=0.0,
        validate_every=10**9,
        checkpoint_every=10**9,
        threads=options.threads,
        device=options.device,
        precision=options.precision,
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        labels = np.stack([cells(512, 100) for _ in range(4)]).astype(np.uint16)
        noise = np.random.default_rng(0).normal(0, 20, labels.shape)
        images = np.clip(60 + 90 * (labels > 0) + noise, 0, 255).astype(np.uint8)
        tifffile.imwrite(folder / "i.tif", images, photometric="minisblack")
        tifffile.imwrite(folder / "t.tif", labels, photometric="minisblack")
        rounds = [(bare(config, folder), whole(config, folder)) for _ in range(options.rounds)]
    for alone, trained in rounds:
        print(f"bare {alone:.3f} s   training {trained:.3f} s   ratio {trained / alone:.3f}")
    medians = [statistics.median(column) for column in zip(*rounds, strict=True)]
    print(
        f"medians: bare {medians[0]:.3f} s, training {medians[1]:.3f} s, ratio {medians[1] / medians[0]:.3f}"
    )
    for name, median in zip(("bare", "training"), medians, strict=True):
        print(f"{name}: {rates(config, median)}")
    large = cells(2048, 2000)
    began = time.process_time()
    separation_term(large)
    print(
        f"weight map of 2048 x 2048 with {len(np.unique(large)) - 1} cells: {time.process_time() - began:.2f} CPU s"
    )


if __name__ == "__main__":
    main()
