"""How well two segmentations agree on which pixels belong together: the Rand and the information F-score.

Both are restricted to the foreground of the truth [1]_: pixels whose true label is 0, such as membrane, are left
out. A pixel of the truth's foreground that was found to be background belongs to no object; it counts as an object
of its own. (Taken as one object, all wrong membrane would be one huge merger.)

Notation, over the n pixels of the truth's foreground: ``n_ij`` pixels have the true label i and the found label j,
``a_i`` and ``b_j`` are the sums over the other index, ``n_0`` pixels have the found label 0.

References
----------
.. [1] Arganda-Carreras et al., "Crowdsourcing the creation of image segmentation algorithms for connectomics",
   Front. Neuroanat. 9:142, 2015, https://doi.org/10.3389/fnana.2015.00142, "Evaluation metrics": V_rand, V_info.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from unet_dask.metrics.ratio import Ratio

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from unet_dask.metrics.contingency import Contingency


@dataclass(frozen=True, slots=True)
class Agreement:
    """What two segmentations share, and what each has; agreements of several planes may be added.

    Attributes
    ----------
    both : in both, such as the pairs of pixels that are together in both
    truth : in the truth
    found : in what was found
    """

    both: float
    truth: float
    found: float

    def __add__(self, other: Agreement) -> Agreement:
        return Agreement(self.both + other.both, self.truth + other.truth, self.found + other.found)

    @property
    def precision(self) -> float:
        """The share of what was found that is true: low where objects were merged; NaN if nothing was."""
        return Ratio(self.both, self.found).value

    @property
    def recall(self) -> float:
        """The share of what is true that was found: low where objects were split; NaN if nothing is."""
        return Ratio(self.both, self.truth).value

    @property
    def f_score(self) -> Ratio:
        """The harmonic mean of precision and recall, 2 both / (truth + found)."""
        return Ratio(2 * self.both, self.truth + self.found)


def rand_agreement(table: Contingency) -> Agreement:
    """Return the ordered pairs of foreground pixels that are together in truth, in what was found, in both.

    ``truth = sum a_i^2``, ``found = sum_{j>0} b_j^2 + n_0``, ``both = sum_{j>0} n_ij^2 + n_0`` [1]_: n^2 times the
    sums over probabilities, so that planes are pooled by their pairs, as true and false positives are. A pixel makes
    a pair with itself, so that one that stands alone is not nothing.

    Parameters
    ----------
    table : of true and found labels, 0 is no object; true 0 is left out

    Returns
    -------
    numbers of pairs, exact to the rounding of float64. The F-score is V_rand; without foreground it is NaN

    References
    ----------
    .. [1] see the module

    Examples
    --------
    Two objects of two pixels, found as one:

    >>> from unet_dask.metrics.contingency import contingency
    >>> rand_agreement(contingency(np.array([1, 1, 2, 2]), np.array([5, 5, 5, 5])))
    Agreement(both=8.0, truth=8.0, found=16.0)
    """
    inside = table.rows(table.truth > 0)
    alone = float(inside.count[inside.found == 0].sum())
    joined = inside.rows(inside.found > 0)
    return Agreement(
        both=_squares(joined.count) + alone,
        truth=_squares(inside.truth_sizes()[1]),
        found=_squares(joined.found_sizes()[1]) + alone,
    )


def information_agreement(table: Contingency) -> Agreement:
    """Return the information in both, in the truth, and in what was found, of one image.

    ``I(S; T)``, ``H(T)`` and ``H(S)`` of the labels T and S of a pixel drawn from the truth's foreground [1]_, with
    every pixel found as background an object of its own. The F-score, ``2 I / (H(S) + H(T))``, is V_info. Where
    neither segmentation says anything, a single object in both, all three are 0 and the score is not a number.

    Parameters
    ----------
    table : of true and found labels, 0 is no object; true 0 is left out

    Returns
    -------
    information in bits

    References
    ----------
    .. [1] see the module

    Examples
    --------
    >>> from unet_dask.metrics.contingency import contingency
    >>> information_agreement(contingency(np.array([1, 1, 2, 2]), np.array([3, 3, 5, 5])))
    Agreement(both=1.0, truth=1.0, found=1.0)
    """
    inside = table.rows(table.truth > 0)
    pixels = inside.total
    if not pixels:
        return Agreement(0.0, 0.0, 0.0)
    alone = float(inside.count[inside.found == 0].sum()) / pixels * float(np.log2(pixels))
    joined = inside.rows(inside.found > 0)
    truth = _entropy(inside.truth_sizes()[1], pixels)
    found = _entropy(joined.found_sizes()[1], pixels) + alone
    together = _entropy(joined.count, pixels) + alone
    return Agreement(both=max(truth + found - together, 0.0), truth=truth, found=found)


def _squares(count: NDArray[np.int64]) -> float:
    # int64 would overflow at an object of 3e9 pixels.
    return float(np.square(count.astype(np.float64)).sum())


def _entropy(count: NDArray[np.int64], pixels: int) -> float:
    """Return the part of the entropy, in bits, that comes from sets of so many pixels."""
    share = count / pixels
    return float(-(share * np.log2(share)).sum()) + 0.0
