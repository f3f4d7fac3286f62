"""The training loop: one large tile per step, momentum 0.99, the best network kept (paper, section 3)."""

from __future__ import annotations

import math
import time
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from unet_dask.ahead import in_order
from unet_dask.errors import OptionError, SinkError
from unet_dask.io.images.annotated_volume import open_annotated
from unet_dask.model.file import save_model
from unet_dask.paths import local_path
from unet_dask.spacing import contradiction, shown
from unet_dask.texts import parse_bytes
from unet_dask.training.checkpoint import checkpoint_path, load_checkpoint, save_checkpoint
from unet_dask.training.curves import CurvePoint, draw_curves, read_curves, write_curves
from unet_dask.training.events import Event, Saved, Started, Stepped, Validated
from unet_dask.training.interrupt import Interruption
from unet_dask.training.job import Job, State, device_of, initial, model_of, settings_of_torch
from unet_dask.training.pace import Pace, pace
from unet_dask.training.parallel import team
from unet_dask.training.prepare import training_set
from unet_dask.training.sample import Patch, draw_patch, tile_cores
from unet_dask.training.step import step
from unet_dask.training.validate import validate

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Generator, Iterator
    from pathlib import Path

    from unet_dask.model.file import Model
    from unet_dask.training.config import TrainConfig


@dataclass(frozen=True, slots=True)
class TrainResult:
    """What a training left behind.

    Attributes
    ----------
    model : path of the model file, the best network of the training
    iterations : that were done
    best_iteration : of the network that was kept
    scores : of the kept network on held-out images: pixel_error, iou, mean_iou, the weighted score that it was
        chosen by, and where targets are instances those of objects; empty without any
    seconds : of training
    log, picture : CSV and PNG of the curves
    notes : what the user should know of the data
    """

    model: Path
    iterations: int
    best_iteration: int
    scores: dict[str, Any]
    seconds: float
    log: Path
    picture: Path
    notes: tuple[str, ...] = ()


def train(
    images: str | os.PathLike[str],
    targets: str | os.PathLike[str],
    output: str | os.PathLike[str],
    config: TrainConfig,
    *,
    resume: bool = False,
    start: Model | None = None,
    on_event: Callable[[Event], None] | None = None,
) -> TrainResult:
    """Train a U-Net from annotated images and keep the best network.

    Beside the model file lie its ``.checkpoint``, ``.csv`` and ``.png``.

    Parameters
    ----------
    images, targets : TIFF stack, folder of images, or Zarr array
    output : model file to write, .safetensors; it is there, and usable, from the first validation on
    config : recipe
    resume : go on from the checkpoint of an interrupted training of the same model
    start : model to fine-tune, of the network that `config` describes; its weights are changed in place. Grey
        values are normalised by the new images, not as the model did
    on_event : called with what happens, see `events`

    Raises
    ------
    InputError
        If images and targets cannot be used; the message names the file.
    OptionError
        If settings do not fit together, or the training diverged.
    SinkError
        If the model exists and `resume` is not given.
    KeyboardInterrupt
        After Ctrl-C, once the iteration is complete and its checkpoint written.
    """
    path = local_path(output)
    device = device_of(config)
    with settings_of_torch(config), team(device) as processes:
        if processes.leads:
            _require_free(path, resume=resume)
        report = (on_event or _ignore) if processes.leads else _ignore
        memory = parse_bytes(config.memory)
        annotated = open_annotated(
            images,
            targets,
            dims=config.dims,
            ignore=config.ignore,
            memory=memory,
            image_key=config.key,
            target_key=config.target_key,
            axes=config.axes,
        )
        data = training_set(annotated, config)
        cores = tile_cores(config, [each.shape for each in data.images])
        job = Job(config, data, cores, path, device, processes, start)
        state = initial(job)
        if resume:
            found = checkpoint_path(path)
            state.progress = load_checkpoint(
                found, state.modules, state.optimiser, state.scaler, fingerprint=job.fingerprint
            )
            state.saved_at = state.progress.iteration
            state.curves = read_curves(path.with_suffix(".csv"), until=state.progress.iteration)
        report(_started(job, state, _pace(job, state)))
        with closing(_patches(job, state.progress.iteration)) as patches, Interruption() as interruption:
            for patch in patches:
                for event in _advance(job, state, patch):
                    report(event)
                if processes.any(interruption.requested, device=device):
                    if processes.leads:
                        report(_checkpoint(job, state))
                    interruption.stop()
        return _finish(job, state)


def _ignore(event: Event) -> None:
    """Report to nobody."""


def _require_free(path: Path, *, resume: bool) -> None:
    """Refuse to destroy hours of training by accident, and to resume what is not there."""
    if path.suffix != ".safetensors":
        raise OptionError(f"A model file ends in .safetensors, but {path.name!r} does not.")
    checkpoint = checkpoint_path(path)
    if resume and not checkpoint.exists():
        raise OptionError(f"There is nothing to resume: {checkpoint} does not exist. Train without --resume.")
    if not resume:
        for existing in (path, checkpoint):
            if existing.exists():
                raise SinkError(
                    f"{existing} exists already. Use --resume to go on with it, or choose another name."
                )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SinkError(f"{path.parent} cannot be created: {error.strerror or error}.") from error


def _pace(job: Job, state: State) -> Pace | None:
    """Return how long the rest takes; None if nothing is left."""
    iteration = state.progress.iteration
    if iteration >= job.config.iterations:
        return None
    began = time.perf_counter()
    patch = _drawn(job, iteration)
    return pace(job, state, patch, time.perf_counter() - began)


def _started(job: Job, state: State, expected: Pace | None) -> Started:
    data, config = job.data, job.config
    contexts = state.network.spec.contexts
    sizes = tuple(context.input_size(core) for context, core in zip(contexts, job.cores, strict=True))
    return Started(
        images=tuple(image.name for image in data.images),
        held_out=tuple(image.name for image in data.held_out),
        target_kind=f"{data.decision.kind} ({data.decision.reason})",
        class_share=data.class_share,
        parameters=sum(parameter.numel() for parameter in state.network.parameters()),
        input_size=sizes,
        output_size=tuple(context.output_size(size) for context, size in zip(contexts, sizes, strict=True)),
        iteration=state.progress.iteration,
        iterations=config.iterations,
        notes=(*data.notes, *_of_start(job)),
        pace=expected,
    )


def _of_start(job: Job) -> tuple[str, ...]:
    """Say that the model to start from was trained at another size of pixels."""
    header, data = job.start.header if job.start else None, job.data
    ratio = contradiction(header.spacing, header.unit, data.spacing, data.unit) if header else None
    if header is None or ratio is None or not header.spacing or not data.spacing:
        return ()
    return (
        (
            f"pixel size: the model to start from has {shown(header.spacing, header.unit)}, the images "
            f"{shown(data.spacing, data.unit)}"
        ),
    )


def _patches(job: Job, done: int) -> Generator[Patch]:
    """Draw the patch of each iteration, one ahead of its use."""
    return in_order(
        lambda iteration: _drawn(job, iteration), range(done, job.config.iterations), threads=1, ahead=1
    )


def _drawn(job: Job, iteration: int) -> Patch:
    """Draw a patch; its randomness depends on the seed and the number of the iteration, not on those before."""
    rng = np.random.default_rng([job.config.seed, 2, job.team.draw(iteration)])
    return draw_patch(job.data.images, rng, cores=job.cores, config=job.config)


def learning_rate(config: TrainConfig, iteration: int) -> float:
    """Return the learning rate of an iteration, counted from 0.

    Examples
    --------
    >>> from unet_dask.training.config import TrainConfig
    >>> learning_rate(TrainConfig(iterations=10, poly_power=1.0), 5)
    0.0005
    """
    return float(config.learning_rate * (1 - iteration / config.iterations) ** config.poly_power)


def _advance(job: Job, state: State, patch: Patch) -> Iterator[Event]:
    """Do one iteration and what is due after it."""
    config, began = job.config, time.perf_counter()
    iteration = state.progress.iteration + 1
    rate = learning_rate(config, iteration - 1)
    loss = step(job, state, patch, rate)
    seconds = time.perf_counter() - began
    state.losses.append(loss)
    state.progress = replace(state.progress, iteration=iteration, seconds=state.progress.seconds + seconds)
    yield Stepped(iteration, config.iterations, loss, rate, seconds)
    if not job.team.leads:
        return
    last = iteration == config.iterations
    if last or iteration % config.validate_every == 0:
        yield from _assess(job, state)
    # A model without a checkpoint could neither be gone on with nor be trained again under its name.
    if last or iteration % config.checkpoint_every == 0 or (state.saved_at < 0 and job.output.exists()):
        yield _checkpoint(job, state)


def _assess(job: Job, state: State) -> Iterator[Event]:
    """Validate, keep the network if it is the best so far, record the curves."""
    loss = float(np.mean(state.losses)) if state.losses else math.nan
    state.losses.clear()
    progress = state.progress
    scores: dict[str, Any] = {}
    best, score = True, math.nan
    if job.data.held_out:
        found = validate(state.kept, job.data.held_out, rules=job.data.objects, device=job.device)
        scores, score = found.to_json(), found.score
        best = progress.best is None or score > progress.best
        of_objects = scores.get("objects", {})
        yield Validated(
            progress.iteration,
            loss,
            found.pixel_error,
            found.iou,
            score,
            best,
            f1=of_objects.get("f1"),
            v_rand=of_objects.get("v_rand"),
        )
    state.curves.append(
        CurvePoint(
            progress.iteration, loss, scores.get("pixel_error", math.nan), score, round(progress.seconds, 1)
        )
    )
    write_curves(job.output.with_suffix(".csv"), state.curves)
    if best:
        state.progress = replace(
            progress,
            best=None if math.isnan(score) else score,
            best_iteration=progress.iteration,
            scores=scores or None,
        )
        save_model(model_of(job, state), job.output, half=job.config.half)
        yield Saved(job.output, "model")


def _checkpoint(job: Job, state: State) -> Saved:
    path = checkpoint_path(job.output)
    if state.saved_at != state.progress.iteration:
        save_checkpoint(
            path,
            state.modules,
            state.optimiser,
            state.scaler,
            progress=state.progress,
            fingerprint=job.fingerprint,
        )
        state.saved_at = state.progress.iteration
    return Saved(path, "checkpoint")


def _finish(job: Job, state: State) -> TrainResult:
    picture, log = job.output.with_suffix(".png"), job.output.with_suffix(".csv")
    if job.team.leads:
        draw_curves(picture, state.curves)
    progress = state.progress
    return TrainResult(
        model=job.output,
        iterations=progress.iteration,
        best_iteration=progress.best_iteration,
        scores=dict(progress.scores or {}),
        seconds=progress.seconds,
        log=log,
        picture=picture,
        notes=(*job.data.notes, *_of_start(job)),
    )
