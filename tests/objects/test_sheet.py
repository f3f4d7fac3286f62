"""Sheets hold each box once, and keep boxes as far apart as a step looks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from unet_dask.objects import runs as of_runs
from unet_dask.objects import sheet as of_sheet
from unet_dask.objects.runs import distinct, extents, firsts, mapped, places
from unet_dask.objects.sheet import GAP, sheets


@settings(max_examples=200, deadline=None)
@given(
    st.integers(1, 3).flatmap(lambda dims: st.lists(st.tuples(*[st.integers(1, 30)] * dims), max_size=40)),
    st.sampled_from([40, 3000, 1 << 16]),
)
def test_each_box_lies_on_one_sheet_with_nothing_near_it(boxes: list[tuple[int, ...]], area: int) -> None:
    sides = np.array(boxes, np.int32).reshape(len(boxes), len(boxes[0]) if boxes else 2)
    found = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(of_sheet, "_SHEET", area)
        found = list(sheets(sides))
    assert sorted(place for sheet in found for place in sheet.which.tolist()) == list(range(len(boxes)))
    for sheet in found:
        taken = np.zeros(sheet.shape, np.int32)
        for place, slot in zip(sheet.which, sheet.slices, strict=True):
            assert tuple(part.stop - part.start for part in slot) == boxes[place]
            assert all(part.start >= GAP for part in slot)
            around = tuple(slice(part.start - GAP, part.stop + GAP) for part in slot)
            assert not taken[around].any()
            assert taken[around].shape == tuple(side + 2 * GAP for side in boxes[place])
            taken[slot] = 1


def test_many_boxes_fill_their_sheets() -> None:
    sides = np.random.default_rng(0).integers(16, 48, (2000, 2)).astype(np.int32)
    found = list(sheets(sides))
    assert sum(np.prod(sheet.shape) for sheet in found) < 1.25 * (sides + GAP).prod(axis=1).sum()


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 1 << 30), st.sampled_from([1, 2, 7, 1 << 20]))
def test_what_is_looked_up_by_runs_is_what_each_voxel_would_find(seed: int, piece: int) -> None:
    rng = np.random.default_rng(seed)
    values = np.repeat(rng.integers(0, 6, (4, 9)), rng.integers(1, 4, 9), axis=1).astype(np.int32)
    names = np.unique(rng.integers(0, 6, rng.integers(0, 5)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(of_runs, "_PIECE", piece)
        assert np.array_equal(mapped(values, lambda found: found * 3 + 1, np.int64), values * 3 + 1)
        assert np.array_equal(distinct(values), np.unique(values))
        known = {int(name): number for number, name in enumerate(names, 1)}
        expected = [known.get(value, 0) for value in values.ravel().tolist()]
        assert places(values, names).ravel().tolist() == expected
        flat = values.ravel().tolist()
        first = [flat.index(label) if label in flat else len(flat) for label in range(1, 6)]
        assert firsts(values, 5).tolist() == first
        labels = np.unique(values[values > 0], return_inverse=True)
        compact = np.zeros_like(values)
        compact[values > 0] = labels[1] + 1
        low, high = extents(compact, len(labels[0]))
        boxes = ndimage.find_objects(compact)
        assert low.tolist() == [[part.start for part in box] for box in boxes]
        assert high.tolist() == [[part.stop for part in box] for box in boxes]
