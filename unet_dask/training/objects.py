"""How objects will be made of what the network says: the rule that goes into the model file.

Where targets are instances, `segment` should give instances. How large they are the targets say. From which size on one
is none, and whether touching ones have to be split, is tried on the held-out images, which the network has not learnt
from.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from unet_dask.metrics.contingency import contingency
from unet_dask.metrics.objects import OVERLAPS, Matches, match, seg
from unet_dask.metrics.ratio import Ratio
from unet_dask.objects.rule import AS_PIECES, ObjectRule
from unet_dask.objects.whole import objects_of
from unet_dask.training.neurites import usual_neurites

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from unet_dask.training.config import TrainConfig
    from unet_dask.training.sample import Drawable, TrainingImage
    from unet_dask.training.target import Decision

#: Depths of the valleys at which splitting is tried, in pixels.
SPLITS = (1.0, 2.0, 4.0)
#: Smallest objects that are tried: parts of an annotated one that is larger than this share of all. The first does not
#: depend on what is held out, and loses hardly one that is as small as those that were annotated.
_SIZES = ((0.02, 1 / 2), (0.5, 1 / 8), (0.5, 1 / 4))
#: An outline goes around corners: steps of growth through a rim, relative to its width, and one more for what the
#: network leaves out.
_AROUND = 1.5


@dataclass(frozen=True, slots=True)
class ObjectScores:
    """Scores of the objects of all held-out images together.

    Attributes
    ----------
    rule : by which they were made
    f1 : at an overlap of 0.5
    average_precision : TP / (TP + FP + FN), the mean over the overlaps 0.5 to 0.95
    seg : of the cell tracking challenge
    """

    rule: ObjectRule
    f1: float
    average_precision: float
    seg: float

    def to_json(self) -> dict[str, object]:
        """Return the fields by name."""
        return {
            "rule": self.rule.to_json(),
            "f1": self.f1,
            "average_precision": self.average_precision,
            "seg": self.seg,
        }


def usual_rules(
    images: Sequence[Drawable], decision: Decision, config: TrainConfig
) -> tuple[ObjectRule, ...]:
    """Return how objects can be made, from few that are dropped to many; the first is used if nothing is held out.

    Parameters
    ----------
    images : to train on; sizes are those of objects in memory
    decision : what targets mean
    config : recipe, which may say of which kind objects are
    """
    if config.objects == "neurites":
        return usual_neurites()
    if config.objects == "components" or (config.objects == "auto" and not decision.of_instances):
        return (AS_PIECES,)
    core = 2 if config.core else 0
    areas = [
        np.bincount(ndimage.label(target == max(core, 1))[0].reshape(-1))[1:]
        for image in images
        if (target := getattr(image, "target", None)) is not None
    ]
    every = np.concatenate([np.zeros(0), *areas])
    sizes = {int(np.quantile(every, share) * part) if len(every) else 0 for share, part in _SIZES}
    usual = ObjectRule(fill_holes=True, core=core, grow=math.ceil(_AROUND * config.core) + 1 if core else 0)
    return tuple(replace(usual, min_size=size) for size in sorted(sizes))


def best_rule(
    images: Sequence[TrainingImage], classes: Sequence[NDArray[np.uint8]], usual: Sequence[ObjectRule]
) -> ObjectScores | None:
    """Return the rule with the highest F1, and its scores; of equal ones that which changes least.

    The size is looked for first, and then with it the split.

    Parameters
    ----------
    images : held out; those whose objects are known count
    classes : of every pixel, as the network says
    usual : rules without a split
    """
    known = [
        (image, found) for image, found in zip(images, classes, strict=True) if image.objects is not None
    ]
    if not known:
        return None
    sized = max((_scores(known, rule) for rule in usual), key=_preferred)
    return max(
        [sized, *(_scores(known, replace(sized.rule, split=split)) for split in SPLITS)], key=_preferred
    )


def _preferred(scores: ObjectScores) -> tuple[float, float, int]:
    return scores.f1, -scores.rule.split, -scores.rule.min_size


def _scores(known: Sequence[tuple[TrainingImage, NDArray[np.uint8]]], rule: ObjectRule) -> ObjectScores:
    matches, covered = [Matches(0, 0, 0)] * len(OVERLAPS), Ratio(0, 0)
    for image, classes in known:
        truth = image.objects
        assert truth is not None
        annotated = image.weight_map > 0
        table = contingency(truth, objects_of(classes, rule), mask=annotated)
        matches = [a + b for a, b in zip(matches, match(table), strict=True)]
        covered += seg(table)
    return ObjectScores(
        rule,
        f1=_of(matches[0].f1),
        average_precision=float(np.mean([_of(each.average_precision) for each in matches])),
        seg=_of(covered),
    )


def _of(ratio: Ratio) -> float:
    return ratio.value if ratio.below else 0.0
