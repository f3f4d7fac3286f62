"""`segment` against torch-em's `predict_with_halo`: same network and image, classes to Zarr (bars S1 and S2, float32).

    pip install torch-em
    python benchmarks/peer_torch_em.py [FOLDER] [--size 8192] [--width 32] [--rounds 2] [--image EM.tif]
    python benchmarks/peer_torch_em.py [FOLDER] --dims 3 --size 512 --width 16 --depth 3

torch-em runs as its users do: two threads over blocks of 1,024 (the size at which it was fastest here; 128 in 3-D), its
own mirror, torch's own convolutions. Its network is the same valid one, cut and put back so that its blocks lie on the
pooling lattice: then the classes can be compared voxel by voxel. The two take turns; quoted are medians of wall and CPU
seconds, start-up included, and their ratios; beside them the share of the chip's limit: one pass over the whole image
at the rate of a 2048-cubed float32 matrix product measured in the same run. In 2-D `segment` runs once by torch and
once by NNPACK.
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

#: Side of torch-em's blocks, by dimensions.
BLOCK = {2: 1024, 3: 128}
CHUNKS = {2: (512, 512), 3: (128, 128, 128)}


def predict(source: str, sink: str, model: str) -> None:
    """Segment with torch-em."""
    from torch_em.util.prediction import predict_with_halo

    from unet_dask import load_model

    loaded = load_model(model)
    spec = loaded.header.network
    stride, before = spec.stride[0], spec.halo[0]
    halo = before + stride  # torch-em pads evenly; of what it adds we cut off what is not on the lattice
    side = BLOCK[spec.dims]
    tile = (..., *(slice(stride, stride + side + spec.slack[0] + 2 * before),) * spec.dims)
    core, kept = (..., *(slice(halo, halo + side),) * spec.dims), (..., *(slice(side),) * spec.dims)

    def on_lattice(network: torch.nn.Module, block: torch.Tensor) -> torch.Tensor:
        made = network(block[tile])
        whole = block.new_zeros((*made.shape[:2], *block.shape[2:]))
        whole[core] = made[kept]
        return whole

    image = zarr.open_array(source, mode="r")
    result = zarr.create_array(
        sink, shape=image.shape, chunks=CHUNKS[spec.dims], dtype="uint8", overwrite=True,
        compressors=zarr.codecs.ZstdCodec(level=1, checksum=True),
    )  # fmt: skip
    workers = len(os.sched_getaffinity(0))
    predict_with_halo(
        image, plain(loaded.network), ["cpu"] * workers, (side,) * spec.dims, (halo,) * spec.dims, output=result,
        preprocess=lambda block: loaded.normalise(block[None])[0],
        postprocess=lambda scores: scores.argmax(axis=0).astype(np.uint8),
        prediction_function=on_lattice, disable_tqdm=True,
    )  # fmt: skip


def plain(network: torch.nn.Module) -> torch.nn.Module:
    """Return the network with torch's own convolutions, in place."""
    from torch import nn

    for module in network.modules():
        if isinstance(module, nn.Conv3d):
            module.__class__ = nn.Conv3d
    return network


def make_volume(path: Path, size: int) -> None:
    """Write a cube of smooth noise."""
    rng = np.random.default_rng(0)
    array = zarr.create_array(path, shape=(size,) * 3, chunks=(128,) * 3, dtype="uint8", overwrite=True)
    block = rng.integers(0, 256, (size, size), dtype=np.uint8)
    for z in range(size):
        array[z] = np.roll(block, (z, 2 * z), axis=(0, 1))


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
    parser.add_argument("--dims", type=int, default=2, choices=(2, 3))
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--depth", type=int, default=4)
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
    if options.dims == 2:
        make_image(source, options.size, options.image)
    else:
        make_volume(source, options.size)
    model.unlink(missing_ok=True)
    sizes = ["--dims", str(options.dims), "--width", str(options.width), "--depth", str(options.depth)]
    subprocess.run([tool, "init", *sizes, "-o", str(model)], check=True, capture_output=True)
    run = [tool, "segment", str(source), "-m", str(model), "-q", "--overwrite", "--workers", "2"]
    commands = {
        "segment": [*run, "-o", str(ours), "--precision", "float32"],
        **({"with nnpack": [*run, "-o", str(packed), "--backend", "nnpack"]} if options.dims == 2 else {}),
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
        if name not in commands:
            continue
        print(
            f"share of voxels whose class differs, {name}: {np.mean(exact != zarr.open_array(other)[...]):.2e}"
        )
    for path in (source, ours, packed, peer):
        shutil.rmtree(path, ignore_errors=True)


if __name__ == "__main__":
    main()
