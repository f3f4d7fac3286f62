from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from unet_dask.tiling.mirror import mirrored
from unet_dask.training.elastic import affine, coordinates, displacements, look_up

if TYPE_CHECKING:
    from numpy.typing import NDArray


def nodes_of(draws: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return the displacements at the 3 x 3 nodes of many fields."""
    rng = np.random.default_rng(7)
    at = tuple(slice(None, None, (side - 1) // 2) for side in shape)
    return np.stack([displacements(shape, rng)[(slice(None), *at)] for _ in range(draws)])


def test_nodes_have_the_papers_deviation() -> None:
    nodes = nodes_of(600, (21, 31))
    assert nodes.shape == (600, 2, 3, 3)
    # 600 draws of 18 numbers: the standard error of the mean is 0.096, that of the deviation 0.068.
    assert abs(float(nodes.mean())) < 0.4
    assert abs(float(nodes.std()) - 10) < 0.3


def test_every_node_has_the_papers_deviation() -> None:
    per_node = nodes_of(600, (21, 31)).std(axis=0)
    assert np.all(np.abs(per_node - 10) < 1.5)


def test_nodes_are_exactly_what_was_drawn() -> None:
    drawn = np.random.default_rng(3).normal(0.0, 10.0, (2, 3, 3))
    field = displacements((41, 41), np.random.default_rng(3))
    np.testing.assert_allclose(field[:, ::20, ::20], drawn, atol=1e-4)


def test_field_is_smooth() -> None:
    field = displacements((201, 201), np.random.default_rng(0))
    steps = np.abs(np.diff(field, axis=1)).max()
    # Nodes are 100 pixels apart and differ by some 40: pixels differ by well below 2.
    assert steps < 2


def test_third_dimension_has_27_nodes() -> None:
    drawn = np.random.default_rng(3).normal(0.0, 2.0, (3, 3, 3, 3))
    field = displacements((9, 11, 13), np.random.default_rng(3), sigma=2.0)
    np.testing.assert_allclose(field[:, ::4, ::5, ::6], drawn, atol=1e-4)


def test_quarter_turn_turns() -> None:
    picture = np.arange(25, dtype=np.float32).reshape(5, 5)
    at = coordinates((2.0, 2.0), affine(2, np.pi / 2), np.zeros((2, 5, 5), np.float32))
    np.testing.assert_array_equal(look_up(picture, at, order=0), np.rot90(picture, -1))


@settings(max_examples=50, deadline=None)
@given(side=st.integers(1, 6), start=st.integers(-15, 10), length=st.integers(1, 12))
def test_nearest_lookup_mirrors_as_everything_else_does(side: int, start: int, length: int) -> None:
    line = np.arange(side, dtype=np.float32)
    at = np.arange(start, start + length, dtype=np.float32)[np.newaxis]
    np.testing.assert_array_equal(look_up(line, at, order=0), line[mirrored(start, start + length, side)])


@settings(max_examples=50, deadline=None)
@given(side=st.integers(2, 6), start=st.integers(-15, 10), length=st.integers(1, 12))
def test_linear_lookup_mirrors_as_everything_else_does(side: int, start: int, length: int) -> None:
    line = np.arange(side, dtype=np.float32)
    at = np.arange(start, start + length, dtype=np.float32)[np.newaxis]
    expected = line[mirrored(start, start + length, side)]
    np.testing.assert_allclose(look_up(line, at, order=1), expected, atol=1e-5)
