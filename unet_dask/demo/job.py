"""The demo: a large image with known truth, segmented, scored and drawn, without a network connection.

Everything it makes lies in one folder and is left there to be tried out. A second run finds what the first
one made: the image is kept, the run is resumed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr

from unet_dask.config import format_bytes
from unet_dask.demo.synthetic import nuclei, separated
from unet_dask.errors import MismatchError, OptionError, SinkError
from unet_dask.io.sink.multiscale import image_metadata, pyramid
from unet_dask.metrics.contingency import contingency
from unet_dask.metrics.objects import Matches, match
from unet_dask.metrics.pixel import confusion, iou, pixel_error
from unet_dask.model.file import DEFAULT_MODEL
from unet_dask.paths import local_path
from unet_dask.picture.preview import preview
from unet_dask.pipeline import segment_store
from unet_dask.products.classes import Classes
from unet_dask.products.coarse import averaged

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from unet_dask.io.bounded import OpenedArray
    from unet_dask.model.file import Model
    from unet_dask.run.events import Event
    from unet_dask.run.outcome import Run

#: Side in pixels of the chunks of the image, and of the blocks in which it is made.
_CHUNK = 512
#: Side in pixels of the crops in which the result is scored.
_CROP = 1024
#: Physical size of a pixel, as under an objective that magnifies 20 times.
_SPACING = 0.325
#: Attribute that marks what the demo made, so that it never touches anything else.
_MARK = "unet_dask_demo"


@dataclass(frozen=True, slots=True)
class Scores:
    """How well the result agrees with the truth.

    Attributes
    ----------
    iou : intersection over union of the foreground
    pixel_error : share of wrong pixels
    object_f1 : harmonic mean of precision and recall of nuclei; found means an overlap (IoU) above 0.5
    objects : nuclei in the truth
    """

    iou: float
    pixel_error: float
    object_f1: float
    objects: int


@dataclass(frozen=True, slots=True)
class Demo:
    """What a demo made.

    Attributes
    ----------
    folder : that holds everything
    image, truth, result, picture : in it
    run : of the segmentation
    scores : of the result
    """

    folder: Path
    image: Path
    truth: Path
    result: Path
    picture: Path
    run: Run
    scores: Scores

    @property
    def voxels_per_second(self) -> float | None:
        """Of the run, workers' start included; None if everything was done before."""
        voxels = np.prod([float(stop - start) for start, stop in self.run.plan.grid.roi])
        return float(voxels) / self.run.seconds if self.run.computed else None

    def describe(self) -> Iterator[tuple[str, str]]:
        """Yield what a user wants to know: label and text."""
        scores, run = self.scores, self.run
        pixels = f"foreground IoU {scores.iou:.3f}, pixel error {scores.pixel_error:.2%}"
        yield "scores", f"{pixels}, object F1 {scores.object_f1:.3f} ({scores.objects} nuclei, known truth)"
        if self.voxels_per_second is None:
            yield "speed", "nothing was left to do; everything was there from an earlier run"
        else:
            yield "speed", f"{run.seconds:.1f} s, {self.voxels_per_second / 1e6:.2f} Mvoxel/s"
            yield (
                "memory",
                f"{format_bytes(run.peak_bytes)} per worker at most; planned {format_bytes(run.plan.memory.total)}",
            )
        yield "image", f"{self.image}, truth in {self.truth}"
        yield "result", str(self.result)
        yield "picture", str(self.picture)

    def next_commands(self) -> tuple[str, ...]:
        """Return commands worth trying now."""
        side = self.run.plan.grid.shape[-1]
        part = f"{side // 4}:{min(side // 4 + 512, side)}"
        return (
            f"unet-dask info {self.result}",
            f"unet-dask preview {self.result} --roi {part},{part} -o {self.folder / 'detail.png'}",
            f"unet-dask segment {self.image} -o {self.folder / 'again.zarr'} --dry-run",
        )

    def to_json(self) -> dict[str, Any]:
        """Return the outcome for programs."""
        return {
            "image": str(self.image),
            "truth": str(self.truth),
            "result": str(self.result),
            "picture": str(self.picture),
            "iou": self.scores.iou,
            "pixel_error": self.scores.pixel_error,
            "object_f1": self.scores.object_f1,
            "objects": self.scores.objects,
            "voxels_per_second": self.voxels_per_second,
            "planned_bytes": self.run.plan.memory.total,
            "run": self.run.to_json(),
        }


def run_demo(
    folder: str | os.PathLike[str] = "demo",
    *,
    model: Model | str | os.PathLike[str] = DEFAULT_MODEL,
    side: int = 4096,
    seed: int = 0,
    workers: int = 2,
    on_event: Callable[[Event], None] | None = None,
    say: Callable[[str], object] | None = None,
) -> Demo:
    """Make an image of nuclei, segment it, score the result and draw it.

    Parameters
    ----------
    folder : to make everything in; what an earlier demo left there is used
    model : to segment with
    side : of the image in pixels
    seed : of the image
    workers : processes
    on_event : called with the events of the run
    say : called with a line before each step

    Raises
    ------
    SinkError
        If the folder cannot be written, or holds something else under one of the demo's names.
    """
    if side < 64:
        raise OptionError(f"A demo image of {side} pixels holds no nuclei. Use a side of at least 64.")
    place = local_path(folder)
    say = say or (lambda line: None)
    image, truth, result = (place / name for name in ("nuclei.zarr", "truth.zarr", "nuclei.seg.zarr"))
    say(f"an image of {side} x {side} pixels with known truth")
    _make(image, truth, side=side, seed=seed)
    say("segmentation")
    run = _segment(image, result, model, workers=workers, on_event=on_event)
    say("scores")
    scores = score(result, truth, side=side)
    say("picture")
    middle = max(side // 2 // _CHUNK * _CHUNK, 0)
    last = min(middle + 640, side)
    picture = preview(result, place / "nuclei.png", roi=f"{middle}:{last},{middle}:{last}").path
    return Demo(place, image, truth, result, picture, run, scores)


def _make(image: Path, truth: Path, *, side: int, seed: int) -> None:
    """Make the image and its truth unless they are there."""
    wanted = {"side": side, "seed": seed, "version": 1}
    if [_made(store) for store in (image, truth)] == [wanted, wanted]:
        return
    spacing, unit = dict.fromkeys("yx", _SPACING), dict.fromkeys("yx", "micrometer")
    try:
        levels = pyramid("yx", (side, side), spacing)
        metadata = [
            image_metadata("yx", levels[:count], name=name, spacing=spacing, unit=unit, translation={})
            for name, count in (("nuclei", len(levels)), ("truth", 1))
        ]
        metadata[1] |= Classes("uint8").described(("background", "nucleus"))
        roots = [
            zarr.create_group(str(store), attributes={"ome": each, _MARK: {}}, overwrite=True)
            for store, each in zip((image, truth), metadata, strict=True)
        ]
        pixels = [_array(roots[0], str(number), level.shape, "uint16") for number, level in enumerate(levels)]
        classes = _array(roots[1], "0", (side, side), "uint8")
        labels = _array(roots[1], "labels", (side, side), "uint32")
        for window in _windows(side, _CHUNK):
            origin = (window[0].start, window[1].start)
            shape = (window[0].stop - origin[0], window[1].stop - origin[1])
            pixels[0][window], numbers = nuclei(shape, seed=seed, origin=origin)
            classes[window], labels[window] = separated(numbers), numbers
        for finer, level in pairwise(pixels):
            _halve(finer, level)
        for root in roots:
            root.attrs[_MARK] = wanted
    except OSError as error:
        raise SinkError(
            f"The demo cannot write to {image.parent}: {error.strerror or error}. Name another folder."
        ) from error


def _array(group: zarr.Group, name: str, shape: tuple[int, ...], dtype: str) -> OpenedArray:
    return group.create_array(
        name, shape=shape, dtype=dtype, chunks=(_CHUNK, _CHUNK), dimension_names=["y", "x"]
    )


def _halve(finer: OpenedArray, level: OpenedArray) -> None:
    """Fill a level of the image's pyramid from the one before, block by block."""
    for window in _windows(level.shape[0], _CHUNK):
        above = tuple(slice(2 * part.start, min(2 * part.stop, finer.shape[0])) for part in window)
        level[window] = averaged(np.asarray(finer[above]), (2, 2))


def _made(store: Path) -> dict[str, Any] | None:
    """Return what the demo noted in a store when it was complete, None if there is no store.

    Raises
    ------
    SinkError
        If something stands there that no demo made.
    """
    if not store.exists():
        return None
    try:
        document = json.loads((store / "zarr.json").read_text(encoding="utf-8"))
        noted = document["attributes"][_MARK]
    except (OSError, ValueError, KeyError, TypeError):
        raise SinkError(
            f"{store} was not made by a demo, so it is left alone. Name another folder: unet-dask demo DIR."
        ) from None
    return dict(noted)


def _segment(
    image: Path,
    result: Path,
    model: Model | str | os.PathLike[str],
    *,
    workers: int,
    on_event: Callable[[Event], None] | None,
) -> Run:
    """Segment the image, or go on with what an earlier demo left; one of another image or model is replaced."""
    settings: dict[str, Any] = {
        "products": ("classes", "instances", "probabilities"),
        "workers": workers,
        "on_event": on_event or (lambda event: None),
    }
    try:
        return segment_store(image, result, model, resume=True, **settings)
    except MismatchError:
        return segment_store(image, result, model, overwrite=True, **settings)


def score(result: str | os.PathLike[str], truth: str | os.PathLike[str], *, side: int) -> Scores:
    """Compare the classes and objects of a result with the truth, crop by crop.

    Parameters
    ----------
    result : sink
    truth : store of the demo
    side : of the image
    """
    found, made = (
        zarr.open_array(str(result), path=f"{name}/0", mode="r") for name in ("classes", "instances")
    )
    true_classes = zarr.open_array(str(truth), path="0", mode="r")
    true_labels = zarr.open_array(str(truth), path="labels", mode="r")
    pixels = np.zeros((2, 2))
    objects = Matches(0, 0, 0)
    for window in _windows(side, _CROP):
        foreground = np.asarray(found[window]) > 0
        pixels += confusion(foreground.astype(np.uint8), np.asarray(true_classes[window]), count=2)
        table = contingency(np.asarray(true_labels[window]), np.asarray(made[window]))
        objects += match(table, [0.5])[0]
    return Scores(iou(pixels)[1], pixel_error(pixels), objects.f1.value, objects.hits + objects.missed)


def _windows(side: int, step: int) -> Iterator[tuple[slice, slice]]:
    """Yield the squares of a square image, row by row."""
    edges = range(0, side, step)
    for row in edges:
        for column in edges:
            yield slice(row, min(row + step, side)), slice(column, min(column + step, side))
