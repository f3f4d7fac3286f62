"""Regions: every voxel once, on write units and lattice, with exactly the context that is needed."""

from __future__ import annotations

from itertools import chain, repeat

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from unet_dask.errors import GeometryError
from unet_dask.model.header import NetworkSpec
from unet_dask.tiling.mirror import extend
from unet_dask.tiling.region import AxisGrid, RegionGrid
from unet_dask.tiling.valid import Context, aligned


def context(depth: int) -> Context:
    return NetworkSpec(depth=depth).contexts[0]


@st.composite
def grids(draw: st.DrawFn) -> AxisGrid:
    looked = context(draw(st.integers(1, 4)))
    size = draw(st.integers(1, 1500))
    start = draw(st.integers(0, size - 1))
    stop = draw(st.integers(start + 1, size))
    step = looked.stride * draw(st.integers(1, 30))
    core = looked.stride * draw(st.integers(1, 40))
    grid = AxisGrid(size, start, stop, step, core, looked)
    assume(grid.count == 1 or step >= grid.thinnest)
    return grid


@given(grids())
def test_every_voxel_belongs_to_one_region(grid: AxisGrid) -> None:
    owned = [voxel for index in range(grid.count) for voxel in range(*grid.write(index))]
    assert owned == list(range(grid.start, grid.stop))


@given(grids())
def test_every_region_but_the_last_is_whole_steps_from_the_start(grid: AxisGrid) -> None:
    assert all((edge - grid.start) % grid.step == 0 for edge in grid.edges[:-1])


@given(grids())
def test_a_region_with_a_neighbour_holds_its_context(grid: AxisGrid) -> None:
    lengths = [stop - start for start, stop in map(grid.write, range(grid.count))]
    assert len(lengths) == 1 or min(lengths) >= max(grid.before, grid.after)


@settings(deadline=None)
@given(grids())
def test_tiles_lie_on_the_lattice_of_the_volume_and_cover_the_region(grid: AxisGrid) -> None:
    for index in range(grid.count):
        start, stop = grid.write(index)
        first = grid.read(index)[0] + grid.context.halo
        covered = np.zeros(grid.size + grid.core + grid.context.stride, bool)
        for origin in grid.tiles(stop - start):
            assert (first + origin) % grid.context.stride == 0
            covered[first + origin : first + origin + grid.core] = True
        assert covered[start:stop].all()


@given(grids())
def test_no_kept_voxel_looks_beyond_what_is_read(grid: AxisGrid) -> None:
    for index in range(grid.count):
        start, stop = grid.write(index)
        begin, end = grid.read(index)
        assert begin <= start - grid.context.halo
        last = start - grid.phase + valid_end(stop - start + grid.phase, grid.context)
        assert end >= last


def valid_end(length: int, looked: Context) -> int:
    """Return how far the smallest legal output that covers `length` looks."""
    return aligned(length, looked.stride) + looked.slack + looked.halo


@settings(deadline=None)
@given(grids())
@example(AxisGrid(26, 25, 26, 16, 16, context(2)))
def test_the_mirror_image_shows_only_what_was_read(grid: AxisGrid) -> None:
    volume = np.arange(grid.size)
    for index in range(grid.count):
        (start, stop), (first, last) = grid.read(index), grid.source_window(index)
        around = max(-start, stop - grid.size, 0)
        padded = np.pad(volume, around, mode="reflect")
        window = extend(volume[first:last], origin=(first,), read=((start, stop),), shape=(grid.size,))
        np.testing.assert_array_equal(window, padded[start + around : stop + around])


@given(grids())
def test_the_counted_tiles_are_those_that_are_run(grid: AxisGrid) -> None:
    run = sum(len(grid.tiles(stop - start)) for start, stop in map(grid.write, range(grid.count)))
    assert grid.tile_count == run


@given(grids(), st.integers(1, 7))
def test_blocks_of_a_wave_and_their_overlap_are_what_regions_read(grid: AxisGrid, side: int) -> None:
    volume = RegionGrid("yx", (grid, AxisGrid(1, 0, 1, 1, 1, Context())))
    for wave in volume.waves(side):
        edges = np.cumsum([wave.window[0][0], *wave.chunks[0]])
        before, after = wave.depth[0]
        blocks = len(wave.chunks[0])
        for offset in range(blocks):
            begin = edges[offset] - (before if offset else 0)
            end = edges[offset + 1] + (after if offset < blocks - 1 else 0)
            assert (begin, end) == grid.source_window(wave.start[0] + offset)


@settings(deadline=None)
@given(grids(), grids(), st.data())
def test_boxes_meet_the_regions_that_hold_a_voxel_of_theirs(
    one: AxisGrid, other: AxisGrid, data: st.DataObject
) -> None:
    volume = RegionGrid("cyx", (AxisGrid(3, 0, 3, 3, 1, Context()), one, other))
    shape = volume.whole.in_space_and_time.shape
    spans = [st.lists(st.integers(0, side), min_size=2, max_size=2, unique=True) for side in shape]
    boxes = [sorted(data.draw(span)) for _ in range(3) for span in spans]
    low, high = np.moveaxis(np.array(boxes).reshape(3, 2, 2), 2, 0)
    regions, met = volume.meeting(low, high)
    found = sorted(zip(met.tolist(), regions.tolist(), strict=True))
    wanted = [
        (number, place)
        for number in range(3)
        for place, index in enumerate(volume.indices())
        if all(
            first < b and a < last
            for first, last, (a, b) in zip(
                low[number],
                high[number],
                volume.box(index).relative_to(volume.whole).in_space_and_time.spans,
                strict=True,
            )
        )
    ]
    assert found == wanted


@given(grids(), grids(), st.integers(1, 20))
def test_waves_hold_every_region_once(one: AxisGrid, other: AxisGrid, side: int) -> None:
    volume = RegionGrid("yx", (one, other))
    waved = [index for wave in volume.waves(side) for index in wave.indices()]
    assert sorted(waved) == list(volume.indices())


@given(grids(), grids(), st.integers(1, 20))
def test_waves_stay_small(one: AxisGrid, other: AxisGrid, side: int) -> None:
    volume = RegionGrid("yx", (one, other))
    assert all(len(wave) == len(list(wave.indices())) <= side for wave in volume.waves(side))


@given(grids(), grids(), st.integers(1, 20))
def test_waves_may_grow(one: AxisGrid, other: AxisGrid, side: int) -> None:
    volume = RegionGrid("yx", (one, other))
    limits = [1, 2, *range(3, 3 + side)]
    waves = list(volume.waves(chain(limits, repeat(limits[-1]))))
    assert all(
        len(wave) <= limit for wave, limit in zip(waves, chain(limits, repeat(limits[-1])), strict=False)
    )
    waved = [index for wave in waves for index in wave.indices()]
    assert sorted(waved) == sorted(volume.indices())


def test_a_tile_off_the_lattice_is_refused() -> None:
    with pytest.raises(GeometryError, match="multiple of 16"):
        AxisGrid(1000, 0, 1000, 512, 388, context(4))


def test_the_paper_steps_off_the_lattice() -> None:
    """388 = 4 (mod 16): stepping by a whole output would leave the lattice at the second tile."""
    assert 388 % context(4).stride == context(4).slack
