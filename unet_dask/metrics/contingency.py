"""How often every true label meets every found label: what all scores of objects and pairs are made of.

Only pairs that occur are kept, sorted, so the table of a plane has about as many rows as there are objects that
overlap, whatever the values of the labels are. Tables of disjoint parts of an image add up to the table of the
whole, which is how a stack larger than memory is scored.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from unet_dask.errors import DataError, GeometryError

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Labels below this are used as they are; two of them make one key of 62 bits.
_SMALL = 1 << 31
#: Pixels that are counted at once: their keys are sorted, and take several times the memory of the labels.
_BLOCK = 1 << 22


@dataclass(frozen=True, slots=True, eq=False)
class Contingency:
    """The pairs of labels that occur, sorted by true, then by found label.

    Attributes
    ----------
    truth : (n,) uint64, true label of each pair
    found : (n,) uint64, found label of each pair
    count : (n,) int64, pixels that have both, at least 1

    Examples
    --------
    >>> table = contingency(np.array([0, 1, 1, 1]), np.array([0, 0, 7, 7]))
    >>> table.truth.tolist(), table.found.tolist(), table.count.tolist()
    ([0, 1, 1], [0, 0, 7], [1, 1, 2])
    >>> (table + table).count.tolist()
    [2, 2, 4]
    """

    truth: NDArray[np.uint64]
    found: NDArray[np.uint64]
    count: NDArray[np.int64]

    @property
    def total(self) -> int:
        """Pixels counted."""
        return int(self.count.sum())

    def __add__(self, other: Contingency) -> Contingency:
        return _sum([self, other])

    def rows(self, keep: NDArray[np.bool_]) -> Contingency:
        """Return the table of some of its pairs, (n,) True for those."""
        return Contingency(self.truth[keep], self.found[keep], self.count[keep])

    def truth_sizes(self) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        """Return the true labels that occur, sorted, and the pixels of each."""
        return _sizes(self.truth, self.count)

    def found_sizes(self) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        """Return the found labels that occur, sorted, and the pixels of each."""
        return _sizes(self.found, self.count)


def contingency(
    truth: NDArray[np.integer] | NDArray[np.bool_],
    found: NDArray[np.integer] | NDArray[np.bool_],
    *,
    mask: NDArray[np.bool_] | None = None,
) -> Contingency:
    """Count the pairs of labels of two images.

    Parameters
    ----------
    truth : true label of every pixel, whole numbers from 0, of any shape
    found : found label of every pixel, likewise and of the same shape
    mask : True where pixels count; all by default

    Raises
    ------
    GeometryError
        If the shapes differ.
    DataError
        If a label is negative or no whole number.
    """
    if truth.shape != found.shape:
        raise GeometryError(
            f"The truth has the shape {truth.shape} and what was found {found.shape}. Both must be of one size."
        )
    parts = [
        _counted(
            truth.reshape(-1)[block],
            found.reshape(-1)[block],
            None if mask is None else mask.reshape(-1)[block],
        )
        for block in (slice(start, start + _BLOCK) for start in range(0, truth.size, _BLOCK))
    ]
    return parts[0] if len(parts) == 1 else _sum(parts)


def empty() -> Contingency:
    """Return the table of no pixels, to begin a sum with."""
    labels = np.zeros(0, np.uint64)
    return Contingency(labels, labels, np.zeros(0, np.int64))


def _counted(
    truth: NDArray[np.integer] | NDArray[np.bool_],
    found: NDArray[np.integer] | NDArray[np.bool_],
    mask: NDArray[np.bool_] | None,
) -> Contingency:
    """Return the table of a flat block."""
    kept = (truth, found) if mask is None else (truth[mask], found[mask])
    true_values, true_index = _indexed(kept[0])
    found_values, found_index = _indexed(kept[1])
    width = int(found_index.max(initial=0)) + 1
    keys, count = np.unique(true_index * width + found_index, return_counts=True)
    rows, columns = np.divmod(keys, width)
    return Contingency(
        rows.astype(np.uint64) if true_values is None else true_values[rows],
        columns.astype(np.uint64) if found_values is None else found_values[columns],
        count.astype(np.int64),
    )


def _sum(parts: list[Contingency]) -> Contingency:
    whole = [empty(), *parts]
    return _grouped(
        np.concatenate([each.truth for each in whole]),
        np.concatenate([each.found for each in whole]),
        np.concatenate([each.count for each in whole]),
    )


def _indexed(
    labels: NDArray[np.integer] | NDArray[np.bool_],
) -> tuple[NDArray[np.uint64] | None, NDArray[np.int64]]:
    """Return numbers below 2**31 for labels, in their order, and the label of each number if they differ."""
    if not np.isdtype(labels.dtype, ("bool", "integral")):
        raise DataError(f"Labels of type {labels.dtype} cannot be counted. Use whole numbers from 0.")
    flat = labels.ravel()
    if flat.size and flat.min() < 0:
        raise DataError(f"There is the negative label {flat.min()}. Use whole numbers from 0.")
    if not flat.size or flat.max() < _SMALL:
        return None, flat.astype(np.int64)
    values, index = np.unique(flat, return_inverse=True)
    return values.astype(np.uint64), index.astype(np.int64)


def _grouped(truth: NDArray[np.uint64], found: NDArray[np.uint64], count: NDArray[np.int64]) -> Contingency:
    """Add up equal pairs."""
    if not count.size:
        return Contingency(truth, found, count)
    order = np.lexsort((found, truth))
    truth, found, count = truth[order], found[order], count[order]
    first = np.ones(count.size, np.bool_)
    first[1:] = (truth[1:] != truth[:-1]) | (found[1:] != found[:-1])
    return Contingency(truth[first], found[first], np.add.reduceat(count, np.flatnonzero(first)))


def _sizes(
    labels: NDArray[np.uint64], count: NDArray[np.int64]
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    values, index = np.unique(labels, return_inverse=True)
    sizes = np.zeros(values.size, np.int64)
    np.add.at(sizes, index, count)
    return values, sizes
