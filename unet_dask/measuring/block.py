"""The objects in one block of a label image: what is seen of each there.

An object is rows of pixels, one after another in raster order: everything is added up along rows first, and then over
the rows of an object, which are some twenty times fewer than its pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from unet_dask.measuring.sums import Layout, Rows


@dataclass(frozen=True, slots=True)
class PixelRows:
    """Rows of pixels of one value each, in the order of a block, and which of them are of which object.

    Attributes
    ----------
    shape : of the block
    starts : (n) first pixel of every row, background included
    kept : (m) which rows are of objects, by object, then in raster order
    first : (k) which of these is the first of each object
    labels : (k) numbers of the objects, ascending
    """

    shape: tuple[int, ...]
    starts: NDArray[np.intp]
    kept: NDArray[np.intp]
    first: NDArray[np.intp]
    labels: NDArray[np.uint64]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Pixels of the rows of objects."""
        return np.diff(np.append(self.starts, int(np.prod(self.shape))))[self.kept].astype(np.int64)

    def over(self, how: np.ufunc, values: NDArray[Any], dtype: Any = None) -> NDArray[Any]:
        """Return what becomes of the values of each object, added up or compared in raster order."""
        return self.merged(how, how.reduceat(values.reshape(-1), self.starts, dtype=dtype)[self.kept])

    def merged(self, how: np.ufunc, rows: NDArray[Any]) -> NDArray[Any]:
        """Return what becomes of something that each row has."""
        return np.asarray(how.reduceat(rows, self.first, axis=0))

    def spread(self, values: NDArray[Any], mean: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return squared differences from the mean of each object, summed up."""
        counts = np.diff(np.append(self.first, len(self.kept)))
        means = np.zeros(len(self.starts))
        means[self.kept] = np.repeat(mean, counts)
        each = np.repeat(means, np.diff(np.append(self.starts, values.size)))
        return self.over(np.add, (values.reshape(-1) - each) ** 2)


def pixel_rows(labels: NDArray[np.unsignedinteger]) -> PixelRows:
    """Return the rows of pixels of the objects of a block; 0 is background.

    Examples
    --------
    >>> rows = pixel_rows(np.array([[0, 7, 7], [7, 5, 0]], "u4"))
    >>> rows.labels.tolist(), rows.merged(np.add, rows.lengths).tolist()
    ([5, 7], [1, 3])
    """
    flat = labels.reshape(-1)
    change = np.empty(flat.size, np.bool_)
    np.not_equal(flat[1:], flat[:-1], out=change[1:])
    change[:: labels.shape[-1]] = True
    starts = np.flatnonzero(change)
    of = flat[starts]
    inside = np.flatnonzero(of)
    kept = inside[np.argsort(of[inside], kind="stable")]
    numbers, first = np.unique(of[kept], return_index=True)
    return PixelRows(labels.shape, starts, kept, first, numbers.astype(np.uint64))


def block_sums(
    rows: PixelRows,
    start: Sequence[int],
    layout: Layout,
    *,
    classes: NDArray[np.integer] | None = None,
    certain: NDArray[Any] | None = None,
    channels: Iterable[tuple[int, NDArray[Any]]] = (),
) -> Rows:
    """Return what is seen of each object of a block.

    Parameters
    ----------
    rows : of the block, in which there is an object
    start : of the block in the label image
    layout : what is added up
    classes : of the pixels
    certain : (classes but background, *block), stored probabilities
    channels : of the source, each with its number
    """
    found = np.zeros(len(rows.labels), layout.record)
    found["label"] = rows.labels
    found["area"] = rows.merged(np.add, rows.lengths)
    _place(found, rows, start)
    if classes is not None:
        for number in range(layout.classes):
            found["per_class"][:, number] = rows.over(np.add, classes == number + 1, np.int64)
    if certain is not None:
        for number, values in enumerate(certain):
            found["certain"][:, number] = rows.over(np.add, values, found.dtype["certain"].base)
    for number, values in channels:
        _measure(found, rows, number, values, exact=layout.exact)
    return found


def _place(found: Rows, rows: PixelRows, start: Sequence[int]) -> None:
    """Say where objects lie."""
    lengths = rows.lengths
    places = np.unravel_index(rows.starts[rows.kept], rows.shape)
    last = len(places) - 1
    for axis, (place, begin) in enumerate(zip(places, start, strict=True)):
        at = place + begin
        along = lengths * (lengths - 1) // 2 if axis == last else 0
        found["places"][:, axis] = rows.merged(np.add, at * lengths + along)
        found["low"][:, axis] = rows.merged(np.minimum, at)
        found["high"][:, axis] = rows.merged(np.maximum, at + (lengths if axis == last else 1))


def _measure(found: Rows, rows: PixelRows, number: int, values: NDArray[Any], *, exact: bool) -> None:
    """Say what grey values objects have in one channel."""
    found["least"][:, number] = rows.over(np.minimum, values)
    found["most"][:, number] = rows.over(np.maximum, values)
    if exact:
        found["total"][:, number] = rows.over(np.add, values, np.int64)
        wide = values.astype(np.int32 if values.dtype.kind == "i" else np.uint32)
        found["square"][:, number] = rows.over(np.add, wide * wide, np.uint64)
    else:
        total = rows.over(np.add, values, np.float64)
        found["total"][:, number] = total
        found["spread"][:, number] = rows.spread(values, total / found["area"])
