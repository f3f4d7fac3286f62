"""``unet-dask train``: parse, call `unet_dask.training.loop.train`, render its events."""

from __future__ import annotations

import json
import signal
import time
from typing import TYPE_CHECKING, Any

import click

from .advice import once_more
from .options import FILE, common
from .terminal import READER_GONE, say, show

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from unet_dask.model.file import Model
    from unet_dask.training.config import TrainConfig
    from unet_dask.training.events import Event, Started, Stepped, Validated
    from unet_dask.training.loop import TrainResult

#: Seconds between two lines of progress.
_EVERY = 5.0
#: Exit code of a program that was ended by SIGINT, as shells have it.
_INTERRUPTED = 130


def _numbers(kind: type[int | float]) -> Callable[[click.Context, click.Parameter, str | None], Any]:
    """Return a callback that reads comma-separated numbers, one or one per axis."""

    def read(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[float, ...] | None:
        try:
            return None if value is None else tuple(kind(part) for part in value.split(","))
        except ValueError:
            raise click.BadParameter(
                f"{value!r} is not a list of numbers such as 384 or 16,128,128."
            ) from None

    return read


@click.command("train", short_help="Train a U-Net from annotated images.")
@click.argument("images")
@click.argument("targets")
@click.option(
    "-o",
    "--output",
    type=FILE,
    required=True,
    metavar="MODEL",
    help="Model file to write, .safetensors; usable from the first validation on.",
)
@click.option(
    "--config",
    "config_file",
    type=FILE,
    metavar="FILE.toml",
    help="Settings of the recipe; options given here win over it.",
)
@click.option(
    "--recipe",
    type=click.Choice(["paper", "fast"]),
    help="Where the settings begin; fast is a narrow network in 3,000 iterations [fast on a CPU, else paper].",
)
@click.option("--start", type=FILE, metavar="MODEL", help="Fine-tune this model, and its network.")
@click.option(
    "--dims", type=int, help="Dimensions of the network, 2 or 3. A stack is many images for 2, one for 3."
)
@click.option("--width", type=int, help="Feature channels of the first level.")
@click.option("--depth", type=int, help="Number of poolings.")
@click.option("--classes", type=int, help="Number of classes, background included.")
@click.option("--class-names", metavar="A,B,...", help="Names of the classes, the first is background.")
@click.option("--batch-norm/--no-batch-norm", default=None, help="Batch normalisation; not in the paper.")
@click.option("--iterations", type=int, help="Steps of gradient descent, each on one tile.")
@click.option(
    "--tile",
    callback=_numbers(int),
    metavar="N,...",
    help="Side of a tile's core in pixels, one or one per axis.",
)
@click.option("--learning-rate", type=float, help="Of the first iteration; it decays to 0.")
@click.option("--seed", type=int, help="Of everything that is random.")
@click.option(
    "--validation", type=float, help="Images held out: a fraction below 1, or a number; 0 for none."
)
@click.option("--hold-out", multiple=True, metavar="GLOB", help="Images held out, by name.")
@click.option("--validate-every", type=int, help="Iterations between validations.")
@click.option("--checkpoint-every", type=int, help="Iterations between checkpoints.")
@click.option("-k", "--key", metavar="PATH", help="Array of the images in a Zarr group.")
@click.option("--target-key", metavar="PATH", help="Array of the targets in a Zarr group.")
@click.option("--axes", help="Axes of images in Zarr, such as czyx [from its metadata].")
@click.option(
    "--target-kind",
    type=click.Choice(["auto", "classes", "instances"]),
    help="What targets hold; auto looks at their values and says what it took them for.",
)
@click.option(
    "--foreground-value", type=int, help="Targets of two classes: this value is class 1, all else class 0."
)
@click.option(
    "--ignore", type=int, metavar="VALUE", help="Value of pixels that nobody annotated; they weigh nothing."
)
@click.option(
    "--ignore-background",
    is_flag=True,
    default=None,
    help="Unlabelled pixels are unknown, not background, except close to an annotated object.",
)
@click.option(
    "--partial", multiple=True, metavar="GLOB", help="Images that --ignore-background is limited to."
)
@click.option(
    "--objects",
    type=click.Choice(["auto", "components", "cells", "neurites"]),
    help="How the model shall make objects; auto makes cells of instances, and components of classes.",
)
@click.option(
    "--normalisation",
    type=click.Choice(["constant", "volume"]),
    help="Grey values by constants of the training images, or by each volume's own.",
)
@click.option(
    "--spacing",
    callback=_numbers(float),
    metavar="X,...",
    help="Pixel size of the images, one value per axis.",
)
@click.option("--unit", help="Unit of the spacing, such as micrometer.")
@click.option(
    "--precision",
    type=click.Choice(["float32", "bfloat16", "float16"]),
    help="Of forward and backward pass; weights and update are float32 always.",
)
@click.option(
    "--memory",
    metavar="8GiB",
    help="For images, targets and weights; Zarr arrays that take more are read patch by patch.",
)
@click.option("--threads", type=int, help="Threads of torch.")
@click.option("--device", help="cpu, cuda, cuda:1, ...; auto takes CUDA where there is one.")
@click.option("--resume", is_flag=True, help="Go on from the checkpoint beside the model.")
@common(quiet="No progress, only errors.", printed="the result")
@click.pass_context
def train(
    context: click.Context,
    /,
    images: str,
    targets: str,
    output: Path,
    *,
    start: Path | None,
    resume: bool,
    quiet: bool,
    as_json: bool,
    **settings: Any,
) -> None:
    """Train a U-Net from IMAGES and their TARGETS, and keep the best network.

    Both are TIFF stacks, folders of TIFF or PNG images that pair by name or number, or Zarr arrays.
    Without options the recipe is the fast one on a CPU, and that of the 2015 paper on a GPU. Ctrl-C writes a
    checkpoint; --resume goes on.
    """
    lines = _Lines()
    try:
        from unet_dask.model.file import load_model
        from unet_dask.training.loop import train as run

        model = load_model(start) if start else None
        config = _configured(model, **settings)
        listener = None if quiet else lines
        result = run(images, targets, output, config, resume=resume, start=model, on_event=listener)
    except KeyboardInterrupt as stopped:
        if lines.unread:
            raise SystemExit(READER_GONE) from None
        say(f"unet-dask: {str(stopped) or 'interrupted'}; {_advice(context, output)}")
        raise SystemExit(getattr(stopped, "exit_code", _INTERRUPTED)) from None
    _conclude(result, quiet=quiet, as_json=as_json)


def _advice(context: click.Context, output: Path) -> str:
    """Return how to go on with an interrupted training; without a checkpoint it has to be begun again."""
    if output.with_suffix(".checkpoint").exists():
        return f"a checkpoint is written. Go on with: {once_more(context, resume=True)}"
    return f"no iteration was kept. Begin again with: {once_more(context, resume=False)}"


def _configured(
    model: Model | None, *, recipe: str | None, config_file: Path | None, **settings: Any
) -> TrainConfig:
    """Return the recipe, changed by the model to start from, by the configuration file and by the options."""
    from unet_dask.training.config import RECIPES, network_of, read_settings
    from unet_dask.training.job import usual_recipe

    said = {**(read_settings(config_file) if config_file else {}), **_given(settings)}
    given = {**(network_of(model.header) if model else {}), **said}
    if said.get("target_kind") == "classes":  # whatever the classes of the model were made of
        given["core"] = said.get("core", 0)
    device = given.get("device", "auto")
    name = recipe or usual_recipe(device if isinstance(device, str) else "auto")
    config = RECIPES[name].updated(given)
    # The tile of a recipe is one of images; a volume of that side is none.
    return config.updated({"tile": ()}) if config.dims == 3 and "tile" not in given else config


def _given(settings: dict[str, Any]) -> dict[str, Any]:
    """Keep the options that were given; None and an empty list mean "as configured"."""
    given = {name: value for name, value in settings.items() if value is not None and value != ()}
    if "class_names" in given:
        given["class_names"] = tuple(name.strip() for name in given["class_names"].split(","))
    return given


def _conclude(result: TrainResult, *, quiet: bool, as_json: bool) -> None:
    if as_json:
        record = {
            "model": str(result.model),
            "iterations": result.iterations,
            "best_iteration": result.best_iteration,
            "scores": result.scores,
            "seconds": round(result.seconds, 1),
            "log": str(result.log),
            "picture": str(result.picture),
            "notes": list(result.notes),
        }
        show(json.dumps(record))
    elif not quiet:
        scores = result.scores
        held = (
            f", pixel error {scores['pixel_error']:.4f}, mean IoU {scores['mean_iou']:.4f}" if scores else ""
        )
        say(f"{result.model}: best of iteration {result.best_iteration}{held}")


class _Lines:
    """Render events as lines on standard error, progress at most every few seconds.

    Attributes
    ----------
    unread : whether nobody reads them any more; the training is then ended as by Ctrl-C, with its checkpoint
    """

    def __init__(self) -> None:
        self.began = self.spoke = time.monotonic()
        self.first = 0
        self.unread = False

    def __call__(self, event: Event) -> None:
        """Show one event."""
        try:
            self._show(event)
        except BrokenPipeError:
            if not self.unread:
                self.unread = True
                signal.raise_signal(signal.SIGINT)

    def _show(self, event: Event) -> None:
        from unet_dask.training.events import Started, Stepped, Validated

        if isinstance(event, Started):
            self._started(event)
        elif isinstance(event, Stepped):
            self._stepped(event)
        elif isinstance(event, Validated):
            self._validated(event)

    def _started(self, event: Started) -> None:
        self.began, self.first = time.monotonic(), event.iteration
        size = "x".join(str(side) for side in event.input_size)
        out = "x".join(str(side) for side in event.output_size)
        shares = ", ".join(f"{share:.1%}" for share in event.class_share)
        for note in event.notes:
            say(f"note: {note}")
        say(f"targets: {event.target_kind}; share of the classes: {shares}")
        say(
            f"images: {len(event.images)} to train on, {len(event.held_out)} held out"
            + (
                f" ({', '.join(event.held_out[:3])}{', ...' * (len(event.held_out) > 3)})"
                if event.held_out
                else ""
            )
        )
        say(f"network: {event.parameters:,} parameters, tiles {size} -> {out}")
        if event.iteration:
            say(f"resumed after iteration {event.iteration}")
        if event.pace:
            say(
                f"time: about {_duration(event.pace.total)} here, {event.pace.iteration:.2g} s an iteration; the first "
                f"usable model in {_duration(event.pace.first_model)}"
            )

    def _stepped(self, event: Stepped) -> None:
        now = time.monotonic()
        if now - self.spoke < _EVERY:
            return
        self.spoke = now
        left = (now - self.began) / (event.iteration - self.first) * (event.iterations - event.iteration)
        say(
            f"{event.iteration}/{event.iterations}  loss {event.loss:.4f}  {event.seconds:.2f} s/iteration  "
            f"{_duration(left)} left"
        )

    @staticmethod
    def _validated(event: Validated) -> None:
        each = ", ".join(f"{value:.3f}" for value in event.iou)
        kept = "  kept" if event.best else ""
        scores = (("F1 of objects", event.f1), ("V_rand of neurites", event.v_rand))
        objects = "".join(f"{name} {value:.3f}, " for name, value in scores if value is not None)
        say(
            f"{event.iteration}  validation: {objects}pixel error {event.pixel_error:.4f}, IoU {each}, "
            f"mean loss {event.loss:.4f}{kept}"
        )


def _duration(seconds: float) -> str:
    """Write seconds as 1 h 05 min, 12 min or 40 s."""
    minutes, hours = seconds / 60, int(seconds // 3600)
    if hours:
        return f"{hours} h {int(minutes) % 60:02d} min"
    return f"{minutes:.0f} min" if minutes >= 2 else f"{seconds:.0f} s"
