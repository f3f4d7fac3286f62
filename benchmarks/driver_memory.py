"""Memory of the driver while it puts the graph of basins together, beside what it was said to take beforehand.

    python benchmarks/driver_memory.py [--edges 1000000]

Four graphs in a hundred parts: a sheet of clear basins and one of noise, cut into bands; a basin with a small
neighbour for every edge (a star), and one whose neighbours also meet each other (a wheel); and pairs of numbers that
are one basin. Each is measured in a process of its own; the bound is what `unet_dask.run.room` counts.
"""

from __future__ import annotations

import argparse
import multiprocessing
import threading
import time
from typing import TYPE_CHECKING

import numpy as np
import psutil

from unet_dask.objects.adjacency import Graph
from unet_dask.objects.hierarchy import joined
from unet_dask.run.room import PER_EDGE, PER_MERGED, PER_PAIR

if TYPE_CHECKING:
    from numpy.typing import NDArray

PARTS = 100
KINDS = ("clear", "noise", "star", "wheel", "pairs")


def sheet(edges: int, kind: str, rng: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the ends of a square lattice, row by row, and their mean affinities."""
    side = int((edges / 2) ** 0.5)
    names = np.arange(1, side * side + 1).reshape(side, side)
    rows = []
    for row in range(side):
        rows.append(np.stack([names[row, :-1], names[row, 1:]], axis=1))
        if row + 1 < side:
            rows.append(np.stack([names[row], names[row + 1]], axis=1))
    ends = np.concatenate(rows)
    if kind == "noise":
        return ends, rng.beta(2, 2, len(ends)) * 254
    clear = np.where(rng.random(len(ends)) < 0.9, 60, 200) + rng.integers(-20, 20, len(ends))
    return ends, np.clip(clear, 1, 254).astype(np.float64)


def star(edges: int, kind: str, rng: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the ends of one basin with many neighbours, and their mean affinities."""
    spokes = edges if kind == "star" else edges // 2
    ends = np.stack([np.ones(spokes, np.int64), np.arange(2, spokes + 2)], axis=1)
    mean = rng.uniform(100, 250, spokes)
    if kind == "wheel":
        rim = np.stack([np.arange(2, spokes + 1), np.arange(3, spokes + 2)], axis=1)
        ends, mean = np.concatenate([ends, rim]), np.append(mean, np.full(spokes - 1, 90.0))
        order = np.argsort(ends[:, 1], kind="stable")
        ends, mean = ends[order], mean[order]
    return ends, mean


def graphs(edges: int, kind: str) -> tuple[list[Graph], NDArray[np.uint64]]:
    """Return the parts of a graph, and pairs."""
    rng = np.random.default_rng(0)
    if kind == "pairs":
        ends = np.arange(2 * edges, dtype=np.uint64)
        return [], np.stack([ends[:-2:2], ends[2::2]], axis=1)
    ends, mean = (sheet if kind in {"clear", "noise"} else star)(edges, kind, rng)
    count = rng.integers(1, 200, len(ends))
    total = np.maximum((mean * count).astype(np.int64), 1)
    first = rng.permutation(len(ends)).astype(np.uint64)
    cuts = np.array_split(np.arange(len(ends)), PARTS)
    columns = (ends.astype(np.uint64), total, count, first)
    return [Graph(*(each[cut].copy() for each in columns)) for cut in cuts], np.empty((0, 2), np.uint64)


def measure(edges: int, kind: str) -> None:
    """Print what one graph takes."""
    joined(
        [Graph(np.array([[1, 2]], "u8"), np.ones(1, "i8"), np.ones(1, "i8"), np.ones(1, "u8"))],
        np.array([[1, 2]], "u8"),
        0.3,
    )
    process, peak, done = psutil.Process(), [0], threading.Event()
    parts, pairs = graphs(edges, kind)
    here = sum(len(part) for part in parts)
    before = process.memory_info().rss
    held = 40 * here + pairs.nbytes

    def watch() -> None:
        while not done.is_set():
            peak[0] = max(peak[0], process.memory_info().rss)
            time.sleep(0.002)

    thread, asked, began = threading.Thread(target=watch), [0], time.process_time()
    thread.start()
    joined(parts, pairs, 0.3, asked.append)
    seconds = time.process_time() - began
    done.set()
    thread.join()
    taken = peak[0] - (before - held)
    bound = here * PER_EDGE + len(pairs) * PER_PAIR + max(asked) * PER_MERGED
    print(
        f"{kind:6} {here:9,} edges, {len(pairs):9,} pairs, {max(asked):9,} at a time: {taken / 2**20:7.0f} MiB taken, "
        f"{bound / 2**20:7.0f} counted ({taken / bound:.2f}); {seconds:.1f} s",
        flush=True,
    )


def main() -> None:
    """Measure each graph in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--edges", type=int, default=1_000_000)
    options = parser.parse_args()
    for kind in KINDS:
        process = multiprocessing.get_context("spawn").Process(target=measure, args=(options.edges, kind))
        process.start()
        process.join()


if __name__ == "__main__":
    main()
