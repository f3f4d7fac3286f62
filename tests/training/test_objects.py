"""What a training writes of objects into the model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from skimage.draw import disk

from unet_dask.components import labelled
from unet_dask.objects.rule import AS_PIECES, ObjectRule
from unet_dask.training.config import TrainConfig
from unet_dask.training.objects import best_rule, usual_rules
from unet_dask.training.sample import TrainingImage
from unet_dask.training.target import Decision, separate

if TYPE_CHECKING:
    from numpy.typing import NDArray

INSTANCES = Decision("instances", None, "as asked")


def pairs_of_discs(radius: int, apart: float) -> NDArray[np.int32]:
    """Return instances: pairs of discs that overlap, cut in the middle."""
    labels = np.zeros((160, 160), np.int32)
    for row in range(2):
        for number, column in enumerate((30, 30 + round(apart * radius))):
            rr, cc = disk((40 + 70 * row, column), radius, shape=labels.shape)
            free = labels[rr, cc] == 0
            labels[rr[free], cc[free]] = 2 * row + number + 1
    return labels


def image_of(labels: NDArray[np.int32]) -> TrainingImage:
    classes = (separate(labels, border=1) > 0).astype(np.uint8)
    return TrainingImage(
        "discs", np.zeros((1, *labels.shape), np.float32), classes, np.ones(labels.shape, np.float32), labels
    )


def test_objects_are_split_if_that_is_better_on_what_is_held_out() -> None:
    labels = pairs_of_discs(12, 1.5)
    merged = (labels > 0).astype(np.uint8)  # a network that does not see the gap
    found = best_rule([image_of(labels)], [merged], [ObjectRule(fill_holes=True)])
    assert found is not None
    assert found.rule.split > 0
    assert found.f1 == 1
    assert found.seg > 0.9


def test_objects_that_are_apart_are_not_split() -> None:
    labels = pairs_of_discs(12, 3.0)
    found = best_rule([image_of(labels)], [(labels > 0).astype(np.uint8)], [ObjectRule(fill_holes=True)])
    assert found is not None
    assert found.rule == ObjectRule(fill_holes=True)
    assert (found.f1, found.average_precision, found.seg) == (1, 1, 1)


def test_sizes_are_those_of_the_annotated_objects() -> None:
    image = image_of(pairs_of_discs(12, 3.0))
    small = usual_rules([image], INSTANCES, TrainConfig())
    area = int(np.bincount(labelled(image.target.astype(np.int32)).reshape(-1))[1:].min())
    assert [rule.min_size for rule in small] == [area // 8, area // 4, area // 2]
    assert all(rule.fill_holes and not rule.split for rule in small)
    assert usual_rules([image], Decision("classes", None, "as asked"), TrainConfig()) == (AS_PIECES,)


def test_specks_are_dropped_if_that_is_better_on_what_is_held_out() -> None:
    labels = pairs_of_discs(12, 3.0)
    speckled = (labels > 0).astype(np.uint8)
    speckled[100:102, ::7] = 1
    rules = [ObjectRule(min_size=size) for size in (0, 20, 200)]
    found = best_rule([image_of(labels)], [speckled], rules)
    assert found is not None
    assert found.rule == rules[1]


def test_cores_grow_through_their_rims() -> None:
    config = TrainConfig(classes=3, core=2, target_kind="instances")
    (rule,) = usual_rules([], INSTANCES, config)
    assert (rule.core, rule.grow, rule.min_size) == (2, 4, 0)


def test_targets_of_classes_have_no_objects_to_score() -> None:
    labels = pairs_of_discs(12, 3.0)
    image = TrainingImage(
        "classes",
        np.zeros((1, 160, 160), np.float32),
        labels.astype(np.uint8),
        np.ones((160, 160), np.float32),
    )
    assert best_rule([image], [labels.astype(np.uint8)], [AS_PIECES]) is None
