"""Objects that go through the planes of a stack."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from unet_dask.objects.planes import Tally, added, linked, overlaps, sizes
from unet_dask.objects.rule import ObjectRule
from unet_dask.objects.whole import objects_in, over_planes

if TYPE_CHECKING:
    from numpy.typing import NDArray

SHARES = [0.001, 0.25, 0.5, 1.0]


def slowly(stack: NDArray[np.uint32], share: float) -> NDArray[np.uint32]:
    """Link objects one by one, with the sets of their pixels."""
    pixels = [
        {int(n): set(map(tuple, np.argwhere(plane == n))) for n in np.unique(plane) if n} for plane in stack
    ]
    made = stack.copy()
    for before, behind, plane in zip(pixels, pixels[1:], range(1, len(stack)), strict=False):
        for one, own in before.items():
            common = {other: len(own & theirs) for other, theirs in behind.items() if own & theirs}
            if not common:
                continue
            other = min(common, key=lambda name: (-common[name], name))
            back = {name: len(theirs & behind[other]) for name, theirs in before.items()}
            if min(back, key=lambda name: (-back[name], name)) != one:
                continue
            if common[other] >= share * len(own | behind[other]):
                name = int(made[plane - 1][stack[plane - 1] == one][0])
                made[plane][stack[plane] == other] = name
    return made


@given(seed=st.integers(0, 1 << 20), share=st.sampled_from(SHARES), parts=st.integers(1, 4))
@settings(max_examples=200, deadline=None)
def test_planes_are_linked_as_one_by_one_whatever_parts_are_counted(
    seed: int, share: float, parts: int
) -> None:
    random = np.random.default_rng(seed)
    shape = tuple(random.integers(1, 6, 3))
    few = random.integers(0, random.integers(2, 6), shape)
    stack = np.where(few > 0, few + 10 * np.arange(1, shape[0] + 1)[:, None, None], 0).astype(np.uint32)
    pieces = np.array_split(stack, parts, axis=2)
    over = [overlaps(one, other) for piece in pieces for one, other in pairwise(piece)]
    expected = slowly(stack, share)
    np.testing.assert_array_equal(over_planes(stack, share), expected)
    if over:
        old, new = linked(added(over[::-1]), added([sizes(piece) for piece in pieces]), share)
        made = stack.copy()
        for number, becomes in zip(old, new, strict=True):
            made[stack == number] = becomes
        np.testing.assert_array_equal(made, expected)


def test_a_neurite_goes_through_a_stack_and_its_neighbour_stays_apart() -> None:
    background = np.ones((5, 30, 60), np.float32)
    for plane in range(5):
        background[plane, 5:25, 3 + 4 * plane : 20 + 4 * plane] = 0
        background[plane, 5:25, 22 + 4 * plane : 42 + 4 * plane] = 0
    both = np.stack([background, 1 - background])
    found = objects_in(both, ObjectRule(threshold=0.5, linked=0.1), dims=2)
    assert len(np.unique(found)) == 3
    assert all(len(np.unique(plane)) == 3 for plane in found)
    apart = objects_in(both, ObjectRule(threshold=0.5), dims=2)
    assert len(np.unique(apart)) == 11


def test_cells_of_planes_are_linked_too() -> None:
    background = np.ones((3, 20, 20), np.float32)
    background[:, 5:15, 5:15] = 0
    both = np.stack([background, 1 - background])
    assert len(np.unique(objects_in(both, ObjectRule(fill_holes=True, linked=0.5), dims=2))) == 2


def test_counts_of_nothing_are_nothing() -> None:
    none = np.zeros((4, 4), np.uint32)
    assert not len(sizes(none).count)
    both = overlaps(none, none)
    assert both.names.shape == (0, 2)
    old, new = linked(both, sizes(none), 0.5)
    assert not len(old)
    assert not len(new)
    assert isinstance(added([both, both]), Tally)
