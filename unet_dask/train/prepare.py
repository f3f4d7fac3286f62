"""From annotated images to what the loop draws from: split, normalised, weighted."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from unet_dask.errors import InputError, OptionError
from unet_dask.model.file import normalise
from unet_dask.model.header import Normalisation
from unet_dask.train.sample import TrainingImage
from unet_dask.train.target import decide, prepare
from unet_dask.train.weight_map import class_weights, weight_map

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from unet_dask.io.images import AnnotatedImage
    from unet_dask.train.config import TrainConfig
    from unet_dask.train.target import Decision, Target


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """All that a training knows of its data.

    Attributes
    ----------
    images, held_out : to train and to validate on
    normalisation : for the model file
    decision : what the targets were taken for
    class_share : share of each class among the annotated training pixels
    files : (base name, SHA-256) of everything that was read
    spacing, unit : of the images, if known
    """

    images: tuple[TrainingImage, ...]
    held_out: tuple[TrainingImage, ...]
    normalisation: Normalisation
    decision: Decision
    class_share: tuple[float, ...]
    files: tuple[tuple[str, str], ...]
    spacing: tuple[float, ...] | None
    unit: str | None

    @property
    def channels(self) -> int:
        """Channels of every image."""
        return len(self.images[0].image)


def training_set(annotated: Sequence[AnnotatedImage], config: TrainConfig) -> TrainingSet:
    """Prepare images for training.

    Parameters
    ----------
    annotated : images with targets
    config : recipe

    Raises
    ------
    InputError
        If the targets are not what the recipe expects, or nothing is annotated.
    OptionError
        If nothing would be left to train on.
    """
    decision = decide(annotated, config)
    training, held_out = split(annotated, config)
    normalisation = normalisation_of(training, config)
    targets = [prepare(each, decision, config) for each in training]
    counts = np.sum(
        [np.bincount(target.classes[target.known].ravel(), minlength=config.classes) for target in targets],
        axis=0,
    )
    weights = class_weights(counts.tolist(), balance=config.balance)
    if np.count_nonzero(weights) < 2:
        raise InputError(
            f"All annotated pixels of the training images are of class {int(np.argmax(weights))}, so there "
            "is nothing to tell apart. Check --target-kind, --ignore and --ignore-background."
        )
    spacings = {each.spacing for each in annotated}
    return TrainingSet(
        images=tuple(
            _weighted(each, target, weights, normalisation, config)
            for each, target in zip(training, targets, strict=True)
        ),
        held_out=tuple(
            _weighted(each, prepare(each, decision, config), weights, normalisation, config)
            if decision.kind == "instances"
            else _unweighted(each, prepare(each, decision, config), normalisation)
            for each in held_out
        ),
        normalisation=normalisation,
        decision=decision,
        class_share=tuple(float(count) / float(counts.sum()) for count in counts),
        files=tuple(sorted({pair for each in annotated for pair in each.files})),
        spacing=config.spacing or (spacings.pop() if len(spacings) == 1 else None),
        unit=config.unit or annotated[0].unit,
    )


def split(
    annotated: Sequence[AnnotatedImage], config: TrainConfig
) -> tuple[list[AnnotatedImage], list[AnnotatedImage]]:
    """Hold out some images for validation, chosen by the seed.

    A `validation` below 1 is a fraction, of which at least one image is held out; a single image gives
    its last part along its longest axis instead, a fifth if a number of images was asked for.

    Raises
    ------
    OptionError
        If no image would be left to train on.
    """
    if config.validation == 0:
        return list(annotated), []
    if len(annotated) == 1:
        return _cut(annotated[0], config.validation if config.validation < 1 else 0.2)
    fraction = config.validation < 1
    count = max(1, round(len(annotated) * config.validation)) if fraction else int(config.validation)
    if count >= len(annotated):
        raise OptionError(
            f"Holding out {count} of {len(annotated)} images leaves none to train on. "
            f"Use --validation {len(annotated) - 1} or less, or 0 for none."
        )
    order = np.random.default_rng([config.seed, 1]).permutation(len(annotated))
    held = set(order[:count].tolist())
    training = [each for index, each in enumerate(annotated) if index not in held]
    return training, [annotated[index] for index in sorted(held)]


def _cut(whole: AnnotatedImage, fraction: float) -> tuple[list[AnnotatedImage], list[AnnotatedImage]]:
    """Cut one image in two along its longest axis."""
    axis = int(np.argmax(whole.target.shape))
    side = whole.target.shape[axis]
    at = side - max(1, round(side * fraction))
    if at < 1:
        raise OptionError(f"Holding out {fraction} of an image of {side} pixels leaves nothing to train on.")

    def part(name: str, span: slice) -> AnnotatedImage:
        inside = (slice(None),) * axis + (span,)
        return replace(
            whole,
            name=f"{whole.name} ({name})",
            image=whole.image[(slice(None), *inside)],
            target=whole.target[inside],
            known=whole.known[inside],
        )

    return [part("training part", slice(0, at))], [part("held-out part", slice(at, side))]


def normalisation_of(images: Sequence[AnnotatedImage], config: TrainConfig) -> Normalisation:
    """Return what the model file stores: mean and deviation over all training pixels, or "volume"."""
    if config.normalisation == "volume":
        return Normalisation("volume")
    count = sum(each.target.size for each in images)
    axes = tuple(range(1, images[0].image.ndim))
    mean = sum(each.image.sum(axis=axes, dtype=np.float64) for each in images) / count
    per_channel = np.reshape(mean, (-1, *(1,) * len(axes)))
    variance = sum(np.square(each.image - per_channel).sum(axis=axes) for each in images) / count
    deviation = np.sqrt(np.asarray(variance))
    return Normalisation(
        "constant",
        tuple(float(value) for value in np.asarray(mean)),
        tuple(float(value) or 1.0 for value in deviation),
    )


def normalised(image: NDArray[np.generic], normalisation: Normalisation) -> NDArray[np.float32]:
    """Return network input for one training image; for "volume" by its own mean and deviation."""
    if normalisation.kind == "volume":
        axes = tuple(range(1, image.ndim))
        values = image.astype(np.float64)
        mean, deviation = values.mean(axis=axes), values.std(axis=axes)
        normalisation = Normalisation(
            "constant",
            tuple(float(value) for value in mean),
            tuple(float(value) or 1.0 for value in deviation),
        )
    return normalise(image, normalisation)


def _weighted(
    annotated: AnnotatedImage,
    target: Target,
    weights: NDArray[np.float32],
    normalisation: Normalisation,
    config: TrainConfig,
) -> TrainingImage:
    return TrainingImage(
        annotated.name,
        normalised(annotated.image, normalisation),
        target.classes,
        weight_map(
            target.classes,
            target.cells,
            class_weight=weights,
            known=target.known,
            w0=config.w0,
            sigma=config.sigma,
        ),
    )


def _unweighted(annotated: AnnotatedImage, target: Target, normalisation: Normalisation) -> TrainingImage:
    """Prepare a held-out image: its weights only say what is known."""
    image = normalised(annotated.image, normalisation)
    return TrainingImage(annotated.name, image, target.classes, target.known.astype(np.float32))
