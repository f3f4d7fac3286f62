"""Neurites of random boxes, made again of the stored probabilities.

A box with a margin is a part of the volume like a region: its basins are put together as far as all edges of them are
known there (:mod:`unet_dask.objects.neurites`). What is one there has to be one in the result; and a neurite that has
no edge left that could make it one with another has to have its own number.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from unet_dask.objects.neurites import of_part, size_of
from unet_dask.products.probabilities import Probabilities
from unet_dask.run.numbering import ground_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from unet_dask.io.sink.store import ArraySpec
    from unet_dask.objects.rule import ObjectRule
    from unet_dask.tiling.box import Box
    from unet_dask.verify.stored import Stored

#: What no voxel has.
_NO_NUMBER = np.iinfo(np.uint64).max


def differing(
    stored: Stored, array: ArraySpec, rule: ObjectRule, box: Box, around: Box
) -> tuple[NDArray[np.bool_], int]:
    """Return which voxels of a box do not belong to the neurite that the probabilities make there.

    Parameters
    ----------
    stored : a result with probabilities
    array : of the numbers of objects
    rule : by which they were made
    box, around : the box, and that with a margin

    Returns
    -------
    of every voxel whether it is wrong; and how many neurites were compared
    """
    source = stored.array(Probabilities.name)

    def read(part: Box) -> NDArray[np.generic]:
        return stored.read(source.name, 0, part)

    ground = ground_of(read, source, around, shape=array.levels[0].shape, dims=stored.dims)
    part = of_part(ground, rule.threshold, array.dtype)
    open_ends = [part.graph.ends.reshape(-1).astype(np.uint64)]
    open_ends += [
        part.numbers.take(end, axis).reshape(-1).astype(np.uint64) for axis, end in ground.open_sides()
    ]
    size = size_of(part.numbers, ground.foreground[ground.own])
    closed = ~np.isin(size.names, np.concatenate(open_ends))
    numbers = part.numbers[box.relative_to(around).slices]
    there = np.asarray(stored.read(array.name, 0, box)).astype(np.uint64)
    names, first, which = np.unique(numbers, return_index=True, return_inverse=True)
    expected = there.reshape(-1)[first]
    named = np.searchsorted(size.names, names[names > 0])
    known, few = closed[named], size.count[named] < max(rule.min_size, 1)
    values = expected[names > 0]
    whole = known & ~few
    values[whole] = _numbered(names[names > 0][whole], values[whole], rule)
    values[known & few] = 0
    # What is too small, or may be, is what its neighbours grow into.
    compared = np.append(
        np.ones(len(names) - len(values), np.bool_), ~few if rule.grow else np.ones_like(few)
    )
    expected[names > 0] = values
    if len(names) and names[0] == 0:
        expected[0] = 0
    which = which.reshape(there.shape)
    return compared[which] & (expected[which] != there), int(np.count_nonzero(compared[names > 0]))


def _numbered(
    names: NDArray[np.unsignedinteger], found: NDArray[np.uint64], rule: ObjectRule
) -> NDArray[np.uint64]:
    """Return the numbers that neurites must have, by their places and by what their first voxels have.

    Those that are counted, or linked, are known by what was found; but there has to be a number, and one that goes up
    from each to the next unless planes are linked.
    """
    if not rule.renames:
        return names.astype(np.uint64)
    before = np.zeros_like(found) if rule.linked else np.append(0, np.maximum.accumulate(found))[:-1]
    return np.where(found > before, found, _NO_NUMBER).astype(np.uint64)
