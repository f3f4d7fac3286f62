"""`unet-dask segment` on a GPU against a bare loop that runs the same tiles in one process (bar: 85 % of its speed).

    python benchmarks/gpu/end_to_end.py [FOLDER] [--size 32768] [--width 64] [--workers 1,4] [--rounds 3]
    python benchmarks/gpu/end_to_end.py --device cpu

The loop (`loop.py`) is what somebody would write who knows her way around a GPU: a region's grey values go to the GPU
from pinned memory and are normalised there, the arg-max is taken there, and classes come back; what is read, computed
and written takes turns ("bare loop") or overlaps by a region ("overlapped loop"). It has no Dask, no ledger, no
checksum of its own and no flush to disk, and writes the same levels of a pyramid. `segment` runs with as many workers
on the one GPU as are named; several read and write while the GPU computes for another. Who fails is left out, with
the reason: four workers are granted four times the memory.

All take turns. Everything is run on an image of one tile too: that is the start of processes, libraries and the GPU,
which for some seconds of work is most of the time. Quoted are medians, with the start and beyond it; the bar is about
what lies beyond it. The loop tells where its time goes.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import zarr
from clock import about, numbers, parsed, parser_of
from limits import peak

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the benchmarks that need no GPU
from bare_loop import make_image, timed

if TYPE_CHECKING:
    import argparse

    from unet_dask.planning.plan import Plan

#: The bar: speed of `segment`, as a share of that of the bare loop.
BAR = 0.85
#: Seconds of wall time, by image, by who ran.
Times = dict[str, dict[str, list[float]]]


def prepare(options: argparse.Namespace) -> None:
    """Make both images, and a network with the paper's first weights."""
    options.folder.mkdir(parents=True, exist_ok=True)
    for name, size in (("start", options.start), ("whole", options.size)):
        make_image(options.folder / f"{name}.zarr", size, options.image)
    model = options.folder / "net.safetensors"
    model.unlink(missing_ok=True)
    sizes = ["--width", str(options.width), "--depth", str(options.depth)]
    tool = str(Path(sys.executable).with_name("unet-dask"))
    subprocess.run([tool, "init", *sizes, "-o", str(model)], check=True, capture_output=True)


def commands(options: argparse.Namespace, image: str) -> dict[str, list[str]]:
    """Return the command of everybody for one of the images."""
    folder = options.folder
    source, model = str(folder / f"{image}.zarr"), str(folder / "net.safetensors")
    how = ["--device", options.device, "--precision", options.precision, "--memory", options.memory]
    tool, loop = str(Path(sys.executable).with_name("unet-dask")), str(Path(__file__).with_name("loop.py"))

    def sink(name: str) -> str:
        return str(folder / f"{image}.{name.replace(' ', '-')}.zarr")

    found = {}
    for workers in options.workers:
        name = f"segment -j {workers}"
        run = [tool, "segment", source, "-m", model, *how, "-j", str(workers), "-q", "--overwrite"]
        found[name] = [*run, "-o", sink(name)]
    for name, more in (("bare loop", []), ("overlapped loop", ["--overlapped"])):
        run = [sys.executable, loop, source, sink(name), model, *how, *more]
        found[name] = [*run, "--stages", str(folder / f"{image}.{name.replace(' ', '-')}.json")]
    return found


def take_turns(options: argparse.Namespace) -> Times:
    """Run everybody on both images, round after round."""
    from unet_dask.workers.cluster import worker_environment

    environment = worker_environment(len(os.sched_getaffinity(0)))
    times: Times = {image: {name: [] for name in commands(options, image)} for image in ("start", "whole")}
    for _ in range(options.rounds):
        for image, rows in times.items():
            for name in list(rows):
                ours = name.startswith("segment")  # gives its workers theirs by itself
                command = commands(options, image)[name]
                try:
                    wall, cpu = timed(command, {} if ours else environment, stderr=subprocess.PIPE)
                except subprocess.CalledProcessError as error:
                    for each in times.values():
                        each.pop(name)
                    said = error.stderr.decode(errors="replace").strip().splitlines() or ["nothing"]
                    print(f"{image:>6} {name:>16} failed, left out: {said[-1]}", flush=True)
                    continue
                rows[name].append(wall)
                print(f"{image:>6} {name:>16} {wall:8.1f} s wall {cpu:8.1f} s CPU", flush=True)
    return times


def report(times: Times, plan: Plan, voxels: int, rate: float) -> None:
    """Print a row for everybody, and the ratios that the bar is about."""
    start, whole = (
        {name: statistics.median(each) for name, each in times[image].items()} for image in ("start", "whole")
    )
    beyond = {name: whole[name] - start[name] for name in whole}
    print(f"{'':>16} | {'wall s':>7} | {'start s':>7} | {'beyond s':>8} | Mvoxel/s | TFLOP/s | of peak")
    for name, seconds in beyond.items():
        if seconds <= 0:  # as in a trial on a CPU
            print(f"{name:>16} | {whole[name]:7.1f} | {start[name]:7.1f} | not longer than its start")
            continue
        print(
            f"{name:>16} | {whole[name]:7.1f} | {start[name]:7.1f} | {seconds:8.1f} | {voxels / seconds / 1e6:8.1f} | "
            f"{plan.flop / seconds / 1e12:7.1f} | {plan.flop / seconds / rate:7.1%}"
        )
    for name in whole:
        if name.startswith("segment"):
            said = f"{name}: {whole['bare loop'] / whole[name]:.2f} of the bare loop's speed, start included"
            if min(beyond[name], beyond["bare loop"]) > 0:
                said += f"; {beyond['bare loop'] / beyond[name]:.2f} beyond the start, the bar is {BAR}"
            print(said)


def print_stages(path: Path) -> None:
    """Print where the time of the bare loop went."""
    stages = json.loads(path.read_text(encoding="utf-8"))
    total = sum(stages.values())
    print(
        "bare loop: "
        + ", ".join(f"{name} {each:.2f} s ({each / total:.0%})" for name, each in stages.items())
    )


def same_classes(ours: Path, loops: Path) -> float:
    """Return the share of voxels that two arrays class alike."""
    one, other = zarr.open_array(ours, mode="r"), zarr.open_array(loops, mode="r")
    rows = range(0, one.shape[0], 4096)
    same = sum(np.count_nonzero(one[row : row + 4096] == other[row : row + 4096]) for row in rows)
    return same / one.size


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("folder", nargs="?", default="out/gpu", type=Path)
    parser.add_argument("--size", type=int, default=32768)
    parser.add_argument("--start", type=int, default=512, help="side of the image that shows the start alone")
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--precision", default="bfloat16", help="chosen, so that nothing is compared first")
    parser.add_argument(
        "--memory",
        default="12GiB",
        help="of a worker, in the machine: the GPU's own is another",
    )
    parser.add_argument("--workers", type=numbers, default="1,4", help="on the one GPU")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--image", type=Path, help="a real image to tile")
    tiny = {"size": 256, "start": 64, "width": 4, "depth": 2, "precision": "float32", "memory": "1GiB"}
    options = parsed(parser, tiny | {"workers": "1", "rounds": 1})
    print(about(options.device))
    prepare(options)
    from unet_dask.pipeline import plan_store

    plan = plan_store(
        options.folder / "whole.zarr", options.folder / "net.safetensors",
        device=options.device, precision=options.precision, memory=options.memory,
    )  # fmt: skip
    for label, text in plan.describe():
        print(f"{label:>16}  {text}")
    times = take_turns(options)
    if "bare loop" not in times["whole"]:
        sys.exit("the bare loop itself failed")
    # Only now, so that this process takes nothing of the GPU while others are timed.
    rate = peak(options.precision, options.device)
    print(f"matrix product in {options.precision}: {rate / 1e12:.1f} TFLOP/s")
    report(times, plan, options.size**2, rate)
    print_stages(options.folder / "whole.bare-loop.json")
    for name in times["whole"]:
        if name.startswith("segment"):
            ours = options.folder / f"whole.{name.replace(' ', '-')}.zarr" / "classes" / "0"
            share = same_classes(ours, options.folder / "whole.bare-loop.zarr" / "0")
            print(f"{name}: {share:.5%} of the voxels are classed as by the bare loop")
    for path in options.folder.glob("*.zarr"):
        shutil.rmtree(path)


if __name__ == "__main__":
    main()
