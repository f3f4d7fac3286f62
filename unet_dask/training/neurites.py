"""How neurites will be made of what the network says: the threshold that goes into the model file.

From which mean affinity on basins are one object depends on how sure of membranes the network is, so some are tried on
the held-out images, as they are in their planes: what is scored is V_rand of all pixels of objects together.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from typing import TYPE_CHECKING

from unet_dask.components import labelled
from unet_dask.metrics.contingency import contingency
from unet_dask.metrics.rand import Agreement, information_agreement, rand_agreement
from unet_dask.objects.rule import METHODS
from unet_dask.objects.whole import neurites_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from unet_dask.metrics.contingency import Contingency
    from unet_dask.objects.rule import ObjectRule
    from unet_dask.training.sample import TrainingImage

#: Mean affinities that are tried; the first is used if nothing is held out.
THRESHOLDS = (0.3, 0.2, 0.25, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.8)


@dataclass(frozen=True, slots=True)
class NeuriteScores:
    """Scores of the neurites of all held-out images together.

    Attributes
    ----------
    rule : by which they were made
    v_rand, v_info : agreement of pairs of pixels, and of information, see :mod:`unet_dask.metrics.rand`
    """

    rule: ObjectRule
    v_rand: float
    v_info: float

    def to_json(self) -> dict[str, object]:
        """Return the fields by name."""
        return {"rule": self.rule.to_json(), "v_rand": self.v_rand, "v_info": self.v_info}


def usual_neurites() -> tuple[ObjectRule, ...]:
    """Return how neurites can be made: all thresholds that are tried."""
    return tuple(replace(METHODS["neurites"], threshold=threshold) for threshold in THRESHOLDS)


def best_threshold(
    images: Sequence[TrainingImage], foreground: Sequence[NDArray[np.uint8]], rules: Sequence[ObjectRule]
) -> NeuriteScores | None:
    """Return the rule with the highest V_rand, and its scores; of equal ones the first. None without any object.

    Parameters
    ----------
    images : held out; objects are the annotated ones, or connected pixels of a class that is not background
    foreground : of every pixel, as the network says, 0 to 254
    rules : that are tried
    """
    truths = [labelled(image.target) if image.objects is None else image.objects for image in images]
    found = [_scores(images, truths, foreground, rule) for rule in rules] if images else []
    return max(found, key=lambda scores: scores.v_rand) if found and any(t.any() for t in truths) else None


def _scores(
    images: Sequence[TrainingImage],
    truths: Sequence[NDArray[np.int32]],
    foreground: Sequence[NDArray[np.uint8]],
    rule: ObjectRule,
) -> NeuriteScores:
    tables: list[Contingency] = [
        contingency(truth, neurites_of(values, rule, values.ndim), mask=image.weight_map > 0)
        for image, truth, values in zip(images, truths, foreground, strict=True)
    ]
    rand, information = (
        reduce(add, map(agreement, tables), Agreement(0.0, 0.0, 0.0))
        for agreement in (rand_agreement, information_agreement)
    )
    return NeuriteScores(rule, rand.f_score.value, information.f_score.value)
