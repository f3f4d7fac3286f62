"""One object of a result, looked up and measured by itself: in bounded time, whatever the size of the result."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import numpy as np

from unet_dask.measuring.block import pixel_rows
from unet_dask.tiling.box import Box

if TYPE_CHECKING:
    from collections.abc import Iterator

    from unet_dask.measuring.columns import Columns
    from unet_dask.measuring.finished import Finished
    from unet_dask.measuring.survey import Survey

#: Voxels around a place within which an object is measured at most, a second of work; larger ones are not.
MOST_AROUND = 1 << 24
#: Voxels that are looked through for an object that is not where its number says.
MOST_SOUGHT = 1 << 27
#: Half of the side of the first box around a place, by the dimensions of objects.
_FIRST = {2: 128, 3: 32}


def one_object(survey: Survey, at: tuple[int, ...]) -> Columns | None:
    """Return the table of the object at a place, one row; None if there is none, or it is too large.

    Parameters
    ----------
    survey : of the result
    at : voxel of the label image

    Raises
    ------
    SinkError
        If the result cannot be read there.
    InputError
        If the source cannot.
    """
    result = survey.result
    place = Box(result.axes, tuple((each, each + 1) for each in at))
    number = survey.labels(place).item()
    if not number:
        return None
    for box in _around(result, place):
        labels = survey.labels(box)
        inside = np.argwhere(labels == number)
        spans = zip(inside.min(axis=0).tolist(), (inside.max(axis=0) + 1).tolist(), strict=True)
        own = Box(
            box.axes, tuple((a + first, b + first) for (a, b), first in zip(spans, box.start, strict=True))
        )
        if _goes_on(own, box, result):
            continue
        mine = labels[own.relative_to(box).slices]
        return survey.columns(survey.sums(pixel_rows(np.where(mine == number, mine, 0)), own))
    return None


def _around(result: Finished, place: Box) -> Iterator[Box]:
    """Yield larger and larger boxes around a place, in its plane if planes have objects of their own."""
    margin = _FIRST[result.dims]
    while True:
        box = place.grown(margin, result.dims, within=result.labels.shape)
        if prod(box.shape) > MOST_AROUND:
            return
        yield box
        if box.shape[-result.dims :] == result.labels.shape[-result.dims :]:
            return
        margin *= 2


def _goes_on(own: Box, box: Box, result: Finished) -> bool:
    """Return whether an object may go on beyond a box: it reaches a side of it that is none of the result."""
    inner = slice(-result.dims, None)
    return any(
        (first == start != 0) or (last == stop != size)
        for (first, last), (start, stop), size in zip(
            own.spans[inner], box.spans[inner], result.labels.shape[inner], strict=True
        )
    )


def find_object(result: Finished, number: int) -> tuple[int, ...] | None:
    """Return a voxel of the object of a number, None if there is no such object, or it is not found in bounded time.

    The number of an object is one more than the place of its first voxel. Where numbers are others, or an object has
    lost its first voxel, the beginning of the result is looked through.

    Raises
    ------
    SinkError
        If the result cannot be read.
    """
    shape = result.labels.shape
    if 0 < number <= prod(shape):
        at = tuple(int(each) for each in np.unravel_index(number - 1, shape))
        if (
            result.read(result.name, Box(result.axes, tuple((each, each + 1) for each in at))).item()
            == number
        ):
            return at
    seen = 0
    for box in result.blocks():
        seen += prod(box.shape)
        if seen > MOST_SOUGHT or number < 1:
            return None
        places = np.argwhere(result.read(result.name, box) == number)
        if len(places):
            return tuple(int(each) + first for each, first in zip(places[0], box.start, strict=True))
    return None
