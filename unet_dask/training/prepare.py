"""From annotated images to what the loop draws from: split, normalised, weighted."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import reduce
from operator import add
from typing import TYPE_CHECKING

import numpy as np

from unet_dask.errors import InputError, OptionError
from unet_dask.io.images.annotated import pixel_note
from unet_dask.io.images.annotated_volume import AnnotatedVolume
from unet_dask.model.header import Normalisation
from unet_dask.objects.rule import AS_PIECES
from unet_dask.training.counts import class_counts
from unet_dask.training.objects import usual_rules
from unet_dask.training.on_demand import OnDemand
from unet_dask.training.survey import survey
from unet_dask.training.target import decide
from unet_dask.training.weight_map import class_weights

if TYPE_CHECKING:
    from collections.abc import Sequence

    from unet_dask.io.images.annotated_volume import Annotated
    from unet_dask.objects.rule import ObjectRule
    from unet_dask.tiling.box import Window
    from unet_dask.training.config import TrainConfig
    from unet_dask.training.sample import Drawable, TrainingImage
    from unet_dask.training.survey import Moments
    from unet_dask.training.target import Decision

#: Pixels of arrays too large to hold that are held to validate with. Their weights take some 60 bytes each while they
#: are made, and every validation segments all of them.
HELD = 1 << 24
#: Images that these are spread over at most.
_SHOWN = 16


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """All that a training knows of its data.

    Attributes
    ----------
    images : to train on, in memory or read when a patch is drawn
    held_out : to validate on, in memory
    normalisation : for the model file
    decision : what the targets were taken for
    class_share : share of each class among the annotated training pixels
    files : (base name, SHA-256) of everything that was read
    spacing, unit : of the images, if known
    notes : what the user should know of the data
    objects : how objects can be made of the classes, but for how they are split; the first if nothing is held out
    """

    images: tuple[Drawable, ...]
    held_out: tuple[TrainingImage, ...]
    normalisation: Normalisation
    decision: Decision
    class_share: tuple[float, ...]
    files: tuple[tuple[str, str], ...]
    spacing: tuple[float, ...] | None
    unit: str | None
    notes: tuple[str, ...] = ()
    objects: tuple[ObjectRule, ...] = (AS_PIECES,)

    @property
    def channels(self) -> int:
        """Channels of every image."""
        return self.images[0].channels


def training_set(annotated: Sequence[Annotated], config: TrainConfig) -> TrainingSet:
    """Prepare images for training.

    Images in memory are prepared whole. Of arrays that are too large for that, all values are looked at once, a
    bounded part is held to validate with, and the rest is prepared as patches are drawn.

    Parameters
    ----------
    annotated : images with targets
    config : recipe

    Raises
    ------
    DataError
        If an image has values that are not finite.
    InputError
        If the targets are not what the recipe expects, or nothing is annotated.
    OptionError
        If nothing would be left to train on.
    """
    training, held_out = split(annotated, config)
    surveys, files = survey([*training, *held_out], foreground=config.foreground_value)
    decision = decide(
        [(part.name, survey.values) for part, survey in zip([*training, *held_out], surveys, strict=True)],
        config,
    )
    normalisation = normalisation_of([survey.moments for survey in surveys[: len(training)]], config)
    counts = class_counts(training, surveys[: len(training)], decision, config)
    weights = class_weights(counts.tolist(), balance=config.balance)
    if np.count_nonzero(weights) < 2:
        raise InputError(
            f"All annotated pixels of the training images are of class {int(np.argmax(weights))}, so there "
            "is nothing to tell apart. Check --target-kind, --ignore and --ignore-background."
        )
    spacing, unit, notes = _spacing(annotated, config)
    ready = [
        OnDemand(
            part,
            _constants(survey.moments) if normalisation.of_volume else normalisation,
            decision,
            # Where targets are classes, the weights of held-out images only say what is known.
            weights if number < len(training) or decision.of_instances else None,
            config,
        )
        for number, (part, survey) in enumerate(zip([*training, *held_out], surveys, strict=True))
    ]
    images = tuple(_held(each) for each in ready[: len(training)])
    return TrainingSet(
        images=images,
        held_out=_bounded(ready[len(training) :]),
        normalisation=normalisation,
        decision=decision,
        class_share=tuple(float(count) / float(counts.sum()) for count in counts),
        files=files,
        spacing=spacing,
        unit=unit,
        notes=(*dict.fromkeys(note for image in annotated for note in image.notes), *notes),
        objects=usual_rules(images, decision, config),
    )


def _spacing(
    annotated: Sequence[Annotated], config: TrainConfig
) -> tuple[tuple[float, ...] | None, str | None, tuple[str, ...]]:
    """Return the pixel size that the model keeps, its unit, and what contradicts it.

    What was said with the recipe wins over the files; of files that say several sizes none is kept.
    """
    first = annotated[0]
    if config.spacing:
        said = _Said("the recipe", config.spacing, config.unit or first.unit)
        notes = next((found for image in annotated if (found := pixel_note(said, image))), ())
        return said.spacing, said.unit, notes
    if len({(image.spacing, image.unit) for image in annotated}) == 1:
        return first.spacing, config.unit or first.unit, ()
    notes = next((found for image in annotated if (found := pixel_note(first, image))), ())
    return None, None, tuple(f"{note}; the model keeps neither, say one with --spacing" for note in notes)


@dataclass(frozen=True, slots=True)
class _Said:
    """A pixel size that was said with a recipe."""

    name: str
    spacing: tuple[float, ...]
    unit: str | None


def _held(image: OnDemand) -> Drawable:
    """Return an image in memory if its values are."""
    return image if isinstance(image.annotated, AnnotatedVolume) else image.loaded()


def _bounded(images: Sequence[OnDemand]) -> tuple[TrainingImage, ...]:
    """Return images in memory; of arrays too large to hold evenly spread ones, and the middle of each."""
    if not any(isinstance(image.annotated, AnnotatedVolume) for image in images):
        return tuple(image.loaded(with_objects=True) for image in images)
    if sum(math.prod(image.shape) for image in images) <= HELD:
        return tuple(image.loaded(with_objects=True) for image in images)
    count = min(len(images), _SHOWN)
    chosen = [images[(2 * number + 1) * len(images) // (2 * count)] for number in range(count)]
    return tuple(image.loaded(middle(image.shape, HELD // count), with_objects=True) for image in chosen)


def middle(shape: Sequence[int], pixels: int) -> Window:
    """Return the middle of an image, of at most some number of pixels and with sides as equal as they can be.

    Examples
    --------
    >>> middle((4, 100, 100), 1600)
    (slice(0, 4, None), slice(40, 60, None), slice(40, 60, None))
    """
    sides = [0] * len(shape)
    left = pixels
    for place, axis in enumerate(sorted(range(len(shape)), key=lambda axis: shape[axis])):
        equal = int(left ** (1 / (len(shape) - place)) + 1e-9)
        sides[axis] = max(min(shape[axis], equal), 1)
        left //= sides[axis]
    starts = [(whole - side) // 2 for whole, side in zip(shape, sides, strict=True)]
    return tuple(slice(start, start + side) for start, side in zip(starts, sides, strict=True))


def split(annotated: Sequence[Annotated], config: TrainConfig) -> tuple[list[Annotated], list[Annotated]]:
    """Hold out some images for validation, named by `hold_out` or else chosen by the seed.

    A `validation` below 1 is a fraction, of which at least one image is held out; a single image gives
    its last part along its longest axis instead, a fifth if a number of images was asked for.

    Raises
    ------
    OptionError
        If no image would be left to train on, or a pattern of `hold_out` names none.
    """
    if config.hold_out:
        return _named(annotated, config.hold_out)
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
    training = [image for index, image in enumerate(annotated) if index not in held]
    return training, [annotated[index] for index in sorted(held)]


def _named(
    annotated: Sequence[Annotated], patterns: Sequence[str]
) -> tuple[list[Annotated], list[Annotated]]:
    """Hold out the images whose names match any pattern."""
    for pattern in patterns:
        if not any(fnmatchcase(image.name, pattern) for image in annotated):
            raise OptionError(
                f"No image to hold out is called {pattern!r}; the first is {annotated[0].name!r}. "
                "Name files, with * for any characters."
            )
    training: list[Annotated] = []
    held: list[Annotated] = []
    for image in annotated:
        (held if any(fnmatchcase(image.name, pattern) for pattern in patterns) else training).append(image)
    if not training:
        raise OptionError(f"Holding out all of {len(held)} images leaves none to train on. Name fewer.")
    return training, held


def _cut(image: Annotated, fraction: float) -> tuple[list[Annotated], list[Annotated]]:
    """Cut one image in two along its longest axis."""
    axis = int(np.argmax(image.shape))
    side = image.shape[axis]
    at = side - max(1, round(side * fraction))
    if at < 1:
        raise OptionError(f"Holding out {fraction} of an image of {side} pixels leaves nothing to train on.")

    def part(name: str, span: slice) -> Annotated:
        box = tuple(span if other == axis else slice(0, size) for other, size in enumerate(image.shape))
        return image.within(box, f"{image.name} ({name})")

    return [part("training part", slice(0, at))], [part("held-out part", slice(at, side))]


def normalisation_of(moments: Sequence[Moments], config: TrainConfig) -> Normalisation:
    """Return what the model file stores: mean and deviation over all training pixels, or "volume"."""
    if config.normalisation == "volume":
        return Normalisation("volume")
    return _constants(reduce(add, moments))


def _constants(moments: Moments) -> Normalisation:
    return Normalisation("constant", tuple(moments.mean.tolist()), tuple(moments.deviation.tolist()))
