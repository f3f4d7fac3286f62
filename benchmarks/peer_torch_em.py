"""`segment` against torch-em's `predict_with_halo`: same network, same image, classes to Zarr (bar S1, float32).

    pip install torch-em
    python benchmarks/peer_torch_em.py [FOLDER] [--size 8192] [--width 32] [--rounds 2] [--image EM.tif]

torch-em runs as its users do: two threads over blocks of 1,024 (the size at which it was fastest here), its own
mirror. Its network is the same valid one, cut and put back so that its blocks lie on the pooling lattice: then the
classes can be compared voxel by voxel. The two take turns; quoted are medians of wall and CPU seconds, start-up
included, and their ratios; beside them the share of the chip's limit: one pass over the whole image at the rate of a
2048-cubed float32 matrix product measured in the same run. `segment` runs once by torch and once by NNPACK.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import zarr
from bare_loop import make_image, timed

if TYPE_CHECKING:
    import torch

BLOCK, DEPTH = 1024, 4


def predict(source: str, sink: str, model: str) -> None:
    """Segment with torch-em."""
    from torch_em.util.prediction import predict_with_halo

    from unet_dask import load_model

    loaded = load_model(model)
    spec = loaded.header.network
    stride, before = spec.stride[0], spec.halo[0]
    halo = before + stride  # torch-em pads evenly; of what it adds we cut off what is not on the lattice
    tile = BLOCK + spec.slack[0] + 2 * before

    def on_lattice(network: torch.nn.Module, block: torch.Tensor) -> torch.Tensor:
        made = network(block[..., stride : stride + tile, stride : stride + tile])
        whole = block.new_zeros((*made.shape[:2], *block.shape[2:]))
        whole[..., halo : halo + BLOCK, halo : halo + BLOCK] = made[..., :BLOCK, :BLOCK]
        return whole

    image = zarr.open_array(source, mode="r")
    result = zarr.create_array(
        sink, shape=image.shape, chunks=(512, 512), dtype="uint8", overwrite=True,
        compressors=zarr.codecs.ZstdCodec(level=1, checksum=True),
    )  # fmt: skip
    workers = len(os.sched_getaffinity(0))
    predict_with_halo(
        image, loaded.network, ["cpu"] * workers, (BLOCK,) * 2, (halo,) * 2, output=result,
        preprocess=lambda block: loaded.normalise(block[None])[0],
        postprocess=lambda scores: scores.argmax(axis=0).astype(np.uint8),
        prediction_function=on_lattice, disable_tqdm=True,
    )  # fmt: skip


def matrix_rate() -> float:
    """Return FLOP per second of a 2048-cubed float32 matrix product, the median of 15."""
    import torch

    left, right = torch.rand(2048, 2048), torch.rand(2048, 2048)
    seconds = []
    for _ in range(15):
        began = time.perf_counter()
        torch.mm(left, right)
        seconds.append(time.perf_counter() - began)
    return 2 * 2048**3 / statistics.median(seconds)


def report(times: dict[str, list[tuple[float, float]]], *, whole: float, rate: float) -> None:
    """Print ratios of medians, and the share of the limit that each reaches."""
    wall, cpu = (
        {name: statistics.median(each[which] for each in rows) for name, rows in times.items()}
        for which in (0, 1)
    )
    print(f"matrix product {rate / 1e9:.0f} GFLOP/s; one whole pass {whole / 1e12:.2f} TFLOP")
    for name in times:
        print(
            f"{name:>11} {whole / rate / wall[name]:.3f} of the limit; torch-em / {name}: "
            f"{wall['torch-em'] / wall[name]:.3f} wall, {cpu['torch-em'] / cpu[name]:.3f} CPU"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", default="out/peer", type=Path)
    parser.add_argument("--size", type=int, default=8192)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--image", type=Path, help="a real image to tile")
    parser.add_argument("--predict", nargs=3, metavar=("SOURCE", "SINK", "MODEL"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.predict:
        predict(*options.predict)
        return
    options.folder.mkdir(parents=True, exist_ok=True)
    tool = str(Path(sys.executable).with_name("unet-dask"))
    source, model = options.folder / "source.zarr", options.folder / "net.safetensors"
    ours, peer = options.folder / "ours.zarr", options.folder / "peer.zarr"
    packed = options.folder / "packed.zarr"
    make_image(source, options.size, options.image)
    model.unlink(missing_ok=True)
    shape = ["--width", str(options.width), "--depth", str(DEPTH), "-o", str(model)]
    subprocess.run([tool, "init", *shape], check=True, capture_output=True)
    run = [tool, "segment", str(source), "-m", str(model), "-q", "--overwrite", "--workers", "2"]
    commands = {
        "segment": [*run, "-o", str(ours), "--precision", "float32"],
        "with nnpack": [*run, "-o", str(packed), "--backend", "nnpack"],
        "torch-em": [sys.executable, __file__, "--predict", str(source), str(peer), str(model)],
    }
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    rates = [matrix_rate()]
    for _ in range(options.rounds):
        for name, command in commands.items():
            times[name].append(timed(command, {}))
            rates.append(matrix_rate())
            print(f"{name:>11} {times[name][-1][0]:8.1f} s wall {times[name][-1][1]:8.1f} s CPU", flush=True)
    from unet_dask.pipeline import plan_store

    plan = plan_store(source, model)
    report(times, whole=plan.flop / plan.redundancy, rate=statistics.median(rates))
    exact = zarr.open_array(ours / "classes" / "0")[...]
    for name, other in (("torch-em", peer), ("with nnpack", packed / "classes" / "0")):
        print(
            f"share of voxels whose class differs, {name}: {np.mean(exact != zarr.open_array(other)[...]):.2e}"
        )
    for path in (source, ours, packed, peer):
        shutil.rmtree(path)


if __name__ == "__main__":
    main()
