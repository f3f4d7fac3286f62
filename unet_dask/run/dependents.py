"""What was made from what: the pieces of work that are wrong if others are."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

from unet_dask.io.sink import pyramid

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from unet_dask.io.sink.store import ArraySpec
    from unet_dask.ledger import Key
    from unet_dask.tiling.box import Box
    from unet_dask.tiling.region import RegionGrid


def dependents(
    arrays: Sequence[ArraySpec], grid: RegionGrid, wrong: Iterable[Key], recorded: Collection[Key]
) -> set[Key]:
    """Return wrong pieces of work with all that was made from them, whether it is wrong or not.

    Parameters
    ----------
    arrays : of the sink, in the order of its manifest
    grid : of the regions
    wrong : pieces of work
    recorded : all entries of the ledger; of a region every stage is taken, since later ones are made from earlier ones
    """
    doomed = set(wrong)
    regions = {index for level, index in doomed if level <= 0 and within(index, grid.counts)}
    doomed |= {key for key in recorded if key[0] <= 0 and key[1] in regions}
    for number, array in enumerate(arrays):
        for index in regions:
            doomed |= _blocks_over(array, number, 0, region_box(grid, array, index))
    for level, index in list(doomed):
        if level > 0 and index[0] < len(arrays):
            array = arrays[index[0]]
            if level >= len(array.levels) or not within(index[1:], pyramid.block_counts(array, level)):
                continue
            doomed |= _blocks_over(array, index[0], level, pyramid.block_box(array, level, index[1:]))
    return doomed


def within(index: Sequence[int], counts: Sequence[int]) -> bool:
    """Return whether there is such a piece of work: a ledger may speak of others."""
    return len(index) == len(counts) and all(at < count for at, count in zip(index, counts, strict=True))


def region_box(grid: RegionGrid, array: ArraySpec, index: tuple[int, ...]) -> Box:
    """Return the voxels of a region in level 0 of a product, channels included."""
    return array.box(grid.box(index).relative_to(grid.whole))


def _blocks_over(array: ArraySpec, number: int, level: int, box: Box) -> set[Key]:
    """Return the blocks of coarser levels that were made from a box of a level."""
    found: set[Key] = set()
    for coarser in range(level + 1, len(array.levels)):
        step = array.levels[coarser].step_from(array.levels[level])
        sides = [by * side for by, side in zip(step, pyramid.block_shape(array), strict=True)]
        found |= {(coarser, (number, *index)) for index in product(*box.units(sides))}
    return found
