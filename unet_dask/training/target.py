"""From what people annotate to what the network learns: classes, cells, and gaps between cells.

A target is either a map of classes or an image of instances, and a wrong guess ruins a training
silently. So there is one rule, it looks at all targets together, and its verdict is reported.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Literal

import numpy as np
from scipy import ndimage

from unet_dask.components import adjoining, labelled
from unet_dask.errors import InputError, OptionError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from unet_dask.io.images.annotated import AnnotatedImage
    from unet_dask.io.images.labels import Annotation
    from unet_dask.training.config import TrainConfig
    from unet_dask.training.survey import Values


@dataclass(frozen=True, slots=True)
class Decision:
    """What the targets were taken for.

    Attributes
    ----------
    kind : "classes" or "instances"
    foreground : value of class 1 where targets have two values; None to take values as classes
    reason : one clause, for the reader
    """

    kind: Literal["classes", "instances"]
    foreground: int | None
    reason: str

    @property
    def of_instances(self) -> bool:
        """Whether values number objects, which are all of one class."""
        return self.kind == "instances"


@dataclass(frozen=True, slots=True)
class Target:
    """What the network learns of one image, all of (*spatial).

    Attributes
    ----------
    classes : uint8, the class of every pixel
    cells : int32, a number for every connected cell, 0 for background
    known : False where nobody annotated; such pixels weigh nothing
    """

    classes: NDArray[np.uint8]
    cells: NDArray[np.int32]
    known: NDArray[np.bool_]


def decide(targets: Sequence[tuple[str, Values]], config: TrainConfig) -> Decision:
    """Decide what the values of the targets mean.

    ``config.target_kind`` decides unless it is "auto". Then targets whose annotated values are all 0 or
    255 are a class map in which 255 is class 1; values below ``config.classes`` are classes; anything
    else is instances. ``config.foreground_value`` makes a map of two classes of any values.

    Parameters
    ----------
    targets : name and annotated values of each
    config : recipe

    Raises
    ------
    InputError
        If the targets cannot be of the kind that was asked for; the message names the value.
    OptionError
        If settings exclude each other.

    References
    ----------
    White (255) is the object in the targets of the ISBI 2012 challenge, as in the paper's Fig. 2.
    """
    values = set().union(*(each.found(config.foreground_value) for _, each in targets))
    if config.foreground_value is not None:
        return _foreground(values, config)
    binary = values <= {0, 255} and 255 in values
    kind, asked = config.target_kind, config.target_kind != "auto"
    if kind == "instances" or (not asked and not binary and max(values, default=0) >= config.classes):
        if config.classes != 2 and not config.core:
            raise OptionError(
                f"Instances make two classes, background and object, not {config.classes}. "
                "Use --classes 2, or targets that hold classes with --target-kind classes."
            )
        told = "as asked" if asked else f"values up to {max(values)}"
        return Decision("instances", None, told)
    if binary:
        return Decision("classes", 255, "all values are 0 or 255, 255 is class 1")
    if max(values, default=0) >= config.classes:
        name = next(name for name, each in targets if each.largest >= config.classes)
        raise InputError(
            f"The target of {name} has the value {max(values)}, but there are only {config.classes} classes, "
            f"0 to {config.classes - 1}. Use --classes {max(values) + 1}, or --target-kind instances."
        )
    return Decision("classes", None, "as asked" if asked else f"values 0 to {max(values, default=0)}")


def _foreground(values: set[int], config: TrainConfig) -> Decision:
    if config.target_kind == "instances" or config.classes != 2:
        raise OptionError("A foreground value makes two classes: it excludes instances and more classes.")
    if config.foreground_value not in values:
        raise InputError(
            f"No target has the foreground value {config.foreground_value}; found are "
            f"{', '.join(str(value) for value in sorted(values)[:8])}."
        )
    return Decision(
        "classes", config.foreground_value, f"{config.foreground_value} is class 1, all else class 0"
    )


def prepare(annotated: Annotation | AnnotatedImage, decision: Decision, config: TrainConfig) -> Target:
    """Return classes, cells and the known mask of one image, or of a box of it.

    Parameters
    ----------
    annotated : target of the image
    decision : what the values mean, see :func:`decide`
    config : border, ignored background, ring
    """
    known = annotated.known
    annotation = np.where(known, annotated.target, 0)
    if decision.of_instances:
        labels = labelled(annotation)
        cells = cores(labels, depth=config.core) if config.core else separate(labels, border=config.border)
        classes = (cells > 0).astype(np.uint8)
        if config.core:
            classes += labels > 0
    else:
        chosen = annotation if decision.foreground is None else (annotation == decision.foreground) & known
        classes = chosen.astype(np.uint8)
        labels = cells = labelled(classes)
    if config.ignore_background and _matches(annotated.name, config.partial):
        ring = ndimage.distance_transform_edt(labels == 0) <= config.trusted_ring
        known = known & (ring if labels.any() else False)
    return Target(classes, cells, known)


def surroundings(decision: Decision, config: TrainConfig) -> int:
    """Return how far away, in pixels, an annotation can matter for classes and known mask of a pixel."""
    border = max(config.border, 4 * config.core + 1) if decision.of_instances else 0
    return max(border, config.trusted_ring + 1 if config.ignore_background else 0)


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return not patterns or any(fnmatchcase(name, pattern) for pattern in patterns)


def separate(labels: NDArray[np.int32], *, border: int = 1) -> NDArray[np.int32]:
    """Cut a thin background border between touching instances (R4).

    A pixel that has another instance within `border` pixels, diagonals included, becomes background:
    a gap of ``2 * border`` pixels between the two. Instances that touch nothing stay as they are.

    Parameters
    ----------
    labels : (*spatial), 0 is background
    border : pixels that each of two touching instances loses; 0 for none

    Examples
    --------
    >>> separate(np.array([[1, 1, 1, 2, 2, 2]], np.int32))
    array([[1, 1, 0, 0, 2, 2]], dtype=int32)
    """
    if border == 0:
        return labels
    width = 2 * border + 1
    above = ndimage.maximum_filter(labels, size=width, mode="nearest")
    high = np.int32(np.iinfo(np.int32).max)
    below = ndimage.minimum_filter(np.where(labels > 0, labels, high), size=width, mode="nearest")
    return np.where((labels > 0) & (above == below), labels, 0).astype(np.int32)


def cores(labels: NDArray[np.int32], *, depth: int) -> NDArray[np.int32]:
    """Return the core of each instance: what lies deeper in it than its rim.

    The rim is `depth` pixels wide, and half as wide as the instance is deep nearby where that is less, so that the
    smallest one keeps a core. Pixels are as deep as they are far from the nearest one outside, counted from 1; what
    lies beyond the image is not outside.

    Parameters
    ----------
    labels : (*spatial), 0 is background
    depth : of the rim, in pixels, 1 or more

    Examples
    --------
    >>> cores(np.array([[0, 1, 1, 1, 2, 2, 2, 2, 0, 3, 0]], np.int32), depth=1)
    array([[0, 0, 1, 0, 0, 2, 2, 0, 0, 3, 0]], dtype=int32)
    """
    outline = np.zeros(labels.shape, np.bool_)
    for low, high in adjoining(labels.ndim, labels.ndim):
        unlike = labels[low] != labels[high]
        outline[low] |= unlike
        outline[high] |= unlike
    deep = np.full(labels.shape, 2.0 * depth, np.float32)
    if outline.any():
        np.minimum(deep, ndimage.distance_transform_edt(~outline) + 1, out=deep)
    deepest = deep.copy()
    for _ in range(2 * depth):
        before = deepest.copy()
        for low, high in adjoining(labels.ndim, labels.ndim):
            alike = labels[low] == labels[high]
            np.maximum(deepest[low], before[high], out=deepest[low], where=alike)
            np.maximum(deepest[high], before[low], out=deepest[high], where=alike)
    return np.where(deep > np.minimum(depth, deepest / 2), labels, 0).astype(np.int32)
