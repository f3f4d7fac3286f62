from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unet_dask.errors import InputError, OptionError
from unet_dask.model.header import NetworkSpec
from unet_dask.model.network import Network
from unet_dask.training.config import TrainConfig
from unet_dask.training.elastic import affine, coordinates, displacements, look_up
from unet_dask.training.sample import Patch, TrainingImage, draw_patch, tile_cores

PLAIN = TrainConfig(depth=2, gain=0, offset=0, gamma=0)
#: Nothing moves but the place that is drawn.
STILL = replace(PLAIN, elastic_sigma=0, rotation=0)


def discs(shape: tuple[int, ...], name: str = "discs") -> TrainingImage:
    """Return an image that shows its own target, and a weight map that tells it too."""
    grid = np.indices(shape)
    target = (np.cos(grid / 7.0).prod(axis=0) > 0.2).astype(np.uint8)
    return TrainingImage(name, target[np.newaxis].astype(np.float32), target, target.astype(np.float32) + 1)


@pytest.mark.parametrize("dims", [2, 3])
def test_image_target_and_weight_map_move_together(dims: int) -> None:
    config = replace(PLAIN, dims=dims, depth=2 if dims == 2 else 1, elastic_sigma=6.0)
    cores = (64, 64) if dims == 2 else (16, 24, 24)
    image = discs((90,) * dims if dims == 2 else (40, 50, 50))
    patch = draw_patch([image], np.random.default_rng(4), cores=cores, config=config)
    halo = config.network().halo[0]
    central = patch.image[0][tuple(slice(halo, halo + side) for side in patch.target.shape)]
    np.testing.assert_array_equal(patch.weight_map, patch.target + 1)
    # The image is interpolated and the target is not: they may differ along contours, no further.
    assert np.mean((central > 0.5) != (patch.target == 1)) < 0.01


@settings(max_examples=25, deadline=None)
@given(
    depth=st.integers(1, 3),
    steps=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    shape=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    seed=st.integers(0, 99),
)
def test_patch_fits_the_network(
    depth: int, steps: tuple[int, int], shape: tuple[int, int], seed: int
) -> None:
    cores = tuple(step << depth for step in steps)
    patch = draw_patch(
        [discs(shape)], np.random.default_rng(seed), cores=cores, config=replace(PLAIN, depth=depth)
    )
    context = NetworkSpec(depth=depth).contexts[0]
    sizes = tuple(context.input_size(core) for core in cores)
    assert patch.image.shape == (1, *sizes)
    assert patch.target.shape == tuple(context.output_size(size) for size in sizes)
    assert patch.weight_map.shape == patch.target.shape


def test_patch_fits_a_network_whose_poolings_differ() -> None:
    config = replace(PLAIN, dims=3, width=2, factors=((1, 2, 2), (2, 2, 2)), elastic_sigma=2.0)
    image = discs((15, 50, 61))
    cores = tile_cores(config, [image.shape])
    assert cores == (16, 40, 40)
    patch = draw_patch([image], np.random.default_rng(0), cores=cores, config=config)
    with torch.inference_mode():
        logits = Network(config.network()).eval()(torch.from_numpy(patch.image)[None])
    assert logits.shape[2:] == patch.target.shape == patch.weight_map.shape
    with pytest.raises(OptionError, match="Use a multiple of 2, such as 4"):
        tile_cores(replace(config, tile=(3, 8, 8)), [image.shape])


def test_target_is_what_the_network_sees_in_the_middle() -> None:
    halo = NetworkSpec(depth=2).halo[0]
    patch = draw_patch([discs((80, 80))], np.random.default_rng(0), cores=(32, 32), config=STILL)
    central = patch.image[0, halo:-halo, halo:-halo]
    # Without rotation and deformation places are fractions of a pixel apart from the lattice.
    assert np.mean((central > 0.5) != (patch.target == 1)) < 0.02


def looked_up_whole(image: TrainingImage, seed: int, cores: tuple[int, ...], config: TrainConfig) -> Patch:
    """Draw a patch as the definition has it: coordinates looked up in the whole image, nothing cut out."""
    rng = np.random.default_rng(seed)
    rng.choice(1, p=[1.0])
    sizes = [context.input_size(core) for context, core in zip(config.network().contexts, cores, strict=True)]
    centre = [
        rng.uniform(min(0.25 * core, side - 0.25 * core), max(0.25 * core, side - 0.25 * core))
        for core, side in zip(cores, image.shape, strict=True)
    ]
    angle, zoom = np.deg2rad(rng.uniform(-config.rotation, config.rotation)), np.exp(rng.normal(0, 0))
    field = displacements(sizes, rng, sigma=config.elastic_sigma, grid=config.elastic_grid)
    at = coordinates(centre, affine(len(cores), float(angle), float(zoom)), field)
    halo = config.network().halo[0]
    central = at[(slice(None), *(slice(halo, size - halo) for size in sizes))]
    grey = look_up(image.image[0], at, order=3 if len(cores) == 2 else 1)
    return Patch(
        grey[np.newaxis].astype(np.float32),
        look_up(image.target, central, order=0).astype(np.int64),
        look_up(image.weight_map, central, order=0).astype(np.float32),
    )


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize(
    ("shape", "cores"), [((150, 90), (32, 32)), ((20, 30), (64, 32)), ((30, 1, 40), (8, 8, 8))]
)
def test_cutting_a_box_out_changes_nothing(shape: tuple[int, ...], cores: tuple[int, ...], seed: int) -> None:
    config = replace(PLAIN, dims=len(shape), depth=1, elastic_sigma=6.0)
    noise = np.random.default_rng(seed).normal(size=(1, *shape)).astype(np.float32)
    image = replace(discs(shape), image=noise)
    expected = looked_up_whole(image, seed, cores, config)
    patch = draw_patch([image], np.random.default_rng(seed), cores=cores, config=config)
    np.testing.assert_allclose(patch.image, expected.image, atol=1e-5)
    np.testing.assert_array_equal(patch.target, expected.target)
    np.testing.assert_array_equal(patch.weight_map, expected.weight_map)


def test_same_seed_draws_the_same_patch() -> None:
    image = discs((64, 64))
    config = TrainConfig(depth=2)
    first, second = (
        draw_patch([image], np.random.default_rng(9), cores=(32, 32), config=config) for _ in range(2)
    )
    np.testing.assert_array_equal(first.image, second.image)
    np.testing.assert_array_equal(first.weight_map, second.weight_map)


def test_images_without_annotation_are_passed_over() -> None:
    blank = replace(discs((40, 40)), weight_map=np.zeros((40, 40), np.float32))
    for seed in range(5):
        patch = draw_patch(
            [blank, discs((40, 40))], np.random.default_rng(seed), cores=(16, 16), config=PLAIN
        )
        assert patch.weight_map.any()


def test_nothing_annotated_anywhere_is_refused() -> None:
    blank = replace(discs((20, 20)), weight_map=np.zeros((20, 20), np.float32))
    with pytest.raises(InputError, match="no annotated pixel"):
        draw_patch([blank], np.random.default_rng(0), cores=(4, 4), config=PLAIN)


@pytest.mark.parametrize(
    ("config", "shape", "cores"),
    [
        pytest.param(TrainConfig(), (600, 600), (384, 384), id="ronneberger-2015-fig1"),
        pytest.param(TrainConfig(dims=3, depth=3), (99, 99, 99), (40, 40, 40), id="cicek-2016-fig2"),
        pytest.param(TrainConfig(), (100, 20), (112, 32), id="small-image"),
        pytest.param(TrainConfig(tile=(64,)), (10, 10), (64, 64), id="as-asked"),
    ],
)
def test_tile_is_the_papers_or_smaller(
    config: TrainConfig, shape: tuple[int, ...], cores: tuple[int, ...]
) -> None:
    assert tile_cores(config, [shape]) == cores


def test_tile_off_the_lattice_is_refused() -> None:
    with pytest.raises(OptionError, match=r"100 pixels is off the lattice.*112"):
        tile_cores(TrainConfig(tile=(100,)), [(512, 512)])


def test_images_are_drawn_by_their_pixels_or_all_alike() -> None:
    def constant(side: int, value: float) -> TrainingImage:
        target = np.zeros((side, side), np.uint8)
        return TrainingImage(
            "constant", np.full((1, side, side), value, np.float32), target, target + np.float32(1)
        )

    images, shares = [constant(16, 0.0), constant(160, 1.0)], {}
    for by in ("pixels", "images"):
        config, rng = replace(STILL, drawn_by=by, depth=1), np.random.default_rng(0)
        drawn = [draw_patch(images, rng, cores=(8, 8), config=config).image.mean() for _ in range(200)]
        shares[by] = np.mean(drawn)
    assert shares["pixels"] > 0.95
    assert 0.35 < shares["images"] < 0.65


def test_emptied_patch_is_all_background() -> None:
    config = replace(STILL, emptied=1.0)
    patch = draw_patch([discs((90, 90))], np.random.default_rng(1), cores=(64, 64), config=config)
    assert not patch.target.any()
    assert (patch.weight_map == 1).all()
    assert abs(patch.image.mean()) < 1e-4
    kept = draw_patch([discs((90, 90))], np.random.default_rng(1), cores=(64, 64), config=STILL)
    assert kept.target.any()


def test_a_patch_of_varied_objects_has_the_truth_of_the_same_place() -> None:
    images = [discs((90, 90))]
    drawn = {
        gain: draw_patch(
            images, np.random.default_rng(1), cores=(64, 64), config=replace(STILL, object_gain=gain)
        )
        for gain in (0.0, 0.5)
    }
    np.testing.assert_array_equal(drawn[0.0].target, drawn[0.5].target)
    assert np.abs(drawn[0.0].image - drawn[0.5].image).max() > 0.05
