"""Eight-bit integers and OpenVINO beside torch's float32: seconds and agreement of a trained network, on one core.

    pip install openvino nncf
    python benchmarks/int8.py models/isbi2012.safetensors IMAGES.tif [--truth LABELS.tif] [--core 1008] [--rounds 5]

OpenVINO's int8 is quantised by NNCF's default recipe, ours by the ranges of its feature maps. Both measure on the first
images; the others are compared. Each way runs the same tile in turn, in a process whose heap is kept as a worker's is.
"""

from __future__ import annotations

import argparse
import copy
import os
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import tifffile

from unet_dask import load_model
from unet_dask.engine.backend import TorchBackend, load_backend
from unet_dask.engine.ranges import widest
from unet_dask.model.cost import tile_flop
from unet_dask.model.folding import fold_batch_norm
from unet_dask.workers.cluster import worker_environment

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from unet_dask.model.file import Model

#: Images whose grey values give the ranges of the quantised feature maps.
CALIBRATION = 10


def ways(model: Model, tiles: list[NDArray[np.float32]]) -> dict[str, Callable[[NDArray], NDArray]]:
    """Return ways to compute the logits of a tile."""
    import nncf
    import openvino
    import torch

    network = fold_batch_norm(copy.deepcopy(model.network)).eval().requires_grad_(requires_grad=False)
    example = torch.from_numpy(tiles[0])[None]
    with torch.inference_mode():
        graph = openvino.convert_model(network, example_input=example, input=list(example.shape))
    eight = nncf.quantize(graph, nncf.Dataset([each[None] for each in tiles]), subset_size=len(tiles))
    core, options = openvino.Core(), {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    compiled = {
        name: core.compile_model(each, "CPU", options)
        for name, each in (("OpenVINO float32", graph), ("OpenVINO int8", eight))
    }
    torch_one = TorchBackend(model, device="cpu", precision="float32")
    return {
        "torch float32": torch_one.logits,
        "unet-dask int8": load_backend(
            "torch",
            model,
            device="cpu",
            precision="int8",
            ranges=widest(torch_one.ranges(each) for each in tiles),
        ).logits,
        **{name: lambda tile, run=each: run(tile[None])[0][0] for name, each in compiled.items()},
    }


def tiles_of(images: NDArray, model: Model, side: int) -> list[NDArray[np.float32]]:
    """Return the middle of every image as a tile, mirrored where the image is too small."""
    tiles = []
    for image in images:
        short = [max(side - length, 0) for length in image.shape]
        padded = np.pad(image, [(each // 2, each - each // 2) for each in short], mode="reflect")
        first = [(length - side) // 2 for length in padded.shape]
        tiles.append(padded[first[0] : first[0] + side, first[1] : first[1] + side])
    return [model.normalise(each[None]) for each in tiles]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("images", type=Path, help="a stack of 2-D images")
    parser.add_argument("--truth", type=Path, help="of the images, 0 and not: the pixel error is told too")
    parser.add_argument("--core", type=int, default=1008, help="side of a tile's output")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    environment = worker_environment(1)
    if any(os.environ.get(name) != value for name, value in environment.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | environment)  # itself
    import torch

    torch.set_num_threads(1)
    model, images = load_model(options.model), tifffile.imread(options.images)
    spec = model.header.network
    tiles = tiles_of(images, model, spec.contexts[0].input_size(options.core))
    compared = ways(model, tiles[:CALIBRATION])
    seconds: dict[str, list[float]] = {name: [] for name in compared}
    classes: dict[str, list[NDArray]] = {name: [] for name in compared}
    for tile in tiles[CALIBRATION : CALIBRATION + options.rounds]:
        for name, run in compared.items():
            began = time.process_time()
            logits = run(tile)
            seconds[name].append(time.process_time() - began)
            classes[name].append(logits.argmax(axis=0))
    flop = float(tile_flop(spec, tiles[0].shape[1:]))
    exact = np.array(classes["torch float32"])
    truth = None
    if options.truth:
        labels = tifffile.imread(options.truth)[CALIBRATION : CALIBRATION + options.rounds] != 0
        margin = [(length - options.core) // 2 for length in labels.shape[1:]]
        truth = labels if min(margin) <= 0 else labels[:, margin[0] : -margin[0], margin[1] : -margin[1]]
    for name, each in seconds.items():
        median = statistics.median(each)
        line = f"{name:>17} {median:7.3f} CPU s a tile, {flop / median / 1e9:5.0f} GFLOP/s, "
        line += f"{statistics.median(seconds['torch float32']) / median:.2f} x; "
        line += f"other class {np.mean(np.array(classes[name]) != exact):.2e}"
        if truth is not None:
            made = np.array(classes[name])
            off = [(length - size) // 2 for length, size in zip(made.shape[1:], truth.shape[1:], strict=True)]
            kept = made[:, off[0] : off[0] + truth.shape[1], off[1] : off[1] + truth.shape[2]] != 0
            line += f"; pixel error {np.mean(kept != truth):.4f}"
        print(line)


if __name__ == "__main__":
    main()
