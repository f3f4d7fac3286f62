"""Peak memory of a worker against the plan's figure, where sources, networks and products are odd (bar T4).

    python benchmarks/memory_odd.py [FOLDER] [--only TEXT]

Each of the twelve runs is a command of its own with one worker. The bar: measured <= plan.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numcodecs
import numpy as np
import torch
import zarr
from memory import run

from unet_dask import new_model, save_model
from unet_dask.model.header import NetworkSpec, Normalisation

if TYPE_CHECKING:
    from unet_dask.model.file import Model

TOOL = str(Path(sys.executable).with_name("unet-dask"))
MIB = 1 << 20


@dataclass(frozen=True)
class Case:
    """A run: a source, a network and settings."""

    name: str
    shape: tuple[int, ...]
    store: dict[str, Any]
    network: dict[str, int]
    dtype: str = "uint8"
    settings: tuple[str, ...] = ()
    volume: bool = False
    objects: bool = False
    mask: dict[str, Any] = field(default_factory=dict)


SMALL = {"dims": 2, "width": 4, "depth": 2}
V2 = {"zarr_format": 2, "compressors": [numcodecs.GZip(1)]}
DELTA = {"filters": [numcodecs.Delta(dtype="u2")]}
CASES = (
    Case(
        "one chunk of 256 MiB",
        (16384, 16384),
        {"chunks": (16384, 16384)},
        SMALL,
        settings=("--roi", "0:2048,0:2048"),
    ),
    Case(
        "one chunk of 1 GiB, as it is",
        (32768, 32768),
        {"chunks": (32768, 32768), "compressors": None},
        SMALL,
        settings=("--roi", "3000:5048,0:2048"),
    ),
    Case("64 channels", (64, 1024, 1024), {"chunks": (64, 256, 256)}, {**SMALL, "channels": 64}),
    Case(
        "40 classes",
        (1536, 1536),
        {"chunks": (512, 512)},
        {**SMALL, "width": 8, "classes": 40},
        settings=("--products", "classes,probabilities"),
    ),
    Case(
        "RGB, rotations",
        (3, 2048, 2048),
        {"chunks": (3, 512, 512)},
        {**SMALL, "width": 8, "channels": 3},
        settings=("--tta", "rotations"),
    ),
    Case("chunks of 16 x 16", (4096, 4096), {"chunks": (16, 16)}, SMALL),
    Case(
        "shards of 64 MiB, chunks of 64 x 64",
        (8192, 8192),
        {"shards": (8192, 8192), "chunks": (64, 64)},
        SMALL,
        settings=("--roi", "0:3072,0:3072"),
    ),
    Case(
        "a mask of one chunk",
        (8192, 8192),
        {"chunks": (512, 512)},
        SMALL,
        mask={"chunks": (8192, 8192)},
    ),
    Case(
        "a million objects",
        (4096, 4096),
        {"chunks": (512, 512)},
        {**SMALL, "depth": 1},
        objects=True,
        settings=("--products", "classes,instances"),
    ),
    Case(
        "statistics of float64 in chunks of 128 MiB",
        (64, 1024, 1024),
        {"chunks": (16, 1024, 1024)},
        SMALL,
        dtype="float64",
        volume=True,
        settings=("--roi", "0:8,0:1024,0:1024"),
    ),
    Case(
        "one chunk of 128 MiB, gzip and a filter, version 2",
        (8192, 8192),
        {"chunks": (8192, 8192), **V2, **DELTA},
        SMALL,
        dtype="uint16",
        settings=("--roi", "0:2048,0:2048"),
    ),
    Case(
        "3-D in one chunk of 128 MiB, objects",
        (128, 1024, 1024),
        {"chunks": (128, 1024, 1024)},
        {"dims": 3, "width": 4, "depth": 2},
        settings=("--roi", "0:64,0:256,0:256", "--products", "classes,instances"),
    ),
)


def source(path: Path, case: Case) -> None:
    """Write noise, which no codec makes smaller, a slab at a time; of objects a lattice of dots."""
    array = zarr.create_array(path, shape=case.shape, dtype=case.dtype, **case.store)
    if case.store.get("compressors", ()) is None:  # a slab at a time, which Zarr cannot
        as_it_is(path / "c" / "0" / "0", case)
        return
    tall = array.shards[0] if array.shards else array.chunks[0]
    rng = np.random.default_rng(0)
    for start in range(0, case.shape[0], tall):
        shape = (min(tall, case.shape[0] - start), *case.shape[1:])
        if case.objects:
            values = np.zeros(shape, np.uint8)
            values[1::4, 1::4] = 255
        elif case.dtype == "float64":
            values = rng.standard_normal(shape)
        else:
            values = np.frombuffer(rng.bytes(int(np.prod(shape)) * array.dtype.itemsize), array.dtype)
        array[start : start + shape[0]] = values.reshape(shape)


def as_it_is(path: Path, case: Case) -> None:
    """Write the one chunk of a source, not compressed."""
    path.parent.mkdir(parents=True)
    rng = np.random.default_rng(0)
    with path.open("wb") as file:
        for _ in range(case.shape[0]):
            file.write(rng.bytes(case.shape[1]))


def model(case: Case) -> Model:
    """Return a network of random weights that is sure of its class; for objects one that tells dots."""
    spec = NetworkSpec(**case.network)
    constants = (
        Normalisation("volume")
        if case.volume
        else Normalisation("constant", (0.0,) * spec.channels, (255.0,) * spec.channels)
    )
    made = new_model(spec, normalisation=constants)
    with torch.no_grad():
        if not case.objects:
            made.network.classify.bias[0] += 100  # or reduced precision is refused
            return made
        for name, values in made.network.named_parameters():
            values.zero_()
            if values.ndim == 4 and values.shape[-1] == 3:
                values[0, 0, 1, 1] = 1  # the first map is the image, through all of them
            if name == "classify.weight":
                values[1, 0] = 10
            if name == "classify.bias":
                values[0] = 5
    return made


def measured(case: Case, folder: Path) -> tuple[dict[str, Any], int]:
    """Return what a run says, and the number of its objects."""
    source(folder / "source.zarr", case)
    save_model(model(case), folder / "model.safetensors")
    command = [TOOL, "segment", str(folder / "source.zarr"), "-o", str(folder / "sink.zarr")]
    command += ["-m", str(folder / "model.safetensors"), "--workers", "1", "--memory", "6GiB", "--json", "-q"]
    if case.mask:
        mask = zarr.create_array(folder / "mask.zarr", shape=case.shape, dtype="uint8", **case.mask)
        values = np.zeros(case.shape, np.uint8)
        values[1000:2000, 500:3000] = 1
        mask[...] = values
        command += ["--mask", str(folder / "mask.zarr")]
    outcome, _ = run([*command, *case.settings])
    if not case.objects:
        return outcome, 0
    numbers = zarr.open_array(folder / "sink.zarr" / "instances" / "0", mode="r")[...]
    return outcome, len(np.unique(numbers)) - 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", default="out/memory-odd", type=Path)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    print(f"{'plan':>7} {'worker':>7} {'plan/worker':>11}   MiB")
    failed = 0
    for case in CASES:
        if options.only not in case.name:
            continue
        shutil.rmtree(options.folder, ignore_errors=True)
        options.folder.mkdir(parents=True)
        outcome, objects = measured(case, options.folder)
        plan, peak = outcome["plan"]["worker_bytes"], outcome["peak_bytes"]
        failed += peak > plan
        counted = f" ({objects} objects)" if objects else ""
        print(
            f"{plan / MIB:>7.0f} {peak / MIB:>7.0f} {plan / peak:>11.3f}   {case.name}{counted}", flush=True
        )
    shutil.rmtree(options.folder, ignore_errors=True)
    sys.exit(f"{failed} of them took more than was planned" if failed else 0)


if __name__ == "__main__":
    main()
