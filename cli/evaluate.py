"""``unet-dask evaluate``."""

from __future__ import annotations

import json
import logging
import time
from typing import TYPE_CHECKING, Any

import click

from .options import FILE, PATH, OneOf, common
from .terminal import say, show

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

#: Seconds between lines of progress.
_EVERY = 5.0


def _names(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[str, ...]:
    """Split a list of names at commas."""
    return tuple(name.strip() for name in (value or "").split(",") if name.strip())


def _products() -> list[str]:
    """Return the names of the products, which are imported only when somebody asks."""
    from unet_dask.products import by_information

    return [kind.name for kind in by_information()]


@click.command(short_help="Score a prediction against its truth.")
@click.argument("prediction", type=PATH)
@click.argument("truth", type=PATH)
@click.option(
    "--metrics",
    callback=_names,
    metavar="A,B,...",
    help="Of pixel,rand,warping,vrand,vinfo,iou,dice,seg,f1 [all that fit].",
)
@click.option(
    "--product",
    type=OneOf(_products),
    help="What the prediction holds; of a result, what to take [probabilities, or by the values].",
)
@click.option("--foreground-value", type=int, help="Value of the truth that is foreground [all but 0].")
@click.option(
    "--class",
    "class_number",
    type=int,
    help="Class that is foreground in the prediction [the last of two; all but 0].",
)
@click.option("--ignore", type=int, metavar="VALUE", help="Value of the truth that is not scored.")
@click.option("-k", "--key", metavar="PATH", help="Array of the prediction in a Zarr group.")
@click.option("--truth-key", metavar="PATH", help="Array of the truth in a Zarr group.")
@click.option("--axes", help="Axes of a prediction in Zarr, such as czyx [from its metadata].")
@click.option(
    "--plot",
    type=FILE,
    metavar="FILE.png",
    help="Draw the scores against the threshold.",
)
@common(printed="everything")
def evaluate(
    prediction: str,
    truth: str,
    *,
    plot: Path | None,
    quiet: bool,
    as_json: bool,
    **settings: Any,
) -> None:
    """Score PREDICTION against TRUTH, plane by plane and pooled.

    \b
    unet-dask evaluate membranes.seg.zarr labels.tif --metrics pixel,rand,warping
    unet-dask evaluate predicted/ 01_GT/SEG/ --metrics seg,f1
    unet-dask evaluate membranes.seg.zarr labels.tif --plot scores.png --json

    Each is a result of segment, a Zarr array, a TIFF stack, or a folder of TIFF or PNG images. Probabilities are cut
    at the thresholds 0.1 to 0.9, and the best one is chosen per score for the whole stack.
    """  # noqa: D301 # click takes the escaped b for "keep these lines"
    from unet_dask.evaluation.evaluate import EvaluateConfig
    from unet_dask.evaluation.evaluate import evaluate as run

    # What the reader of TIFFs logs about a damaged file is in our own line of error.
    logging.getLogger("tifffile").addHandler(logging.NullHandler())
    config = EvaluateConfig(**settings)
    found = run(prediction, truth, config, on_plane=None if quiet else _progress())
    if plot is not None:
        from unet_dask.picture.scores import draw_scores

        draw_scores(plot, found)
    for note in found.notes:
        say(note)
    if as_json:
        show(json.dumps(found.to_record()))
        return
    for line in found.lines():
        show(line)


def _progress() -> Callable[[int, int], None]:
    """Return a function that says every few seconds which plane is scored."""
    spoke = time.monotonic()

    def on_progress(index: int, count: int) -> None:
        nonlocal spoke
        if time.monotonic() - spoke >= _EVERY:
            spoke = time.monotonic()
            say(f"plane {index + 1} of {count}")

    return on_progress
