"""What objects cost beside the network that finds them (bar O5), in seconds of one processor.

    python benchmarks/objects.py [--side 8192] [--nuclei 30000] [--region 2048]

Nuclei are drawn as discs and ellipses with rims, some of which touch, and given the classes that a network would give
them. Then the steps of a run are taken region by region, without files: numbers of pieces, edges, the driver's part,
objects in their final shape. Beside it the network is run on one tile and its time multiplied. Quoted: seconds of a
processor of each, their ratio, and the memory that the last region took.
"""

from __future__ import annotations

import argparse
import time
import tracemalloc

import numpy as np
import torch

from unet_dask.model.file import new_model
from unet_dask.model.header import NetworkSpec
from unet_dask.objects.pieces import merged, numbered, touching
from unet_dask.objects.region import Window, reshaped
from unet_dask.objects.rule import OBJECT_BYTES, ObjectRule
from unet_dask.products.instances import number_type
from unet_dask.run import shape
from unet_dask.run.edges import faces
from unet_dask.tiling.region import AxisGrid, RegionGrid
from unet_dask.tiling.valid import Context

RULES = {
    "components": ObjectRule(),
    "cells": ObjectRule(fill_holes=True, min_size=20),
    "cells, split": ObjectRule(fill_holes=True, min_size=20, split=1.0),
    "cores": ObjectRule(fill_holes=True, min_size=12, core=2, grow=4),
    "cores, split": ObjectRule(fill_holes=True, min_size=12, split=1.0, core=2, grow=4),
}
#: Pixels of the tile that the network is timed on, without its halo.
_TILE = 1024


def drawn(side: int, nuclei: int, *, cores: bool) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Return classes of (1, side, side): background, and nuclei or their rims and cores; every eighth has a hole."""
    rng = np.random.default_rng(0)
    classes = np.zeros((1, side, side), np.uint8)
    for number in range(nuclei):
        radius, stretch = rng.uniform(8, 20), rng.uniform(0.7, 1.4)
        y, x = rng.uniform(24, side - 24, 2)
        box = tuple(slice(int(at) - 24, int(at) + 24) for at in (y, x))
        rows, columns = np.ogrid[box]
        far = np.hypot((rows - y) / stretch, (columns - x) * stretch) / radius
        here = classes[0][box]
        here[far < 1] = np.maximum(here[far < 1], 1)
        if cores:
            here[far < 1 - 2.5 / radius] = 2
        if number % 8 == 0:
            here[far < 0.1] = 0
    return classes


class _Clock:
    """Seconds of this processor, added up by what they were spent on."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = {}
        self.peak = 0

    def time(self, name: str, work, *arguments, **options):
        began = time.process_time()
        done = work(*arguments, **options)
        self.spent[name] = self.spent.get(name, 0.0) + time.process_time() - began
        return done


def objects(classes, rule: ObjectRule, side: int) -> tuple[_Clock, int]:
    """Make the objects of a volume region by region, as a run does."""
    clock, dims, dtype = _Clock(), 2, number_type(classes.shape)
    along = AxisGrid(classes.shape[1], 0, classes.shape[1], side, 1, Context())
    grid = RegionGrid(
        "czyx", (AxisGrid(1, 0, 1, 1, 1, Context()), AxisGrid(1, 0, 1, 1, 1, Context()), along, along)
    )
    whole = grid.whole.in_space_and_time
    boxes = {index: grid.box(index).in_space_and_time for index in grid.indices()}
    aside, made = np.zeros(classes.shape, dtype), np.zeros(classes.shape, dtype)
    for box in boxes.values():
        aside[box.slices] = clock.time(
            "numbers", numbered, classes[box.slices],
            start=box.start, shape=classes.shape, dims=dims, dtype=dtype, core=rule.core,
        )  # fmt: skip
    pairs, ends = [np.empty((0, 2), np.uint64)], []
    for index, box in boxes.items():
        for across, face, _ in faces(grid, index, dims):
            one, two = np.moveaxis(aside[face.slices], face.axes.index(across), 0)
            pairs.append(clock.time("edges", touching, one, two))
        if rule.changes:
            ends.append(
                clock.time("edges", shape.crossing, aside[box.slices], box, whole, dims, grow=rule.grow)
            )
    old, new = clock.time("driver", merged, np.concatenate(pairs))
    if not rule.changes:
        return clock, int(np.count_nonzero(np.unique(aside)))
    found = clock.time("driver", shape.gathered, ends, old, new, dims)
    near = [
        clock.time("driver", shape.by_region, grid, each.low, each.high, dims=dims, grow=rule.grow)
        for each in (found, found.large)
    ]
    nobody = np.zeros(0, np.int32)
    for index, box in boxes.items():
        around = box.grown(rule.grow, dims, within=classes.shape)
        rows, large = (meeting.get(index, nobody) for meeting in near)
        told = clock.time("driver", shape.known, found, rows, large, box, around)
        window = clock.time("shapes", _window, aside, told)
        made[box.slices], _ = clock.time(
            "shapes", reshaped, window, told.whole, rule, dims=dims, shape=classes.shape
        )
    clock.peak = _peak(
        aside, told, rule, classes.shape
    )  # of the last region: tracing takes several times as long
    return clock, int(np.count_nonzero(np.unique(made)))


def _peak(aside, told: shape.Known, rule: ObjectRule, volume: tuple[int, ...]) -> int:
    """Return the bytes per voxel of its window that the objects of a region take."""
    tracemalloc.start()
    reshaped(_window(aside, told), told.whole, rule, dims=2, shape=volume)
    taken = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return int(taken / np.prod(told.window.shape))


def _window(aside, told: shape.Known) -> Window:
    return Window(
        shape.seen(aside[told.window.slices], told),
        told.window.start,
        told.box.relative_to(told.window).slices,
        None,
    )


def network_seconds(width: int, pixels: int) -> float:
    """Return the seconds of a processor that a network of depth 3 takes for so many pixels, in tiles of 1024."""
    spec = NetworkSpec(width=width, depth=3, batch_norm=True)
    network = new_model(spec, seed=0).network.eval()
    tile = torch.randn(1, 1, *(context.input_size(_TILE) for context in spec.contexts))
    took = []
    with torch.inference_mode():
        for _ in range(3):
            began = time.process_time()
            network(tile)
            took.append(time.process_time() - began)
    return min(took) * pixels / _TILE**2


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, value in (("side", 8192), ("nuclei", 30_000), ("region", 2048)):
        parser.add_argument(f"--{name}", type=int, default=value)
    options = parser.parse_args()
    torch.set_num_threads(1)
    networks = {width: network_seconds(width, options.side**2) for width in (16, 32)}
    print("network, CPU s:", ", ".join(f"width {width} {took:.0f}" for width, took in networks.items()))
    for name, rule in RULES.items():
        classes = drawn(options.side, options.nuclei, cores=bool(rule.core))
        clock, count = objects(classes, rule, options.region)
        total = sum(clock.spent.values())
        parts = ", ".join(f"{part} {took:.1f}" for part, took in clock.spent.items())
        shares = ", ".join(f"{total / took:.1%} of width {width}" for width, took in networks.items())
        print(
            f"{name}: {count} objects, {total:.1f} CPU s ({parts}); {shares}; at most {clock.peak} bytes a voxel of "
            f"a window (planned {2 * np.dtype(number_type(classes.shape)).itemsize + OBJECT_BYTES})"
        )


if __name__ == "__main__":
    main()
