"""A plate of small fields in one run, against a bare loop over its images (bar E2).

    python benchmarks/plate.py [FOLDER] [--fields 384] [--rounds 2] [--images FOLDER] [--model nuclei]

The loop loads the network once, runs the same tile for each image and writes the same levels with plain Zarr: no Dask,
no ledger, no checksum of its own, no flush to disk. It has the environment of our workers, and as many threads as all
of them together. Three fields are broken: the loop leaves them out, our run has to find them, name them and end with 4,
with all others done; mended, `--resume` does these three and nothing else. The two take turns. CPU seconds are those of
every process that a command leaves behind it too.
"""

from __future__ import annotations

import argparse
import csv
import ctypes
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import zarr

SHAPE = (520, 696)
ROWS, COLUMNS, BROKEN = 16, 24, 3
#: Of prctl: processes whose parent has ended become our children.
_SUBREAPER = 36


def names_of(fields: int) -> list[str]:
    """Return the wells of a plate, a field each, then second fields and so on."""
    wells = [f"{chr(65 + row)}/{column + 1}" for row in range(ROWS) for column in range(COLUMNS)]
    return [f"{wells[number % len(wells)]}/{number // len(wells)}" for number in range(fields)]


def pictures(images: Path | None) -> list[np.ndarray]:
    """Return real fields, or discs in noise where there are none."""
    if images is not None:
        import tifffile

        return [tifffile.imread(path)[: SHAPE[0], : SHAPE[1]] for path in sorted(images.glob("*.tif"))]
    rng, (y, x) = np.random.default_rng(0), np.indices(SHAPE)
    made = []
    for _ in range(4):
        image = rng.normal(300, 30, SHAPE)
        for cy, cx in rng.uniform(0, SHAPE, (80, 2)):
            image += 900.0 * ((y - cy) ** 2 + (x - cx) ** 2 < 144)
        made.append(image.clip(0, 65535).astype(np.uint16))
    return made


def make_plate(path: Path, fields: int, images: Path | None) -> list[str]:
    """Write an OME-Zarr plate, and return the paths of its fields."""
    shutil.rmtree(path, ignore_errors=True)
    originals, names = pictures(images), names_of(fields)
    wells: dict[str, list[str]] = {}
    for name in names:
        well, _, field = name.rpartition("/")
        wells.setdefault(well, []).append(field)
    listed = [
        {"path": well, "rowIndex": ord(well[0]) - 65, "columnIndex": int(well[2:]) - 1} for well in wells
    ]
    plate = {
        "rows": [{"name": chr(65 + row)} for row in range(ROWS)],
        "columns": [{"name": str(column + 1)} for column in range(COLUMNS)],
        "wells": listed,
    }
    root = zarr.create_group(path, attributes={"ome": {"version": "0.5", "plate": plate}})
    scale = [{"type": "scale", "scale": [1.0, 1.0]}]
    axes = [{"name": axis, "type": "space"} for axis in "yx"]
    levels = [{"path": "0", "coordinateTransformations": scale}]
    image = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": levels}]}
    for well, own in wells.items():
        well_of = {"version": "0.5", "well": {"images": [{"path": field} for field in own]}}
        root.create_group(well, attributes={"ome": well_of})
    for number, name in enumerate(names):
        group = root.create_group(name, attributes={"ome": image})
        array = group.create_array("0", shape=SHAPE, chunks=SHAPE, dtype="uint16", dimension_names=["y", "x"])
        # Each field is another image: shifted, or two would be as one in the cache of a disk.
        array[...] = np.roll(originals[number % len(originals)], number * 13, axis=number % 2)
    return names


def bare_loop(plate: str, sink: str, model: str, names: list[str]) -> None:
    """Run the network over the fields, one after the other."""
    import torch

    from unet_dask.engine.backend import TorchBackend
    from unet_dask.engine.infer import Pass, infer
    from unet_dask.model.file import load_model
    from unet_dask.model.header import Normalisation
    from unet_dask.pipeline import plan_store
    from unet_dask.products.coarse import voted
    from unet_dask.tiling.mirror import extend

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    plan = plan_store(f"{plate}/{names[0]}", model)
    (index,) = plan.grid.indices()
    loaded, spec = load_model(model), plan.arrays[0]
    backend = TorchBackend(loaded, device="cpu", precision=plan.precision)
    clipped, write = plan.grid.source_window(index), plan.grid.write(index)[1:]
    for name in names:
        values = zarr.open_array(f"{plate}/{name}/0", mode="r")[...]
        constants = Normalisation("constant", (float(values.mean()),), (float(values.std()),))
        if loaded.header.normalisation.kind == "constant":
            constants = loaded.header.normalisation
        origin = tuple(start for start, _ in clipped)
        window = extend(values[None], origin=origin, read=plan.grid.read(index), shape=plan.grid.shape)
        (classes,) = infer(
            window, grids=plan.spatial, write=write, outputs=plan.outputs,
            through=Pass(backend, constants, loaded.header.network),
        )  # fmt: skip
        group = zarr.create_group(f"{sink}/{name}.zarr", overwrite=True)
        for number, level in enumerate(spec.levels):
            array = group.create_array(
                str(number), shape=level.shape, dtype=spec.dtype, chunks=spec.chunks, fill_value=spec.unwritten,
                compressors=zarr.codecs.ZstdCodec(level=1, checksum=True),
            )  # fmt: skip
            if number:
                classes = voted(classes, level.step_from(spec.levels[number - 1]))
            array[...] = classes


def timed(command: list[str], environment: dict[str, str]) -> tuple[float, float, int]:
    """Return wall and CPU seconds of a command and of all that it started, and its exit code.

    Workers may outlive the command by a moment, and belong to a process that nobody waits for: that is done here.
    """
    ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)
    before, began = os.times(), time.perf_counter()
    code = subprocess.run(command, check=False, env=os.environ | environment).returncode
    wall = time.perf_counter() - began
    try:
        while True:
            os.wait()
    except ChildProcessError:
        after = os.times()
    cpu = after.children_user - before.children_user + after.children_system - before.children_system
    return wall, cpu, code


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", default="out/plate", type=Path)
    parser.add_argument("--fields", type=int, default=384)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--images", type=Path, help="a folder of real fields, TIFF of 520 x 696")
    parser.add_argument("--model", default="nuclei")
    parser.add_argument(
        "--loop", nargs=4, metavar=("PLATE", "SINK", "MODEL", "NAMES"), help=argparse.SUPPRESS
    )
    options = parser.parse_args()
    if options.loop:
        plate, sink, model, names = options.loop
        bare_loop(plate, sink, model, Path(names).read_text().split())
        return
    from unet_dask.workers.cluster import worker_environment

    options.folder.mkdir(parents=True, exist_ok=True)
    plate, ours, loop = (options.folder / name for name in ("plate.zarr", "ours", "loop"))
    names = make_plate(plate, options.fields, options.images)
    whole = broken_in(plate, names[1 :: len(names) // BROKEN][:BROKEN])
    sound = options.folder / "sound.txt"
    sound.write_text("\n".join(name for name in names if name not in whole))
    tool = str(Path(sys.executable).with_name("unet-dask"))
    segment = [tool, "segment", str(plate), "-o", str(ours), "-m", options.model, "-q"]
    commands = {
        "segment": [*segment, "--overwrite"],
        "bare loop": [sys.executable, __file__, "--loop", str(plate), str(loop), options.model, str(sound)],
    }
    environment = {"segment": {}, "bare loop": worker_environment(len(os.sched_getaffinity(0)))}
    compare(commands, environment, options.rounds, len(names) - BROKEN)
    failed = [name for name, status in statuses(ours) if status == "failed"]
    print(
        f"{len(names) - len(failed)} of {len(names)} done; failed: {failed}, as broken: {failed == list(whole)}"
    )
    for name, data in whole.items():
        chunk_of(plate, name).write_bytes(data)
    wall, cpu, code = timed([*segment, "--resume", "--source-fixed"], {})
    now = [status for _, status in statuses(ours)]
    print(
        f"mended, --resume: {now.count('done')} done, {now.count('was done')} before, exit {code}; "
        f"{wall:.1f} s wall, {cpu:.1f} s CPU"
    )
    print(f"same classes as the loop: {all(same(ours, loop, name) for name in names if name not in whole)}")
    for path in (plate, ours, loop):
        shutil.rmtree(path)


def chunk_of(plate: Path, name: str) -> Path:
    """Return the only chunk of a field."""
    return plate / name / "0" / "c" / "0" / "0"


def broken_in(plate: Path, names: list[str]) -> dict[str, bytes]:
    """Cut the chunks of some fields short, and return what they were."""
    whole = {name: chunk_of(plate, name).read_bytes() for name in names}
    for name, data in whole.items():
        chunk_of(plate, name).write_bytes(data[: len(data) // 2])
    return whole


def compare(
    commands: dict[str, list[str]], environment: dict[str, dict[str, str]], rounds: int, fields: int
) -> None:
    """Run commands in turn, and say how they compare."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            wall, cpu, code = timed(command, environment[name])
            times[name].append((wall, cpu))
            each = f"{wall / fields:.3f} and {cpu / fields:.3f} a field, exit {code}"
            print(f"{name:>10} {wall:8.1f} s wall {cpu:8.1f} s CPU, {each}", flush=True)
    for which, label in enumerate(("wall", "CPU")):
        ratios = [a[which] / b[which] for a, b in zip(times["segment"], times["bare loop"], strict=True)]
        print(
            f"{label}: segment / bare loop = {statistics.median(ratios):.3f} ({', '.join(f'{r:.3f}' for r in ratios)})"
        )


def statuses(results: Path) -> list[tuple[str, str]]:
    """Return image and status of every row of a table."""
    with (results / "images.csv").open(newline="") as table:
        return [(row["image"], row["status"]) for row in csv.DictReader(table)]


def same(ours: Path, loop: Path, name: str) -> bool:
    """Return whether two results have the same classes."""
    one = zarr.open_array(ours / f"{name}.zarr" / "classes" / "0", mode="r")
    return np.array_equal(one[...], zarr.open_array(loop / f"{name}.zarr" / "0", mode="r")[...])


if __name__ == "__main__":
    main()
