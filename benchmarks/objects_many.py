"""Many objects: memory against the plan, and every number of every object (bars O1 and O5).

    python benchmarks/objects_many.py [FOLDER] [--objects 10000000] [--through] [--region 2048] [--memory 2GiB]

The image is a grid of rings of 5 x 5 pixels, 8 apart, that a network of one filter finds as they are. The command line
segments it, in a process of its own; rings are filled, split at valleys and rid of specks. What each pixel must be
follows from its place. With --through a comb of lines runs between the rings, and is one object that reaches through
all regions. Printed are the plan's figure for a worker, the most resident memory of any worker, that of the driver,
whose process is also the scheduler's, and how many pixels do not have the number they must: 0, or the script fails.
"""

from __future__ import annotations

import argparse
import math
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import zarr
from memory import run

from unet_dask import new_model, save_model
from unet_dask.model.file import Model, tensor_checksum
from unet_dask.model.header import NetworkSpec, Normalisation
from unet_dask.objects.rule import ObjectRule

RULE = ObjectRule(fill_holes=True, min_size=4, split=1.0)
#: Pixels from one ring to the next.
_PITCH = 8
#: Rows from one line of the comb to the next: less than a region has.
_LINES = 512


def finding(path: Path) -> None:
    """Write a model whose network gives the class of a pixel by its value alone, and rings their rule."""
    made = new_model(
        NetworkSpec(width=1, depth=1), seed=0, normalisation=Normalisation("constant", (0.0,), (255.0,))
    )
    with torch.no_grad():
        for name, values in made.network.named_parameters():
            values.zero_()
            if name.startswith(("contracting.0", "expansive")) and name.endswith("weight"):
                values[..., 1, 1] = 1.0  # the filters that pass on what they see; what comes from below is 0
        made.network.get_parameter("classify.weight")[1] = 1.0
        made.network.get_parameter("classify.bias")[0] = 0.5
    header = replace(made.header, objects=RULE)
    save_model(Model(made.network, header, tensor_checksum(made.network.state_dict())), path)


def drawn(rows: range, side: int, *, through: bool) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    """Return where rings and comb are in some rows."""
    ring = np.zeros((_PITCH, _PITCH), np.bool_)
    ring[1:6, 1:6] = True
    ring[3, 3] = False
    found = ring[np.arange(rows.start, rows.stop)[:, None] % _PITCH, np.arange(side) % _PITCH]
    if through:
        found[np.arange(rows.start, rows.stop) % _LINES == _PITCH - 1] = True
        found[:, _PITCH - 1] = True
    return found


def numbers(rows: range, side: int, *, through: bool) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    """Return the number of each pixel in some rows: one more than the place of the first pixel of its object."""
    y, x = np.arange(rows.start, rows.stop)[:, None], np.arange(side)
    first = (y // _PITCH * _PITCH + 1) * side + x // _PITCH * _PITCH + 1
    within = (y % _PITCH >= 1) & (y % _PITCH < 6) & (x % _PITCH >= 1) & (x % _PITCH < 6)
    comb = (
        drawn(rows, side, through=through) & ~within
    )  # its first pixel is the last of the first rings' column
    return np.where(within, first + 1, np.where(comb, _PITCH, 0))


def bands(side: int) -> list[range]:
    """Return rows that are written or compared together."""
    return [range(start, min(start + 1024, side)) for start in range(0, side, 1024)]


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", nargs="?", default="out/objects_many", type=Path)
    parser.add_argument("--objects", type=int, default=10_000_000)
    parser.add_argument("--through", action="store_true")
    parser.add_argument("--region", type=int, default=2048)
    parser.add_argument("--memory", default="2GiB")
    options = parser.parse_args()
    side = _PITCH * math.ceil(math.sqrt(options.objects))
    options.folder.mkdir(parents=True, exist_ok=True)
    source, sink, model = (
        options.folder / name for name in ("source.zarr", "sink.zarr", "finding.safetensors")
    )
    finding(model)
    image = zarr.create_array(source, shape=(side, side), chunks=(1024, 1024), dtype="uint8", overwrite=True)
    for rows in bands(side):
        image[rows.start : rows.stop] = drawn(rows, side, through=options.through).astype(np.uint8) * 255
    tool = str(Path(sys.executable).with_name("unet-dask"))
    outcome, driver = run(
        [tool, "segment", str(source), "-o", str(sink), "-m", str(model), "--products", "instances", "--overwrite",
         "--workers", "2", "--region", f"{options.region},{options.region}", "--memory", options.memory, "--json", "-q"]
    )  # fmt: skip
    found = zarr.open_array(sink, path="instances/0", mode="r")
    wrong = sum(
        int(np.count_nonzero(found[rows.start : rows.stop] != numbers(rows, side, through=options.through)))
        for rows in bands(side)
    )
    plan, worker = outcome["plan"]["worker_bytes"], outcome["peak_bytes"]
    print(
        f"{(side // _PITCH) ** 2 + options.through} objects in {side} x {side}, {outcome['regions']} regions, "
        f"{outcome['seconds']:.0f} s: a worker {worker / 2**20:.0f} MiB of {plan / 2**20:.0f} planned, "
        f"the driver {driver / 2**20:.0f} MiB; {wrong} pixels with another number"
    )
    shutil.rmtree(source)
    shutil.rmtree(sink)
    if wrong or worker > plan:
        sys.exit(1)


if __name__ == "__main__":
    main()
