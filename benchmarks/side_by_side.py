"""`segment` against every peer that installs beside it: same network and image, classes to Zarr (bars S1, S2, float32).

    pip install torch-em monai patchworks daisy bioimageio.core
    python benchmarks/side_by_side.py [FOLDER] [--size 8192] [--width 32] [--rounds 2] [--image EM.tif]
    python benchmarks/side_by_side.py [FOLDER] --model models/isbi2012.safetensors --image EM.tif
    python benchmarks/side_by_side.py [FOLDER] --dims 3 --size 512 --width 16 --depth 3 --peers torch-em,daisy
        [--model NUCLEI.safetensors --image STACK.tif]

Every peer runs as its users would run it: its documented function (see `benchmarks/peers/`), torch's own convolutions,
two threads or two workers on two cores, blocks of 1,024 (128 in 3-D; smaller ones where the image has no two of them).
Its network is the same valid one, cut and put back so that its blocks lie on the pooling lattice; Gaussian blending
alone needs a padded one. All take turns; quoted are medians of wall and CPU seconds, start-up included, their ratios to
ours, and the share of the chip's limit: one pass over the whole image at the rate of a 2048-cubed matrix product
measured in the same run, of bfloat16 where the processor has it, else of float32. `segment` runs in float32; as it
chooses, in bfloat16, where the processor has it; in bytes where the network is trained; by NNPACK with --nnpack.

Beside the speed stands the agreement: the share of voxels whose class differs from one pass over the whole mirrored
image or, where that pass does not fit into memory, from ours. The border zone is where the mirror reaches: the halo and
what one pooling window adds, 92 + 15 voxels at a depth of 4. A peer that is not installed is left out, and so is one
that fails.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import os
import re
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import zarr
from bare_loop import make_image, timed
from peers import PEERS, module_of

from unet_dask.engine.device import native_bfloat16

#: Cores that everybody gets.
CORES = 2

Times = dict[str, list[tuple[float, float]]]


def make_volume(path: Path, size: int, image: Path | None) -> None:
    """Write a cube of noise, or of a real stack that is mirrored at its ends."""
    rng = np.random.default_rng(0)
    array = zarr.create_array(path, shape=(size,) * 3, chunks=(128,) * 3, dtype="uint8", overwrite=True)
    if image is not None:
        import tifffile

        stack = tifffile.imread(image)
        array[...] = np.pad(stack, [(0, max(size - side, 0)) for side in stack.shape], mode="symmetric")[
            :size, :size, :size
        ]
        return
    block = rng.integers(0, 256, (size, size), dtype=np.uint8)
    for z in range(size):
        array[z] = np.roll(block, (z, 2 * z), axis=(0, 1))


def matrix_rate() -> float:
    """Return FLOP per second of a 2048-cubed matrix product in the processor's fastest float, the median of 15."""
    import torch

    dtype = torch.bfloat16 if native_bfloat16() else torch.float32
    left, right = torch.rand(2048, 2048).to(dtype), torch.rand(2048, 2048).to(dtype)
    seconds = []
    for _ in range(15):
        began = time.perf_counter()
        torch.mm(left, right)
        seconds.append(time.perf_counter() - began)
    return 2 * 2048**3 / statistics.median(seconds)


def installed(wanted: list[str]) -> list[str]:
    """Return the peers that are installed, and name those that are not."""
    found = []
    for peer in wanted:
        try:
            print(f"{peer}: {PEERS[peer]} {importlib.metadata.version(PEERS[peer])}")
        except importlib.metadata.PackageNotFoundError:
            print(f"{peer}: not installed, left out (pip install {PEERS[peer]})")
        else:
            found.append(peer)
    return found


def take_turns(commands: dict[str, list[str]], rounds: int) -> tuple[Times, float]:
    """Return the times of all that succeed, and the median rate of the matrix product between them."""
    times: Times = {name: [] for name in commands}
    rates = [matrix_rate()]
    for _ in range(rounds):
        for name in list(times):
            try:
                times[name].append(timed(commands[name], {}, stderr=subprocess.PIPE))
            except subprocess.CalledProcessError as error:
                del times[name]
                print(f"{name:>16} failed, left out: {reason(error)}", flush=True)
                continue
            rates.append(matrix_rate())
            print(f"{name:>16} {times[name][-1][0]:8.1f} s wall {times[name][-1][1]:8.1f} s CPU", flush=True)
    return times, statistics.median(rates)


def reason(error: subprocess.CalledProcessError) -> str:
    """Return in one line why a command failed."""
    said = error.stderr.decode(errors="replace").strip().splitlines() or [f"code {error.returncode}"]
    named = [line for line in said if re.match(r"[\w.]+(Error|Exception|Exit)\b", line)]
    return (named or said)[-1]


def disagreement(made: Path, exact: np.ndarray, border: int) -> tuple[float, float]:
    """Return the share of voxels whose class differs, in the interior and in the border zone."""
    differs = zarr.open_array(made, mode="r")[...] != exact
    interior = differs[(slice(border, -border),) * differs.ndim]
    rim = differs.size - interior.size
    inside = int(np.count_nonzero(interior))
    return inside / interior.size if interior.size else float("nan"), (
        int(np.count_nonzero(differs)) - inside
    ) / rim


def report(times: Times, differences: dict[str, tuple[float, float]], *, whole: float, rate: float) -> None:
    """Print a row for everybody: medians, ratios to ours, share of the limit and agreement."""
    wall, cpu = (
        {name: statistics.median(each[which] for each in rows) for name, rows in times.items()}
        for which in (0, 1)
    )
    print(f"matrix product {rate / 1e9:.0f} GFLOP/s; one whole pass {whole / 1e12:.3f} TFLOP")
    ours = [name for name in times if name not in PEERS]
    ratios = "".join(f" | {'/ ' + name:>15}" for name in ours)
    print(f"{'':>16} | {'wall s':>7} {'CPU s':>7} | limit{ratios} | differs inside, at the border")
    for name in times:
        ratios = "".join(
            f" | {wall[name] / wall[other]:7.3f} {cpu[name] / cpu[other]:7.3f}" for other in ours
        )
        print(
            f"{name:>16} | {wall[name]:7.1f} {cpu[name]:7.1f} | {whole / rate / wall[name]:5.3f}{ratios} | "
            f"{differences[name][0]:.2e} {differences[name][1]:.2e}"
        )
    print("Ratios are wall and CPU: above 1, ours is faster.")


def options_of_the_command() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", nargs="?", default="out/peers", type=Path)
    parser.add_argument("--size", type=int, default=8192)
    parser.add_argument("--dims", type=int, default=2, choices=(2, 3))
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--image", type=Path, help="a real image to tile, in 3-D a stack to mirror")
    parser.add_argument(
        "--model", type=Path, help="a trained network instead of a new one: it is run in int8 too"
    )
    parser.add_argument("--nnpack", action="store_true", help="run our other backend too, in 2-D")
    parser.add_argument("--peers", default=",".join(PEERS), help="names, with commas between them")
    parser.add_argument("--predict", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.peers = [peer for peer in options.peers.split(",") if peer]
    if unknown := [peer for peer in options.peers if peer not in PEERS]:
        parser.error(f"unknown peers: {', '.join(unknown)}; known are {', '.join(PEERS)}")
    return options


def prepare(options: argparse.Namespace, source: Path, model: Path) -> None:
    """Make the image and a network with the paper's first weights."""
    options.folder.mkdir(parents=True, exist_ok=True)
    if options.dims == 2:
        make_image(source, options.size, options.image)
    else:
        make_volume(source, options.size, options.image)
    if options.model:
        shutil.copyfile(options.model, model)
        return
    model.unlink(missing_ok=True)
    sizes = ["--dims", str(options.dims), "--width", str(options.width), "--depth", str(options.depth)]
    tool = str(Path(sys.executable).with_name("unet-dask"))
    subprocess.run([tool, "init", *sizes, "-o", str(model)], check=True, capture_output=True)


def predicting(module: str, *paths: Path) -> list[str]:
    """Return the command that runs one of the files of `benchmarks/peers/`."""
    return [sys.executable, __file__, "--predict", module, *map(str, paths)]


def oracle(size: int, source: Path, sink: Path, model: Path) -> np.ndarray | None:
    """Return the classes of one pass over the whole mirrored image, or None where it does not fit into memory."""
    from peers.whole import bytes_needed

    needed, there = bytes_needed(size, str(model)), psutil.virtual_memory().available
    if 1.5 * needed > there:
        print(f"one pass over the whole image needs {needed / 2**30:.0f} GiB; agreement is with ours instead")
        return None
    subprocess.run(predicting("peers.whole", source, sink, model), check=True)
    return zarr.open_array(sink, mode="r")[...]


def main() -> None:
    options = options_of_the_command()
    if options.predict:
        module, *paths = options.predict
        importlib.import_module(module).predict(*paths)
        return
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    peers = installed(options.peers)
    folder = options.folder
    source, model = folder / "source.zarr", folder / "net.safetensors"
    prepare(options, source, model)
    ours = ("segment", "auto", "int8", "nnpack")
    sinks = {name: folder / f"{name}.zarr" for name in (*ours, "whole", *peers)}
    tool = str(Path(sys.executable).with_name("unet-dask"))
    run = [tool, "segment", str(source), "-m", str(model), "-q", "--overwrite", "--workers", str(CORES)]
    commands = {"segment": [*run, "-o", str(sinks["segment"]), "--precision", "float32"]}
    if native_bfloat16():
        commands["auto"] = [*run, "-o", str(sinks["auto"])]
    if options.model:  # one of random weights is sure of nothing, and refused
        commands["int8"] = [*run, "-o", str(sinks["int8"]), "--precision", "int8"]
    if options.nnpack:
        commands["nnpack"] = [*run, "-o", str(sinks["nnpack"]), "--backend", "nnpack"]
    commands |= {peer: predicting(module_of(peer), source, sinks[peer], model) for peer in peers}
    times, rate = take_turns(commands, options.rounds)
    if "segment" not in times:
        sys.exit("segment itself failed")

    from unet_dask.pipeline import plan_store

    plan = plan_store(source, model)
    exact = oracle(options.size, source, sinks["whole"], model)
    made = {name: sinks[name] if name in PEERS else sinks[name] / "classes" / "0" for name in times}
    exact = zarr.open_array(made["segment"], mode="r")[...] if exact is None else exact
    spec = plan.header.network
    reach = spec.halo[0] + spec.stride[0] - 1
    differences = {name: disagreement(path, exact, reach) for name, path in made.items()}
    report(times, differences, whole=plan.flop / plan.redundancy, rate=rate)
    for path in (source, *sinks.values()):
        shutil.rmtree(path, ignore_errors=True)


if __name__ == "__main__":
    main()
