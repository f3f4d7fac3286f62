"""Scores of objects, from a contingency table: SEG, matching at overlap thresholds, Dice and overlap of foreground.

Label 0 is no object. Tables of regions can be added before they are scored, so that objects which several regions
share are counted once and whole; scores of separate planes are added after.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from unet_dask.errors import OptionError
from unet_dask.metrics.ratio import Ratio

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from unet_dask.metrics.contingency import Contingency

#: Overlaps above which a found object counts, of the COCO data set and the Data Science Bowl of 2018.
OVERLAPS = tuple(percent / 100 for percent in range(50, 100, 5))


@dataclass(frozen=True, slots=True)
class Matches:
    """How many objects were found, missed and invented, per overlap threshold; may be added.

    Attributes
    ----------
    hits : true objects that were found
    missed : true objects that were not
    invented : found objects that are none
    """

    hits: int
    missed: int
    invented: int

    def __add__(self, other: Matches) -> Matches:
        return Matches(self.hits + other.hits, self.missed + other.missed, self.invented + other.invented)

    @property
    def precision(self) -> Ratio:
        """The share of found objects that are true."""
        return Ratio(self.hits, self.hits + self.invented)

    @property
    def recall(self) -> Ratio:
        """The share of true objects that were found."""
        return Ratio(self.hits, self.hits + self.missed)

    @property
    def f1(self) -> Ratio:
        """The harmonic mean of precision and recall, 2 TP / (2 TP + FP + FN)."""
        return Ratio(2 * self.hits, 2 * self.hits + self.invented + self.missed)

    @property
    def average_precision(self) -> Ratio:
        """TP / (TP + FP + FN), as the Data Science Bowl of 2018 defines it [1]_.

        References
        ----------
        .. [1] Caicedo et al., "Nucleus segmentation across imaging experiments: the 2018 Data Science Bowl",
           Nature Methods 16, 2019.
        """
        return Ratio(self.hits, self.hits + self.invented + self.missed)


@dataclass(frozen=True, slots=True, eq=False)
class _Pairs:
    """Overlapping objects: pixels of the true one, of the found one, of both; and how many objects there are."""

    true_size: NDArray[np.int64]
    found_size: NDArray[np.int64]
    both: NDArray[np.int64]
    true_count: int
    found_count: int

    @property
    def iou(self) -> NDArray[np.float64]:
        return self.both / (self.true_size + self.found_size - self.both)


def seg(table: Contingency) -> Ratio:
    """Return the SEG measure of the cell tracking challenge.

    A true object R is matched by the found object S that covers more than half of it, ``|R and S| > |R| / 2``;
    there is at most one. It scores their Jaccard index, ``|R and S| / |R or S|``, or 0 without a match. SEG is the
    mean over all true objects [1]_; objects that were invented do not count.

    Parameters
    ----------
    table : of true and found labels, background included: sizes are sums over it

    Returns
    -------
    sum of the scores over number of true objects

    References
    ----------
    .. [1] Maska et al., "A benchmark for comparison of cell tracking algorithms", Bioinformatics 30, 2014,
       https://doi.org/10.1093/bioinformatics/btu080, section 2.3.

    Examples
    --------
    >>> from unet_dask.metrics.contingency import contingency
    >>> seg(contingency(np.array([1, 1, 1, 0, 2, 2]), np.array([4, 4, 4, 4, 7, 0])))
    Ratio(above=0.75, below=2)
    """
    pairs = _overlapping(table)
    matched = 2 * pairs.both > pairs.true_size
    return Ratio(float(pairs.iou[matched].sum()), pairs.true_count)


def match(table: Contingency, overlaps: Sequence[float] = OVERLAPS) -> tuple[Matches, ...]:
    """Match true and found objects whose intersection over union exceeds a threshold.

    Above one half a match is unique on both sides, so no assignment has to be solved. The comparison is strict
    for that reason.

    Parameters
    ----------
    table : of true and found labels, background included
    overlaps : thresholds of intersection over union, in [0.5, 1)

    Returns
    -------
    one entry per threshold

    Raises
    ------
    OptionError
        If a threshold is out of range.

    Examples
    --------
    >>> from unet_dask.metrics.contingency import contingency
    >>> match(contingency(np.array([1, 1, 1, 0, 2, 2]), np.array([4, 4, 4, 4, 7, 0])), [0.5, 0.8])
    (Matches(hits=1, missed=1, invented=1), Matches(hits=0, missed=2, invented=2))
    """
    outside = [overlap for overlap in overlaps if not 0.5 <= overlap < 1]
    if outside:
        raise OptionError(
            f"Objects cannot be matched above an overlap of {outside[0]:g}: below 0.5 matches are not unique, and "
            "nothing exceeds 1. Use thresholds from 0.5 to 0.95."
        )
    pairs = _overlapping(table)
    hits = [int(np.count_nonzero(pairs.iou > overlap)) for overlap in overlaps]
    return tuple(Matches(hit, pairs.true_count - hit, pairs.found_count - hit) for hit in hits)


def foreground_iou(table: Contingency) -> Ratio:
    """Return intersection over union of all that is not background.

    Examples
    --------
    >>> from unet_dask.metrics.contingency import contingency
    >>> foreground_iou(contingency(np.array([0, 1, 2, 2]), np.array([1, 1, 1, 0])))
    Ratio(above=2, below=4)
    """
    true, found, both = _foreground(table)
    return Ratio(both, true + found - both)


def dice(table: Contingency) -> Ratio:
    """Return the Dice coefficient, 2 |T and F| / (|T| + |F|), of all that is not background.

    Examples
    --------
    >>> from unet_dask.metrics.contingency import contingency
    >>> dice(contingency(np.array([0, 1, 2, 2]), np.array([1, 1, 1, 0])))
    Ratio(above=4, below=6)
    """
    true, found, both = _foreground(table)
    return Ratio(2 * both, true + found)


def _foreground(table: Contingency) -> tuple[int, int, int]:
    """Return pixels that are foreground in the truth, in what was found, in both."""
    true, found = table.truth > 0, table.found > 0
    return int(table.count[true].sum()), int(table.count[found].sum()), int(table.count[true & found].sum())


def _overlapping(table: Contingency) -> _Pairs:
    true_labels, true_sizes = table.truth_sizes()
    found_labels, found_sizes = table.found_sizes()
    both = table.rows((table.truth > 0) & (table.found > 0))
    true_index = np.searchsorted(true_labels, both.truth)
    found_index = np.searchsorted(found_labels, both.found)
    return _Pairs(
        true_size=true_sizes[true_index],
        found_size=found_sizes[found_index],
        both=both.count,
        true_count=int(np.count_nonzero(true_labels)),
        found_count=int(np.count_nonzero(found_labels)),
    )
