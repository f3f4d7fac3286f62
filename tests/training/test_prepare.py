from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from unet_dask.errors import OptionError
from unet_dask.io.images.annotated import AnnotatedImage
from unet_dask.model.file import new_model
from unet_dask.model.header import NetworkSpec
from unet_dask.training.config import TrainConfig
from unet_dask.training.prepare import split, training_set
from unet_dask.training.sample import Drawable, TrainingImage
from unet_dask.training.validate import validate

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from unet_dask.training.prepare import TrainingSet


def annotated(name: str, seed: int = 0, shape: tuple[int, int] = (20, 30)) -> AnnotatedImage:
    rng = np.random.default_rng(seed)
    return AnnotatedImage(
        name=name,
        image=rng.normal(50, 9, (2, *shape)).astype(np.float32),
        target=rng.integers(0, 2, shape, dtype=np.uint8),
        known=np.ones(shape, dtype=np.bool_),
        spacing=(0.5, 0.5),
        unit="micrometer",
        files=((name, "0" * 64),),
    )


def in_memory(image: Drawable) -> TrainingImage:
    assert isinstance(image, TrainingImage)
    return image


def training_images(data: TrainingSet) -> list[TrainingImage]:
    return [in_memory(each) for each in data.images]


@pytest.mark.parametrize(
    ("validation", "held"), [(0.2, 2), (0.01, 1), (3.0, 3), (0.0, 0)], ids=["share", "few", "count", "none"]
)
def test_as_many_are_held_out_as_asked(validation: float, held: int) -> None:
    images = [annotated(f"{index}.tif") for index in range(10)]
    training, held_out = split(images, TrainConfig(validation=validation))
    assert len(held_out) == held
    assert sorted(each.name for each in training + held_out) == sorted(each.name for each in images)


def test_images_are_held_out_by_name() -> None:
    images = [annotated(f"{name}.tif") for name in ("a1", "b1", "a2", "c1")]
    training, held_out = split(images, TrainConfig(hold_out=("a*", "c1.tif"), validation=0))
    assert [each.name for each in training] == ["b1.tif"]
    assert [each.name for each in held_out] == ["a1.tif", "a2.tif", "c1.tif"]


@pytest.mark.parametrize(("pattern", "told"), [("d*", "No image to hold out"), ("*", "leaves none")])
def test_a_pattern_of_none_or_of_all_images_is_refused(pattern: str, told: str) -> None:
    with pytest.raises(OptionError, match=told):
        split([annotated("a.tif"), annotated("b.tif")], TrainConfig(hold_out=("a.tif", pattern)))


def test_other_seed_holds_out_others() -> None:
    images = [annotated(f"{index}.tif") for index in range(10)]
    chosen = {split(images, TrainConfig(seed=seed))[1][0].name for seed in range(10)}
    assert len(chosen) > 1


def test_single_image_gives_its_last_part() -> None:
    whole = annotated("a.tif")
    (training,), (held_out,) = split([whole], TrainConfig(validation=0.2))
    np.testing.assert_array_equal(training.target, whole.target[:, :24])
    np.testing.assert_array_equal(held_out.image, whole.image[:, :, 24:])


def test_training_images_are_normalised_per_channel() -> None:
    data = training_set([annotated("a.tif"), annotated("b.tif", 1)], TrainConfig(validation=0))
    values = np.concatenate([each.image.reshape(2, -1) for each in training_images(data)], axis=1)
    np.testing.assert_allclose(values.mean(axis=1), 0, atol=1e-4)
    np.testing.assert_allclose(values.std(axis=1), 1, atol=1e-4)


def test_volumes_are_normalised_each_by_its_own() -> None:
    bright = replace(annotated("b.tif", 1), image=annotated("b.tif", 1).image * 40)
    config = TrainConfig(validation=0, normalisation="volume")
    for each in training_images(training_set([annotated("a.tif"), bright], config)):
        np.testing.assert_allclose(each.image.std(axis=(1, 2)), 1, atol=1e-4)


def test_held_out_images_do_not_touch_the_constants() -> None:
    images = [annotated(f"{index}.tif", index) for index in range(3)]
    config = TrainConfig(validation=1)
    data = training_set(images, config)
    changed = [
        replace(each, image=each.image * 9) if each.name == data.held_out[0].name else each for each in images
    ]
    assert training_set(changed, config).normalisation == data.normalisation


def test_spacing_of_the_files_is_kept() -> None:
    data = training_set([annotated("a.tif")], TrainConfig())
    assert (data.spacing, data.unit) == ((0.5, 0.5), "micrometer")


@pytest.mark.parametrize("kind", ["classes", "instances"])
def test_targets_of_unknown_pixels_change_nothing(kind: str) -> None:
    known = np.ones((20, 30), dtype=np.bool_)
    known[:, 10:] = False
    one = replace(annotated("a.tif"), known=known)
    other = replace(one, target=np.where(known, one.target, 1 - one.target))
    config = TrainConfig(validation=0).updated({"target_kind": kind})
    first, second = (training_images(training_set([each], config))[0] for each in (one, other))
    np.testing.assert_array_equal(first.weight_map, second.weight_map)
    np.testing.assert_array_equal(first.target, second.target)
    assert not first.weight_map[:, 10:].any()


def scored(weight_map: NDArray[np.float32]) -> tuple[float, float, float]:
    """Return pixel error, mean IoU and weighted score of an untrained network."""
    network = new_model(NetworkSpec(width=2, depth=1, channels=2), seed=1).network
    one = annotated("a.tif")
    image = ((one.image.astype(np.float32) - 50) / 9).astype(np.float32)
    found = validate(network, [TrainingImage("a", image, one.target.astype(np.uint8), weight_map)])
    return found.pixel_error, found.mean_iou, found.score


def test_even_weights_score_as_none() -> None:
    _, plain, weighted = scored(np.full((20, 30), 3.0, np.float32))
    assert weighted == pytest.approx(plain)


def test_weights_change_the_score_and_not_the_error() -> None:
    even = scored(np.ones((20, 30), np.float32))
    heavy = scored(np.linspace(1, 20, 600, dtype=np.float32).reshape(20, 30))
    assert heavy[:2] == even[:2]
    assert heavy[2] != even[2]
