"""How many annotated pixels each class has, which decides the weights of the classes.

Targets that hold classes were counted when their values were looked at. Instances lose a border where they touch,
and rings of trusted background depend on distances: these are counted once they are prepared, of large arrays block
by block.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from unet_dask.io.images.annotated_volume import AnnotatedVolume
from unet_dask.tiling.box import grown, overlap, shifted, whole
from unet_dask.training.survey import COUNTED
from unet_dask.training.target import prepare, surroundings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from unet_dask.io.images.annotated_volume import Annotated
    from unet_dask.tiling.box import Window
    from unet_dask.training.config import TrainConfig
    from unet_dask.training.survey import Survey, Values
    from unet_dask.training.target import Decision, Target

#: Pixels of a large array that are prepared to be counted; of more, evenly spread blocks stand for all: finding the
#: components of all would take days, and the shares of the classes are known well enough long before.
MOST = 1 << 28
#: Pixels around a block that tell what is connected, beyond those that change the class.
_CONTEXT = 16


def class_counts(
    parts: Sequence[Annotated], surveys: Sequence[Survey], decision: Decision, config: TrainConfig
) -> NDArray[np.int64]:
    """Return the annotated pixels of each class over all parts.

    Parameters
    ----------
    parts : images to train on
    surveys : of each
    decision : what the values mean
    config : recipe

    Returns
    -------
    (classes,)
    """
    if not decision.of_instances and not config.ignore_background:
        counts = [_of_values(each.values, decision, config.classes) for each in surveys]
        total: NDArray[np.int64] = np.stack(counts).sum(axis=0)
        return total
    volumes = [each for each in parts if isinstance(each, AnnotatedVolume)]
    if volumes:
        return _of_blocks(volumes, decision, config)
    found = np.zeros(config.classes, dtype=np.int64)
    for each in parts:
        found += _of_target(
            prepare(each.read_annotation(whole(each.shape)), decision, config), config.classes
        )
    return found


def _of_values(values: Values, decision: Decision, classes: int) -> NDArray[np.int64]:
    if decision.foreground is None:
        return values.counts[:classes]
    chosen = values.counts[decision.foreground] if decision.foreground < COUNTED else values.foreground
    found = np.zeros(classes, dtype=np.int64)
    found[:2] = values.counts.sum() - chosen, chosen
    return found


def _of_target(target: Target, classes: int, inside: Window = ()) -> NDArray[np.int64]:
    known = target.known[inside]
    return np.bincount(target.classes[inside][known], minlength=classes)


def _of_blocks(
    parts: Sequence[AnnotatedVolume], decision: Decision, config: TrainConfig
) -> NDArray[np.int64]:
    of_image = {part.index: part for part in parts}
    stack = parts[0].target
    margin = surroundings(decision, config) + _CONTEXT
    found = np.zeros(config.classes, dtype=np.int64)
    for planes, box in _spread(list(stack.blocks())):
        outer = grown(box, margin, stack.layout.spatial)
        values = stack.read(planes, outer)
        for plane, index in zip(values, planes, strict=True):
            part = of_image.get(index)
            inner = part and overlap(box, part.box)
            if part is None or not inner:
                continue
            # What lies beyond the part is held out, and a training does not know of it.
            seen = overlap(outer, part.box)
            assert seen is not None
            annotation = part.annotation_of(plane[(slice(None), *shifted(seen, outer))])
            target = prepare(annotation, decision, config)
            found += _of_target(target, config.classes, shifted(inner, seen))
    return found


def _spread(blocks: list[tuple[range, Window]]) -> list[tuple[range, Window]]:
    """Return all blocks, or evenly spread ones that hold about as many pixels as may be prepared."""
    sizes = [len(planes) * math.prod(span.stop - span.start for span in box) for planes, box in blocks]
    wanted = max(len(blocks) * MOST // max(sum(sizes), 1), 1)
    if wanted >= len(blocks):
        return blocks
    return [blocks[(2 * number + 1) * len(blocks) // (2 * wanted)] for number in range(wanted)]
