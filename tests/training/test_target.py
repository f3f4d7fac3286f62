from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from unet_dask.components import labelled
from unet_dask.errors import InputError, OptionError
from unet_dask.io.images.annotated import AnnotatedImage
from unet_dask.training.config import TrainConfig
from unet_dask.training.survey import values_of
from unet_dask.training.target import Decision, cores, decide, prepare, separate

if TYPE_CHECKING:
    from numpy.typing import NDArray


def annotated(
    target: NDArray[np.integer], known: NDArray[np.bool_] | None = None, name: str = "a.tif"
) -> AnnotatedImage:
    image = np.zeros((1, *target.shape), dtype=np.float32)
    everywhere = np.ones(target.shape, dtype=np.bool_)
    return AnnotatedImage(name, image, target, everywhere if known is None else known, None, None, ())


def judged(images: list[AnnotatedImage], config: TrainConfig) -> Decision:
    """Decide what the values of some targets mean."""
    return decide(
        [(each.name, values_of(each, foreground=config.foreground_value)) for each in images], config
    )


@pytest.mark.parametrize(
    ("values", "kind", "foreground"),
    [
        pytest.param([0, 1], "classes", None, id="mask"),
        pytest.param([0, 255], "classes", 255, id="isbi-2012"),
        pytest.param([255, 255], "classes", 255, id="all-foreground"),
        pytest.param([0, 7], "instances", None, id="instances"),
        pytest.param([1, 255], "instances", None, id="255-among-others"),
    ],
)
def test_values_tell_what_a_target_is(values: list[int], kind: str, foreground: int | None) -> None:
    decision = judged([annotated(np.array([values]))], TrainConfig())
    assert (decision.kind, decision.foreground) == (kind, foreground)


def test_all_targets_are_judged_together() -> None:
    both = [annotated(np.array([[0, 1]])), annotated(np.array([[0, 9]]))]
    assert judged(both, TrainConfig()).kind == "instances"


def test_ignored_values_are_not_judged() -> None:
    target = np.array([[0, 1, 0]])
    assert judged([annotated(target, np.array([[True, True, False]]))], TrainConfig()).kind == "classes"


def test_foreground_value_inverts() -> None:
    config = TrainConfig(foreground_value=0)
    one = annotated(np.array([[0, 255]]))
    assert prepare(one, judged([one], config), config).classes.tolist() == [[1, 0]]


def test_class_beyond_the_last_is_named() -> None:
    config = TrainConfig(classes=3, target_kind="classes")
    with pytest.raises(
        InputError, match=r"b\.tif has the value 5, but there are only 3 classes.*--classes 6"
    ):
        judged([annotated(np.array([[0, 2]])), annotated(np.array([[5, 1]]), name="b.tif")], config)


def test_instances_make_two_classes_only() -> None:
    with pytest.raises(OptionError, match="Instances make two classes"):
        judged([annotated(np.array([[0, 9]]))], TrainConfig(classes=3))


def test_missing_foreground_value_is_named() -> None:
    with pytest.raises(InputError, match="foreground value 3; found are 0, 1"):
        judged([annotated(np.array([[0, 1]]))], TrainConfig(foreground_value=3))


labels_2d = hnp.arrays(np.int32, st.tuples(st.integers(1, 8), st.integers(1, 8)), elements=st.integers(0, 3))


@settings(max_examples=60, deadline=None)
@given(values=labels_2d, border=st.integers(1, 2))
def test_separated_instances_do_not_touch(values: NDArray[np.int32], border: int) -> None:
    separated = separate(values, border=border)
    for axis in range(2):
        low = np.take(separated, range(separated.shape[axis] - 1), axis=axis)
        high = np.take(separated, range(1, separated.shape[axis]), axis=axis)
        assert not np.any((low != high) & (low > 0) & (high > 0))


def test_gap_is_two_borders_wide() -> None:
    row = np.array([[1] * 5 + [2] * 5], dtype=np.int32)
    assert separate(row, border=2).tolist() == [[1, 1, 1, 0, 0, 0, 0, 2, 2, 2]]


def test_lonely_instance_keeps_its_size() -> None:
    row = np.array([[0, 4, 4, 0, 0, 5, 5]], dtype=np.int32)
    assert separate(row).tolist() == row.tolist()


def test_background_is_unknown_away_from_objects() -> None:
    config = TrainConfig(ignore_background=True, trusted_ring=2)
    one = annotated(np.array([[1, 1, 0, 0, 0, 0]]))
    known = prepare(one, judged([one], config), config).known
    assert known.tolist() == [[True, True, True, True, False, False]]


def test_partial_names_the_frames_of_unknown_background() -> None:
    config = TrainConfig(ignore_background=True, partial=("b*",))
    one = annotated(np.array([[1, 0]] * 30))
    assert prepare(one, judged([one], config), config).known.all()


def test_what_nobody_annotated_is_not_looked_at() -> None:
    known = np.array([[True, True, True, False, False]])
    config = TrainConfig(target_kind="instances")
    prepared = [
        prepare(one, judged([one], config), config)
        for one in (
            annotated(np.array([[1, 1, 0, 0, 0]]), known),
            annotated(np.array([[1, 1, 0, 7, 8]]), known),
        )
    ]
    np.testing.assert_array_equal(prepared[0].classes, prepared[1].classes)
    np.testing.assert_array_equal(prepared[0].cells, prepared[1].cells)


def slow_cores(labels: NDArray[np.int32], depth: int) -> NDArray[np.int32]:
    """Return cores pixel by pixel, from distances to every pixel outside and walks within the instance."""
    deep: dict[tuple[int, ...], float] = {}
    places = list(np.ndindex(labels.shape))
    for place in places:
        # The outline has a depth of 1: pixels of an instance that share a side with another value.
        outline = [
            there
            for there in places
            if any(labels[there] != labels[beside] for beside in sides(there, labels.shape))
        ]
        nearest = min((np.hypot(*np.subtract(place, there)) for there in outline), default=np.inf)
        deep[place] = min(nearest + 1, 2.0 * depth)
    found = np.zeros_like(labels)
    for place in places:
        reached = {place}
        for _ in range(2 * depth):
            reached |= {
                there
                for here in reached
                for there in sides(here, labels.shape)
                if labels[there] == labels[place]
            }
        if deep[place] > min(depth, max(deep[there] for there in reached) / 2):
            found[place] = labels[place]
    return found


def sides(place: tuple[int, ...], shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Return the pixels that share a side with one."""
    moved = [
        (*place[:axis], place[axis] + step, *place[axis + 1 :])
        for axis in range(len(shape))
        for step in (-1, 1)
    ]
    return [each for each in moved if all(0 <= at < side for at, side in zip(each, shape, strict=True))]


@settings(max_examples=40, deadline=None)
@given(
    hnp.arrays(np.int32, st.tuples(st.integers(1, 7), st.integers(1, 7)), elements=st.integers(0, 2)),
    st.integers(1, 3),
)
def test_cores_equal_a_slow_search(values: NDArray[np.int32], depth: int) -> None:
    labels = labelled(values)
    np.testing.assert_array_equal(cores(labels, depth=depth), slow_cores(labels, depth))


def test_every_instance_keeps_a_core_and_those_of_touching_ones_do_not_touch() -> None:
    rng = np.random.default_rng(3)
    seeds = rng.uniform(0, 90, (40, 2))
    grid = np.indices((90, 90)).reshape(2, -1).T
    distances = np.hypot(*(grid[:, None] - seeds[None]).transpose(2, 0, 1))
    owner = np.where(distances.min(1) < 9, distances.argmin(1) + 1, 0).reshape(90, 90).astype(np.int32)
    labels = labelled(owner)
    found = cores(labels, depth=2)
    assert set(np.unique(found)) == set(np.unique(labels))
    assert np.array_equal(found[found > 0], labels[found > 0])
    for low, high in ((found[1:], found[:-1]), (found[:, 1:], found[:, :-1])):
        assert not np.any((low != high) & (low > 0) & (high > 0))


def test_instances_with_cores_make_three_classes() -> None:
    target = np.zeros((20, 20), np.int32)
    target[2:16, 2:9], target[2:16, 9:16] = 1, 2
    config = TrainConfig(classes=3, core=2, target_kind="instances")
    made = prepare(annotated(target), judged([annotated(target)], config), config)
    assert made.classes[8, 5] == 2
    assert made.classes[8, 8] == made.classes[8, 9] == 1
    assert made.classes[0, 0] == 0
    assert len(np.unique(made.cells)) == 3


@pytest.mark.parametrize("settings_of", [{"classes": 2}, {"classes": 3, "target_kind": "classes"}])
def test_cores_without_three_classes_of_instances_are_refused(settings_of: dict[str, object]) -> None:
    with pytest.raises(OptionError, match="three classes"):
        TrainConfig(core=2, **settings_of)  # type: ignore[arg-type]
