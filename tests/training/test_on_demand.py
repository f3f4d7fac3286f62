"""Patches drawn from Zarr arrays where they lie are the patches drawn from the same arrays in memory."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import zarr
from scipy import ndimage

from unet_dask.io.images.annotated_volume import AnnotatedVolume, open_annotated
from unet_dask.io.images.stack import Stack
from unet_dask.training import prepare
from unet_dask.training.config import TrainConfig
from unet_dask.training.prepare import middle, training_set
from unet_dask.training.sample import Patch, TrainingImage, draw_patch

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from unet_dask.tiling.box import Window
    from unet_dask.training.prepare import TrainingSet

FLAT = TrainConfig(depth=2, tile=(32,), rotation=180, elastic_sigma=6.0, validation=0.2)
DEEP = TrainConfig(dims=3, depth=1, tile=(8, 16, 16), elastic_sigma=3.0, sigma=2.0, w0=5.0, validation=0.2)
SEEDS = range(25)


def balls(
    shape: tuple[int, ...], *, distance: int, seed: int = 0, touching: bool = True
) -> NDArray[np.uint16]:
    """Return numbered balls; those that touch would be one cell, which a box may cut, where targets are classes."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*(np.arange(4, side, distance) for side in shape), indexing="ij"))
    centres = grid.reshape(len(shape), -1).T
    centres = centres + rng.integers(-1, 2, centres.shape)
    inside = [((c >= 0) & (c < shape)).all() for c in centres]
    centres = centres[inside]
    seeds = np.zeros(shape, dtype=np.int32)
    seeds[tuple(centres.T)] = rng.permutation(len(centres)) + 1
    far, nearest = ndimage.distance_transform_edt(seeds == 0, return_indices=True)
    return np.where(far < distance * (0.52 if touching else 0.36), seeds[tuple(nearest)], 0).astype(np.uint16)


def write(
    folder: Path, image: NDArray[np.generic], target: NDArray[np.generic], **options: Any
) -> tuple[Path, Path]:
    for name, array in (("image.zarr", image), ("target.zarr", target)):
        chunks = tuple(min(side, 24) for side in array.shape)
        zarr.create_array(folder / name, data=array, chunks=chunks, **options)
    return folder / "image.zarr", folder / "target.zarr"


def both(
    folder: Path, image: NDArray[np.generic], target: NDArray[np.generic], config: TrainConfig
) -> tuple[TrainingSet, TrainingSet]:
    """Return the training sets of arrays in memory and of the same arrays where they lie."""
    paths = write(folder, image, target)
    held, lying = (
        training_set(open_annotated(*paths, dims=config.dims, ignore=config.ignore, memory=memory), config)
        for memory in (1 << 30, 0)
    )
    assert all(isinstance(each, TrainingImage) for each in held.images)
    assert not any(isinstance(each, TrainingImage) for each in lying.images)
    return held, lying


def drawn(data: TrainingSet, seed: int, config: TrainConfig) -> Patch:
    cores = config.tile * config.dims if len(config.tile) == 1 else config.tile
    return draw_patch(data.images, np.random.default_rng(seed), cores=cores, config=config)


def require_same_patches(held: TrainingSet, lying: TrainingSet, config: TrainConfig) -> None:
    for seed in SEEDS:
        one, other = (drawn(data, seed, config) for data in (held, lying))
        np.testing.assert_allclose(other.image, one.image, atol=1e-5)
        np.testing.assert_array_equal(other.target, one.target)
        np.testing.assert_array_equal(other.weight_map, one.weight_map)


def grey(shape: tuple[int, ...], dtype: type = np.uint8) -> NDArray[np.generic]:
    return np.random.default_rng(1).integers(0, 255, shape).astype(dtype)


@pytest.mark.parametrize("kind", ["classes", "instances"])
@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({}, id="plain"),
        pytest.param({"ignore_background": True, "trusted_ring": 3}, id="ring"),
        pytest.param({"normalisation": "volume", "balance": 0.5, "scaling": 0.2}, id="volume"),
        pytest.param({"border": 2, "ignore": 5}, id="ignored"),
    ],
)
def test_flat_patch_is_the_one_from_memory(tmp_path: Path, kind: str, settings: dict[str, object]) -> None:
    cells = balls((230, 170), distance=11, touching=kind == "instances")
    config = FLAT.updated({"target_kind": kind, **settings})
    target = cells if kind == "instances" else (cells > 0).astype(np.uint8)
    require_same_patches(*both(tmp_path, grey(cells.shape), target, config), config)


@pytest.mark.parametrize("kind", ["classes", "instances"])
def test_deep_patch_is_the_one_from_memory(tmp_path: Path, kind: str) -> None:
    cells = balls((40, 70, 60), distance=8, touching=kind == "instances")
    config = DEEP.updated({"target_kind": kind})
    target = cells if kind == "instances" else (cells > 0).astype(np.uint8)
    require_same_patches(*both(tmp_path, grey(cells.shape), target, config), config)


def test_planes_of_a_stack_are_images(tmp_path: Path) -> None:
    target = np.stack([balls((90, 80), distance=11, seed=seed) for seed in range(7)])
    held, lying = both(tmp_path, grey(target.shape), target, FLAT)
    assert [each.name for each in lying.images] == [each.name for each in held.images]
    assert [each.name for each in lying.held_out] == [each.name for each in held.held_out]
    require_same_patches(held, lying, FLAT)


def test_patch_larger_than_the_image_is_the_one_from_memory(tmp_path: Path) -> None:
    config = replace(FLAT, tile=(64,), validation=0)
    target = balls((30, 50), distance=11)
    require_same_patches(*both(tmp_path, grey(target.shape), target, config), config)


def test_channels_are_read_as_in_memory(tmp_path: Path) -> None:
    target = balls((80, 70), distance=11)
    colour = grey((80, 70, 4))
    held, lying = both(tmp_path, colour, target, replace(FLAT, validation=0))
    assert held.channels == lying.channels == 3
    require_same_patches(held, lying, replace(FLAT, validation=0))


def test_stored_grey_as_colour_is_grey(tmp_path: Path) -> None:
    target = balls((80, 70), distance=11)
    colour = np.repeat(grey((80, 70, 1)), 3, axis=2)
    held, lying = both(tmp_path, colour, target, FLAT)
    assert held.channels == lying.channels == 1


@pytest.mark.parametrize("config", [FLAT, DEEP], ids=["flat", "deep"])
def test_all_but_the_values_is_the_same(tmp_path: Path, config: TrainConfig) -> None:
    target = balls((120, 100) if config.dims == 2 else (30, 60, 50), distance=9)
    held, lying = both(tmp_path, grey(target.shape, np.float32), target, config)
    assert lying.normalisation.offset == pytest.approx(held.normalisation.offset)
    assert lying.normalisation.scale == pytest.approx(held.normalisation.scale)
    assert lying.class_share == held.class_share
    assert lying.decision == held.decision
    np.testing.assert_allclose(lying.held_out[0].image, held.held_out[0].image, atol=1e-5)
    np.testing.assert_array_equal(lying.held_out[0].target, held.held_out[0].target)
    np.testing.assert_array_equal(lying.held_out[0].weight_map, held.held_out[0].weight_map)


def test_axes_before_those_of_space_are_planes(tmp_path: Path) -> None:
    target = np.stack([balls((40, 50), distance=11, seed=seed) for seed in range(6)]).reshape(2, 3, 40, 50)
    images = grey((2, 2, 3, 40, 50))
    zarr.create_array(tmp_path / "i.zarr", data=images, chunks=(1, 2, 2, 20, 20), dimension_names=[*"tczyx"])
    zarr.create_array(tmp_path / "t.zarr", data=target, chunks=(2, 2, 40, 50), dimension_names=[*"tzyx"])
    held = open_annotated(tmp_path / "i.zarr", tmp_path / "t.zarr")
    lying = open_annotated(tmp_path / "i.zarr", tmp_path / "t.zarr", memory=0)
    box = (slice(3, 30), slice(7, 41))
    assert [each.name for each in held] == [each.name for each in lying]
    for one, other in zip(held, lying, strict=True):
        np.testing.assert_array_equal(one.read_image(box), other.read_image(box))
        np.testing.assert_array_equal(one.read_annotation(box).target, other.read_annotation(box).target)


def test_no_more_than_a_box_is_read_for_a_patch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = balls((400, 300), distance=11)
    config = replace(FLAT, validation=0)
    lying = training_set(open_annotated(*write(tmp_path, grey(target.shape), target), memory=0), config)
    sizes: list[int] = []
    read = Stack.read

    def counted(stack: Stack, planes: range, box: Window) -> NDArray[np.generic]:
        sizes.append(max(span.stop - span.start for span in box))
        return read(stack, planes, box)

    monkeypatch.setattr(Stack, "read", counted)
    for seed in SEEDS:
        drawn(lying, seed, FLAT)
    # The input of 52 turned by 45 degrees, displaced by some sigma; the core of 32 with the reach of the weights.
    assert max(sizes) < 52 * 1.5 + 2 * 31 + 2 * 16 + 40
    assert len(sizes) == 2 * len(SEEDS)


def test_held_out_part_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "HELD", 900)
    target = balls((200, 100), distance=11)
    held, lying = both(tmp_path, grey(target.shape), target, FLAT)
    assert held.held_out[0].target.shape == (40, 100)
    assert lying.held_out[0].target.shape == (30, 30)
    middle_of_it = (slice(5, 35), slice(35, 65))
    np.testing.assert_array_equal(lying.held_out[0].target, held.held_out[0].target[middle_of_it])
    np.testing.assert_allclose(lying.held_out[0].weight_map, held.held_out[0].weight_map[middle_of_it])


def test_middle_is_no_larger_than_asked() -> None:
    for shape in ((7, 900), (900, 7), (3, 50, 800), (30, 30, 30)):
        for pixels in (1, 10, 1000, 10**7):
            box = middle(shape, pixels)
            sides = [span.stop - span.start for span in box]
            assert np.prod(sides) <= pixels
            assert all(0 <= span.start < span.stop <= side for span, side in zip(box, shape, strict=True))


def test_arrays_that_fit_are_held(tmp_path: Path) -> None:
    target = balls((40, 50), distance=11)
    paths = write(tmp_path, grey(target.shape), target)
    needed = target.size * (4 + 1 + 10 + 2)
    assert not isinstance(open_annotated(*paths, memory=needed)[0], AnnotatedVolume)
    assert isinstance(open_annotated(*paths, memory=needed - 1)[0], AnnotatedVolume)
