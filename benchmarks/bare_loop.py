"""`segment` against a bare loop that runs the same tiles in one process and writes the same store (bar B3).

    python benchmarks/bare_loop.py [FOLDER] [--size 8192] [--width 32] [--depth 4] [--rounds 2]

The loop has no Dask, no ledger, no checksum of its own and no flush to disk. It runs in the environment of our
workers (kept heap, sleeping threads), so that only the plumbing is compared. The two take turns; quoted are the
medians of wall and CPU seconds, children included, and their ratios.
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

import numpy as np
import zarr


def make_image(path: Path, size: int, image: Path | None) -> None:
    """Tile a real image to the wanted size, or make structured noise where there is none."""
    if image is not None:
        import tifffile

        plane = tifffile.imread(image)
        plane = plane[0] if plane.ndim == 3 else plane
    else:
        rng = np.random.default_rng(0)
        noise = np.kron(rng.integers(0, 180, (64, 64)), np.ones((8, 8)))
        plane = (noise + rng.integers(0, 60, noise.shape)).astype(np.uint8)
    times = [-(-size // side) for side in plane.shape]
    array = zarr.create_array(path, shape=(size, size), chunks=(512, 512), dtype="uint8", overwrite=True)
    array[...] = np.tile(plane, times)[:size, :size]


def bare_loop(source: str, sink: str, model: str, memory: str) -> None:
    """Run the tiles of the plan one after the other."""
    import torch

    from unet_dask.engine.backend import TorchBackend
    from unet_dask.engine.infer import Pass, infer
    from unet_dask.model.file import load_model
    from unet_dask.pipeline import plan_store
    from unet_dask.products.coarse import voted
    from unet_dask.tiling.mirror import extend

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    plan = plan_store(source, model, memory=memory)
    loaded, spec = load_model(model), plan.arrays[0]
    backend = TorchBackend(loaded, device="cpu", precision="float32")
    image = zarr.open_array(source, mode="r")
    group = zarr.create_group(sink, overwrite=True)
    levels = [
        group.create_array(
            str(number), shape=level.shape, dtype=spec.dtype, chunks=spec.chunks, fill_value=spec.unwritten,
            compressors=zarr.codecs.ZstdCodec(level=1, checksum=True),
        )
        for number, level in enumerate(spec.levels)
    ]  # fmt: skip
    for index in plan.grid.indices():
        clipped, write = plan.grid.source_window(index), plan.grid.write(index)[1:]
        block = image[tuple(slice(a, b) for a, b in clipped[1:])][None]
        window = extend(
            block, origin=tuple(a for a, _ in clipped), read=plan.grid.read(index), shape=plan.grid.shape
        )
        (classes,) = infer(
            window, grids=plan.spatial, write=write, outputs=plan.outputs,
            through=Pass(backend, loaded.header.normalisation, loaded.header.network),
        )  # fmt: skip
        levels[0][tuple(slice(a, b) for a, b in write)] = classes
    for number in range(1, len(levels)):
        step = spec.levels[number].step_from(spec.levels[number - 1])
        levels[number][...] = voted(levels[number - 1][...], step)


def timed(
    command: list[str], environment: dict[str, str], *, stderr: int | None = None
) -> tuple[float, float]:
    """Return wall and CPU seconds of a command and all of its children."""
    before, began = os.times(), time.perf_counter()
    subprocess.run(
        command, check=True, env=os.environ | environment, stdout=subprocess.DEVNULL, stderr=stderr
    )
    after = os.times()
    cpu = after.children_user - before.children_user + after.children_system - before.children_system
    return time.perf_counter() - began, cpu


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", default="out/bare_loop", type=Path)
    parser.add_argument("--size", type=int, default=8192)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--memory", default="4GiB")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--image", type=Path, help="a real image to tile")
    parser.add_argument(
        "--loop", nargs=4, metavar=("SOURCE", "SINK", "MODEL", "MEMORY"), help=argparse.SUPPRESS
    )
    options = parser.parse_args()
    if options.loop:
        bare_loop(*options.loop)
        return
    from unet_dask.workers.cluster import worker_environment

    options.folder.mkdir(parents=True, exist_ok=True)
    tool = str(Path(sys.executable).with_name("unet-dask"))
    source, model = options.folder / "source.zarr", options.folder / "net.safetensors"
    ours, loop = options.folder / "ours.zarr", options.folder / "loop.zarr"
    make_image(source, options.size, options.image)
    shape = ["--width", str(options.width), "--depth", str(options.depth)]
    subprocess.run([tool, "init", *shape, "-o", str(model)], check=True, capture_output=True)
    cores = len(os.sched_getaffinity(0))
    commands = {
        "segment": [
            *(tool, "segment", str(source), "-o", str(ours), "-m", str(model), "-q", "--overwrite"),
            *("--memory", options.memory),
        ],
        "bare loop": [sys.executable, __file__, "--loop", str(source), str(loop), str(model), options.memory],
    }
    environment = {"segment": {}, "bare loop": worker_environment(cores)}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for _ in range(options.rounds):
        for name, command in commands.items():
            times[name].append(timed(command, environment[name]))
            print(f"{name:>10} {times[name][-1][0]:8.1f} s wall {times[name][-1][1]:8.1f} s CPU", flush=True)
    same = np.array_equal(
        zarr.open_array(ours / "classes" / "0", mode="r")[...], zarr.open_array(loop / "0", mode="r")[...]
    )
    for which, label in enumerate(("wall", "CPU")):
        medians = {name: statistics.median(each[which] for each in rows) for name, rows in times.items()}
        print(f"{label}: segment / bare loop = {medians['segment'] / medians['bare loop']:.3f}")
    print(f"same classes: {same}")
    for path in (source, ours, loop):
        shutil.rmtree(path)


if __name__ == "__main__":
    main()
