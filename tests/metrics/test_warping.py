"""Warping against one-by-one flips that are allowed if counting the pieces of the whole plane says so."""

from __future__ import annotations

import time

import numpy as np
import pytest
from numpy.typing import NDArray
from skimage.measure import label

from tests.metrics.shapes import blobs, many_seeds
from unet_dask.errors import GeometryError
from unet_dask.metrics.warping import simple_points, warp

Mask = NDArray[np.bool_]


def pieces(plane: Mask) -> tuple[int, int]:
    """Count the objects (4-connected) and the pieces of background (8-connected) of a plane in its frame."""
    framed = np.pad(plane, 1)
    return int(label(framed, connectivity=1).max()), int(label(~framed, connectivity=2).max())


def warp_slowly(truth: Mask, found: Mask, mask: Mask) -> tuple[Mask, int]:
    """Flip one pixel after another, sub-lattice by sub-lattice, where that changes no number of pieces."""
    warped, flips = truth.copy(), 0
    changed = True
    while changed:
        changed = False
        for row, column in (
            (1, 1),
            (1, 0),
            (0, 1),
            (0, 0),
        ):  # the frame makes row 1 the first of the even ones
            for y, x in np.argwhere((warped != found) & mask):
                if (y % 2, x % 2) != (row, column):
                    continue
                before = pieces(warped)
                warped[y, x] ^= True
                if pieces(warped) == before:
                    flips += 1
                    changed = True
                else:
                    warped[y, x] ^= True
    return warped, flips


def drawn(seed: int, shape: tuple[int, int]) -> tuple[Mask, Mask, Mask]:
    generator = np.random.default_rng(seed)
    smooth = float(generator.choice([0.3, 0.8, 1.5]))
    truth, found = (blobs(generator, shape, smooth=smooth) for _ in range(2))
    mask = np.ones(shape, bool) if seed % 2 else blobs(generator, shape, smooth=1.0, share=0.8)
    return truth, found, mask


@many_seeds
def test_equals_flipping_one_by_one(seed: int) -> None:
    truth, found, mask = drawn(seed, (7, 8))
    expected, flips = warp_slowly(truth, found, mask)
    got = warp(truth, found, mask=mask)
    np.testing.assert_array_equal(got.foreground, expected)
    assert got.flipped == flips
    assert got.remaining == int((expected != found).sum())


@many_seeds
def test_keeps_the_number_of_objects_and_of_pieces_of_background(seed: int) -> None:
    truth, found, _ = drawn(seed, (40, 33))
    got = warp(truth, found)
    assert pieces(got.foreground) == pieces(truth)
    assert got.remaining == int((truth != found).sum()) - got.flipped


@many_seeds
def test_flips_nothing_outside_the_mask_and_nothing_that_agrees(seed: int) -> None:
    truth, found, mask = drawn(seed, (20, 21))
    got = warp(truth, found, mask=mask)
    changed = got.foreground != truth
    assert not (changed & ~mask).any()
    assert not (changed & (truth == found)).any()


@many_seeds
def test_leaves_no_simple_point(seed: int) -> None:
    truth, found, mask = drawn(seed, (9, 9))
    warped = warp(truth, found, mask=mask).foreground
    before = pieces(warped)
    for y, x in np.argwhere((warped != found) & mask):
        flipped = warped.copy()
        flipped[y, x] ^= True
        assert pieces(flipped) != before


def test_simple_points_by_counting_pieces() -> None:
    """Both ways round: a centre of either kind, in every neighbourhood."""
    around = ((-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1))
    for number in range(256):
        plane = np.zeros((3, 3), bool)
        for bit, (down, right) in enumerate(around):
            plane[1 + down, 1 + right] = bool(number >> bit & 1)
        # Alone, the frame of background joins what the plane may join elsewhere: objects are counted around the
        # centre, the background too.
        inside = label(plane, connectivity=1)
        touching = {int(inside[1 + d, 1 + r]) for d, r in ((-1, 0), (0, 1), (1, 0), (0, -1))} - {0}
        hollow = ~plane
        hollow[1, 1] = False
        outside = int(label(hollow, connectivity=2).max())
        assert simple_points()[number] == (len(touching) == 1 and outside == 1), number


def test_identical_has_no_error() -> None:
    truth, _, _ = drawn(3, (30, 30))
    got = warp(truth, truth)
    assert (got.error, got.flipped) == (0, 0)


def test_a_shifted_border_is_no_error_and_a_gap_is() -> None:
    truth = np.ones((9, 11), bool)
    truth[:, 5] = False
    moved = np.ones((9, 11), bool)
    moved[:, 6] = False
    assert warp(truth, moved).remaining == 0
    gap = moved.copy()
    gap[4, 6] = True
    assert warp(truth, gap).remaining == 1
    assert warp(truth, gap).error == 1 / 99


def test_a_missing_and_an_invented_object_remain() -> None:
    nothing = np.zeros((5, 5), bool)
    square = nothing.copy()
    square[1:4, 1:4] = True
    assert warp(nothing, square).remaining == 9
    assert warp(square, nothing).remaining == 1


def test_half_a_plane_of_differences_takes_less_than_a_second() -> None:
    generator = np.random.default_rng(0)
    truth, found = (blobs(generator, (512, 512), smooth=4, share=0.5) for _ in range(2))
    began = time.process_time()
    warp(truth, found)
    assert time.process_time() - began < 1


def test_refuses_what_is_no_pair_of_planes() -> None:
    plane = np.zeros((4, 4), bool)
    with pytest.raises(GeometryError, match="plane by plane"):
        warp(np.zeros((2, 4, 4), bool), np.zeros((2, 4, 4), bool))
    with pytest.raises(GeometryError, match="one size"):
        warp(plane, plane[:3])
