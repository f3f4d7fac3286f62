"""What helps to train better from few images: one change of the recipe at a time, scored on images far from them.

    python benchmarks/what_helps.py nuclei DATA/nuclei_cc0 [--iterations 500] [--only fast "fast again" dice]
    python benchmarks/what_helps.py hela DATA/DIC-C2DH-HeLa
    python benchmarks/what_helps.py u373 DATA/PhC-C2DH-U373

Every row is a training of its own from the same few images with the same number of iterations; "fast again" differs
by the seed alone, so that a reader sees what is chance. Flips are those of "fast" at inference. Distilled is learnt
from the few and from images without annotation, whose targets are what "fast" with flips is sure of. Scored are F1 and
average precision of objects on other rows of the plate or on later frames of the film; nothing is chosen on those. All
rows make objects by one rule, holes filled and nothing smaller than a size of the task, as a rule that is chosen on one
image of the few would be another chance. A row is kept in OUTPUT/TASK.json as soon as it is there, and not computed
again.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import tifffile
from skimage.io import imread

import unet_dask
from unet_dask.metrics.contingency import contingency
from unet_dask.metrics.objects import match, seg
from unet_dask.model.file import Model, load_model
from unet_dask.objects.whole import objects_in
from unet_dask.training.config import RECIPES, TrainConfig
from unet_dask.training.target import separate
from unet_dask.training.validate import probabilities

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: Confidence from which a pixel of an image without annotation is a target.
SURE = 0.9
UNKNOWN = 255
OVERLAPS = tuple(np.arange(0.5, 0.96, 0.05))

Pair = tuple[Path, Path]


@dataclass(frozen=True)
class Task:
    """Images to learn from and to score, images without annotation, and the smallest object in pixels."""

    learnt: list[Pair]
    bare: list[Path]
    scored: list[Pair]
    smallest: int


def of_nuclei(data: Path) -> Task:
    """Eight fields of the first rows of plates to learn from, and sixteen of the last ones."""
    masks = {path.stem: path for path in (data / "labels").iterdir()}
    images = {path.stem: path for path in sorted((data / "images").glob("bbbc039_[A-P]*"))}
    first = [name for name in images if name[8] in "ABCDEFG"]
    last = [name for name in images if name[8] in "JKLMNOP"][:16]
    return Task(
        [(images[name], masks[name]) for name in first[:8]],
        [images[name] for name in first[8:16]],
        [(images[name], masks[name]) for name in last],
        30,
    )


def of_film(data: Path, learnt: tuple[int, ...], bare: tuple[int, ...], scored: tuple[int, ...]) -> Task:
    """Frames of a film of the cell tracking challenge; silver truth where there is no gold one to learn from."""
    images = {int(path.stem[1:]): path for path in (data / "01").glob("t*.tif")}
    gold = {int(path.stem[-3:]): path for path in (data / "01_GT" / "SEG").glob("man_seg*.tif")}
    silver = {int(path.stem[-3:]): path for path in (data / "01_ST" / "SEG").glob("man_seg*.tif")}
    known = silver | gold
    return Task(
        [(images[frame], known[frame]) for frame in learnt],
        [images[frame] for frame in bare],
        [(images[frame], gold[frame]) for frame in scored],
        300,
    )


TASKS: dict[str, Callable[[Path], Task]] = {
    "nuclei": of_nuclei,
    "hela": lambda data: of_film(data, (0, 3, 6, 9, 11), (1, 2, 4, 5, 7, 8, 10, 21), (31, 33, 34)),
    "u373": lambda data: of_film(data, (1, 5, 6, 7), (21, 49), (67, 72, 75, 92, 96, 100, 102, 112)),
}

FAST = replace(RECIPES["fast"], target_kind="instances", border=2, normalisation="volume", validation=1)
CHANGES: dict[str, dict[str, object]] = {
    "fast": {},
    "fast again": {"seed": 1},
    "no average of weights": {"averaging": 0.0},
    "Dice beside the energy": {"dice": 0.5},
    "cores and rims": {"core": 2, "classes": 3},
    "blur and noise": {"blur": 1.0, "noise": 0.15},
    "grey values": {"gain": 0.2, "offset": 0.2, "gamma": 0.2},
    "brightness of objects": {"object_gain": 0.3},
    "scale": {"scaling": 0.2},
    "classes balanced by half": {"balance": 0.5},
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("data", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path("out") / "what-helps")
    parser.add_argument("--iterations", type=int, default=500)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", nargs="*", help="rows, instead of all")
    options = parser.parse_args()
    task, folder = TASKS[options.task](options.data), options.output / options.task
    base = replace(
        FAST,
        width=options.width,
        iterations=options.iterations,
        validate_every=options.iterations,
        checkpoint_every=options.iterations,
        threads=options.threads,
    )
    record = options.output / f"{options.task}.json"
    rows: dict[str, dict[str, float]] = json.loads(record.read_text()) if record.exists() else {}
    print(f"{'':>26} {'F1':>6} {'AP':>6} {'SEG':>6} {'seconds':>8}")
    for row, scores in _rows(task, base, folder, done=rows, only=options.only):
        rows[row] = scores
        record.write_text(json.dumps(rows, indent=1) + "\n")
        print(
            f"{row:>26} "
            + " ".join(f"{scores[name]:>6.3f}" for name in ("f1", "ap", "seg"))
            + f" {scores['seconds']:>8.0f}",
            flush=True,
        )


def _rows(
    task: Task, base: TrainConfig, folder: Path, *, done: dict[str, dict[str, float]], only: list[str] | None
) -> Iterator[tuple[str, dict[str, float]]]:
    """Compute the rows that are asked for and not there."""

    def wanted(name: str) -> bool:
        return name not in done and (only is None or name in only)

    _write(folder / "few", task.learnt)
    for name, changes in CHANGES.items():
        model = folder / f"{name.replace(' ', '-')}.safetensors"
        if name == "fast" or wanted(name):
            seconds = _trained(folder / "few", model, base.updated(changes))
        if wanted(name):
            yield name, _scores(load_model(model), task) | {"seconds": seconds}
    fast = load_model(folder / "fast.safetensors")
    if wanted("flips at inference"):
        yield "flips at inference", _scores(fast, task, flips=True) | {"seconds": 0.0}
    if wanted("distilled"):
        _distil(fast, task, folder / "more")
        as_classes = {"target_kind": "classes", "ignore": UNKNOWN, "objects": "cells"}
        seconds = _trained(folder / "more", folder / "distilled.safetensors", base.updated(as_classes))
        distilled = load_model(folder / "distilled.safetensors")
        yield "distilled", _scores(distilled, task) | {"seconds": seconds}


def _trained(folder: Path, model: Path, config: TrainConfig) -> float:
    """Train, unless the model is there, and return the seconds that it took."""
    if model.exists():
        return 0.0
    model.parent.mkdir(parents=True, exist_ok=True)
    begun = time.perf_counter()
    again = model.with_suffix(".checkpoint").exists()
    unet_dask.train(folder / "images", folder / "targets", model, config, resume=again)
    return time.perf_counter() - begun


def _write(folder: Path, pairs: list[Pair]) -> None:
    """Write images and instances under equal names."""
    for number, (image, mask) in enumerate(pairs):
        _put(folder, number, _grey(image), imread(mask))


def _put(folder: Path, number: int, image: np.ndarray, target: np.ndarray) -> None:
    for name, pixels in ("images", image), ("targets", target.astype(np.uint16)):
        (folder / name).mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(folder / name / f"{number:03}.tif", pixels)


def _grey(path: Path) -> np.ndarray:
    pixels = imread(path)
    return pixels if pixels.ndim == 2 else pixels[..., 0]


def _distil(model: Model, task: Task, folder: Path) -> None:
    """Write the few images with the classes of their instances, and the bare ones with what the model is sure of."""
    for number, (image, mask) in enumerate(task.learnt):
        _put(folder, number, _grey(image), separate(imread(mask).astype(np.int32), border=FAST.border) > 0)
    for number, image in enumerate(task.bare, start=len(task.learnt)):
        found = _probabilities(model, _grey(image), flips=True)
        target = np.where(found.max(axis=0) >= SURE, found.argmax(axis=0), UNKNOWN)
        _put(folder, number, _grey(image), target)


def _probabilities(model: Model, image: np.ndarray, *, flips: bool) -> np.ndarray:
    """Return (classes, y, x): of one pass, or the mean of those of all four flips."""
    pixels = image.astype(np.float32)
    pixels = ((pixels - pixels.mean()) / max(float(pixels.std()), 1e-6))[np.newaxis]
    axes = [axes for axes in product((False, True), repeat=2) if flips or not any(axes)]
    turned = [tuple(axis + 1 for axis, flip in enumerate(which) if flip) for which in axes]
    model.network.eval()
    passes = [np.flip(probabilities(model.network, np.flip(pixels, turn).copy()), turn) for turn in turned]
    return np.mean(passes, axis=0)


def _scores(model: Model, task: Task, *, flips: bool = False) -> dict[str, float]:
    """Return F1 at one half, average precision and SEG of all images together."""
    rule = replace(model.header.objects, fill_holes=True, min_size=task.smallest, split=0.0)
    counts, overlaps = np.zeros((len(OVERLAPS), 3)), np.zeros(2)
    for image, mask in task.scored:
        found = objects_in(_probabilities(model, _grey(image), flips=flips), rule)
        table = contingency(imread(mask).astype(np.int64), found)
        counts += [(each.hits, each.missed, each.invented) for each in match(table, OVERLAPS)]
        matched = seg(table)
        overlaps += matched.above, matched.below
    hits, missed, invented = counts.T
    return {
        "f1": round(float(2 * hits[0] / (2 * hits[0] + missed[0] + invented[0])), 4),
        "ap": round(float((hits / (hits + missed + invented)).mean()), 4),
        "seg": round(float(overlaps[0] / overlaps[1]), 4),
    }


if __name__ == "__main__":
    main()
