"""What a training writes of neurites into the model."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from unet_dask.errors import OptionError
from unet_dask.model.file import inspect_model, load_model
from unet_dask.objects.rule import METHODS, ObjectRule
from unet_dask.objects.whole import objects_in
from unet_dask.training.config import TrainConfig
from unet_dask.training.events import Event, Validated
from unet_dask.training.loop import train
from unet_dask.training.neurites import THRESHOLDS, best_threshold, usual_neurites
from unet_dask.training.objects import usual_rules
from unet_dask.training.sample import TrainingImage
from unet_dask.training.target import Decision
from unet_dask.training.validate import probabilities

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

CLASSES = Decision("classes", None, "as asked")


def membranes(sides: int = 60) -> NDArray[np.uint8]:
    """Return classes: four cells and the membranes between them."""
    target = np.ones((sides, sides), np.uint8)
    target[sides // 2 - 1 : sides // 2 + 1] = 0
    target[:, sides // 2 - 1 : sides // 2 + 1] = 0
    return target


def image_of(target: NDArray[np.uint8], objects: NDArray[np.int32] | None = None) -> TrainingImage:
    ones = np.ones(target.shape, np.float32)
    return TrainingImage("cells", ones[None], target, ones, objects)


def test_the_threshold_is_one_that_tells_what_is_held_out_apart() -> None:
    target = membranes()
    seen = np.where(target > 0, 250, 100).astype(np.uint8)  # faint membranes: a mean of 100 / 254
    seen[:, 10:12] = 160  # something within two cells, that is none: 160 / 254
    found = best_threshold([image_of(target)], [seen], usual_neurites())
    assert found is not None
    assert 100 / 254 < found.rule.threshold <= 160 / 254
    assert found.v_rand == pytest.approx(1)
    assert found.v_info == pytest.approx(1)
    wrong = best_threshold([image_of(target)], [seen], [replace(METHODS["neurites"], threshold=0.35)])
    assert wrong is not None
    assert wrong.v_rand < 0.6


def test_annotated_instances_are_the_truth_where_there_are_some() -> None:
    target = membranes()
    halves = np.where(target > 0, 1 + (np.indices(target.shape)[1] > 29), 0).astype(np.int32)
    seen = np.where(halves > 0, 250, 20).astype(np.uint8)
    seen[28:32] = 160
    seen[:, 29:31] = 20
    found = best_threshold([image_of(target, halves)], [seen], usual_neurites())
    assert found is not None
    assert found.rule.threshold <= 160 / 254


def test_pixels_that_nobody_annotated_are_not_scored() -> None:
    target, weights = membranes(), np.ones((60, 60), np.float32)
    weights[:, 30:] = 0
    seen = np.where(target > 0, 250, 20).astype(np.uint8)
    seen[28:32, 30:] = 250
    image = TrainingImage("half", np.ones((1, 60, 60), np.float32), target, weights)
    found = best_threshold([image], [seen], usual_neurites())
    assert found is not None
    assert found.v_rand == pytest.approx(1)


def test_nothing_held_out_and_nothing_annotated_have_no_scores() -> None:
    assert best_threshold([], [], usual_neurites()) is None
    none = np.zeros((9, 9), np.uint8)
    assert best_threshold([image_of(none)], [none + 1], usual_neurites()) is None


def test_objects_are_of_the_kind_that_was_asked_for() -> None:
    image = image_of(membranes())
    for kind, expected in (
        ("auto", METHODS["components"]),
        ("components", METHODS["components"]),
        ("neurites", METHODS["neurites"]),
    ):
        assert usual_rules([image], CLASSES, TrainConfig(objects=kind))[0] == expected  # type: ignore[arg-type] # text
    cells = usual_rules([image], CLASSES, TrainConfig(objects="cells"))
    assert all(rule.fill_holes for rule in cells)
    instances = Decision("instances", None, "as asked")
    assert usual_rules([image], instances, TrainConfig(objects="components")) == (METHODS["components"],)


def test_cores_are_refused_for_what_has_none() -> None:
    with pytest.raises(OptionError, match="core"):
        TrainConfig(classes=3, core=2, target_kind="instances", objects="neurites")


def test_a_training_of_before_is_recorded_as_it_was() -> None:
    assert "objects" not in TrainConfig().to_record()
    assert TrainConfig(objects="neurites").to_record()["objects"] == "neurites"


def test_a_training_keeps_the_threshold_that_was_best(
    toy: tuple[Path, Path], quick: TrainConfig, tmp_path: Path
) -> None:
    events: list[Event] = []
    config = replace(quick, objects="neurites")
    result = train(*toy, tmp_path / "m.safetensors", config, on_event=events.append)
    validated = [event for event in events if isinstance(event, Validated)]
    assert all(event.v_rand is not None and event.f1 is None for event in validated)
    header = inspect_model(result.model).header
    assert header.objects.threshold in THRESHOLDS
    assert result.scores["objects"]["rule"] == header.objects.to_json()
    assert result.scores["objects"]["v_rand"] == pytest.approx(
        max(event.v_rand or 0 for event in validated if event.iteration == result.best_iteration)
    )
    assert json.loads(json.dumps(header.objects.to_json())) == {
        "fill_holes": False,
        "min_size": 20,
        "split": 0.0,
        "grow": 8,
        "threshold": header.objects.threshold,
    }
    model = load_model(result.model)
    image = np.random.default_rng(0).random((1, 40, 40)).astype(np.float32)
    assert objects_in(probabilities(model.network, image), model.header.objects).shape == (40, 40)


def test_a_training_without_validation_writes_the_usual_threshold(
    toy: tuple[Path, Path], quick: TrainConfig, tmp_path: Path
) -> None:
    result = train(*toy, tmp_path / "m.safetensors", replace(quick, objects="neurites", validation=0))
    assert (
        inspect_model(result.model).header.objects
        == METHODS["neurites"]
        == ObjectRule(threshold=0.3, min_size=20, grow=8)
    )
