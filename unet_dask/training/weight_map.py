r"""The weight map of the paper, equation 2.

.. math:: w(x) = w_c(x) + w_0 \exp\left(-\frac{(d_1(x) + d_2(x))^2}{2 \sigma^2}\right)

:math:`d_1, d_2` are the Euclidean distances in pixels, centre to centre, from a background pixel to the
nearest pixel of the nearest and of the second nearest cell, which is a pixel of that cell's border. On
cells the second term is 0, as in the paper's Fig. 3d: it forces the network to learn the *background*
between cells. With fewer than two cells it is 0 everywhere.

The obvious way, one distance transform per cell, takes longer with every cell. Here each pixel keeps its
two nearest *different* cells, found one axis after the other: within a line the order of candidates is
unchanged by the constant that the other axis adds, so the two best of each line are all that can ever
matter, and the result is exact. Each axis takes as many steps as the term has reach, about 30 pixels for
sigma = 5, however many cells there are.

References
----------
.. [1] Ronneberger, Fischer, Brox: "U-Net", MICCAI 2015, section 3, eq. 2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from unet_dask.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from unet_dask.tiling.box import Window

#: The second term is cut off where it falls below this.
NEGLIGIBLE = 1e-7


def separation_term(
    cells: NDArray[np.integer], *, w0: float = 10.0, sigma: float = 5.0, inside: Window | None = None
) -> NDArray[np.float32]:
    """Return the second term of eq. 2 [1]_.

    Parameters
    ----------
    cells : (*spatial), 0 is background and every cell has a number of its own
    w0 : height of the term, 10 in [1]_
    sigma : its width in pixels, 5 in [1]_
    inside : box to return; None for all. What lies around it is looked at and costs little

    Returns
    -------
    (*inside) float32 in [0, w0], 0 on cells

    References
    ----------
    .. [1] Ronneberger et al., "U-Net", MICCAI 2015, section 3.

    Examples
    --------
    >>> separation_term(np.array([[1, 0, 2]])).round(2)
    array([[0.  , 9.23, 0.  ]], dtype=float32)
    """
    here = cells if inside is None else cells[inside]
    if w0 <= NEGLIGIBLE or here.size == 0:
        return np.zeros(here.shape, dtype=np.float32)
    first, second = nearest_two(cells, reach=reach(w0, sigma), inside=inside)
    term = w0 * np.exp(-np.square(first + second) / (2 * sigma * sigma))
    return np.where((here == 0) & np.isfinite(second), term, 0).astype(np.float32)


def reach(w0: float, sigma: float) -> int:
    """Return how far away, in pixels, a cell can matter for the second term.

    Examples
    --------
    >>> reach(10.0, 5.0)
    31
    """
    return math.ceil(sigma * math.sqrt(2 * math.log(w0 / NEGLIGIBLE))) if w0 > NEGLIGIBLE else 0


def nearest_two(
    cells: NDArray[np.integer], *, reach: int, inside: Window | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the distances to the nearest and to the second nearest cell.

    Parameters
    ----------
    cells : (*spatial), 0 is background
    reach : pixels; a cell further away along some axis is not seen
    inside : box to return; None for all

    Returns
    -------
    two arrays of (*inside), in pixels, infinite where no cell was seen

    Examples
    --------
    >>> nearest_two(np.array([[1, 0, 0, 2]]), reach=9)[1]
    array([[3., 2., 2., 3.]])
    """
    packing = _Packing.of(cells, reach)
    nearest = packing.pack(cells)
    second = np.full_like(nearest, packing.nothing)
    for axis, side in enumerate(cells.shape):
        # Once an axis is done, its surroundings have said what they had to say.
        span = slice(0, side) if inside is None else inside[axis]
        nearest, second = _along(packing, (nearest, second), axis, min(reach, side - 1), span)
    return packing.distance(nearest), packing.distance(second)


@dataclass(frozen=True, slots=True)
class _Packing:
    """A squared distance and the number of a cell in one whole number, so that the lesser is the nearer.

    Attributes
    ----------
    dtype : unsigned, as small as both fit: the work is bound by memory
    bits : of the number of a cell, the low ones
    nothing : no cell was seen; a multiple of ``1 << bits``, to which squares can be added without overflow
    """

    dtype: np.dtype[np.unsignedinteger]
    bits: int
    nothing: int

    @classmethod
    def of(cls, cells: NDArray[np.integer], reach: int) -> _Packing:
        """Return how distances of up to `reach` along each axis are packed with the numbers of these cells."""
        bits = int(cells.max(initial=0)).bit_length()
        farthest = cells.ndim * reach * reach
        nothing = (farthest + 1) << bits
        most = nothing + (farthest << bits)
        return cls(np.dtype(np.uint32 if most < 1 << 32 else np.uint64), bits, nothing)

    def pack(self, cells: NDArray[np.integer]) -> NDArray[np.unsignedinteger]:
        """Return distance 0 on every cell, and nothing elsewhere."""
        found: NDArray[np.unsignedinteger] = np.where(
            cells > 0, cells.astype(self.dtype), self.dtype.type(self.nothing)
        )
        return found

    def distance(self, packed: NDArray[np.unsignedinteger]) -> NDArray[np.float64]:
        """Return distances in pixels, infinite where nothing was seen."""
        squared = (packed >> self.dtype.type(self.bits)).astype(np.float64)
        return np.sqrt(np.where(packed < self.nothing, squared, np.inf))


#: Bytes of one array that is worked on at a time: the four of a block stay in a core's cache.
_BLOCK = 1 << 18

_Two = tuple["NDArray[np.unsignedinteger]", "NDArray[np.unsignedinteger]"]


def _along(packing: _Packing, best: _Two, axis: int, reach: int, span: slice) -> _Two:
    """Offer every pixel of a span of one axis the candidates of its neighbours along it.

    Lines along the axis know nothing of each other, so they are done a block at a time.
    """
    others = best[0].shape[:axis] + best[0].shape[axis + 1 :]
    nearest, second = (np.moveaxis(each, axis, 0).reshape(each.shape[axis], -1) for each in best)
    merged = nearest[span].copy(), second[span].copy()
    size, count = nearest.shape
    width = max(_BLOCK // (size * packing.dtype.itemsize), 1)
    for first in range(0, count, width):
        part = (slice(None), slice(first, first + width))
        own = np.ascontiguousarray(merged[0][part]), np.ascontiguousarray(merged[1][part])
        theirs = np.ascontiguousarray(nearest[part]), np.ascontiguousarray(second[part])
        _offer_all(packing, own, theirs, reach, span)
        merged[0][part], merged[1][part] = own
    return (
        np.moveaxis(merged[0].reshape(-1, *others), 0, axis),
        np.moveaxis(merged[1].reshape(-1, *others), 0, axis),
    )


def _offer_all(packing: _Packing, own: _Two, theirs: _Two, reach: int, span: slice) -> None:
    """Offer every line of `own`, a span of `theirs`, what lies before and after it, in place."""
    nearest, second = own
    size = len(theirs[0])
    cell = packing.dtype.type((1 << packing.bits) - 1)
    for step in range(1, reach + 1):
        further = packing.dtype.type((step * step) << packing.bits)
        for shift in (step, -step):
            first, last = max(span.start, -shift), min(span.stop, size - shift)
            if first >= last:
                continue
            here, there = slice(first - span.start, last - span.start), slice(first + shift, last + shift)
            for offered in theirs:
                candidate = offered[there] + further
                # The farther of the two may be the second nearest, unless it is the same cell as the nearer.
                other = np.maximum(nearest[here], candidate)
                same = ((nearest[here] ^ candidate) & cell) == 0
                np.minimum(nearest[here], candidate, out=nearest[here])
                np.putmask(other, same, packing.dtype.type(packing.nothing))
                np.minimum(second[here], other, out=second[here])


def class_weights(counts: Sequence[int], *, balance: float = 1.0) -> NDArray[np.float32]:
    """Return the weight of each class that balances their frequencies, ``w_c`` of eq. 2.

    ``(N / (K n))**balance``, so that with `balance` = 1 the weighted mean over all pixels is 1 and w0
    keeps its meaning. A class that never occurs has weight 0.

    Parameters
    ----------
    counts : annotated pixels of each class, over all training images
    balance : 1 for the inverse frequency, 0 for none

    Raises
    ------
    InputError
        If no pixel is annotated.

    Examples
    --------
    >>> class_weights([300, 100])
    array([0.6666667, 2.       ], dtype=float32)
    """
    occurring = np.asarray(counts, dtype=np.float64)
    if not occurring.sum():
        raise InputError("The targets have no annotated pixel, so there is nothing to learn from.")
    present = occurring > 0
    frequency = np.where(present, occurring, 1) * np.count_nonzero(present) / occurring.sum()
    return np.where(present, frequency**-balance, 0).astype(np.float32)


def weight_map(
    target: NDArray[np.integer],
    cells: NDArray[np.integer],
    *,
    class_weight: NDArray[np.float32],
    known: NDArray[np.bool_] | None = None,
    w0: float = 10.0,
    sigma: float = 5.0,
    inside: Window | None = None,
) -> NDArray[np.float32]:
    """Return the weight of every pixel in the loss.

    Parameters
    ----------
    target : (*spatial) class of every pixel
    cells : (*spatial) number of the cell that every pixel belongs to, 0 for background
    class_weight : (classes,) w_c, see :func:`class_weights`
    known : (*spatial), False where nobody annotated: weight 0 (R6)
    w0, sigma : of the separation term
    inside : box to return; None for all

    Returns
    -------
    (*inside) float32, not negative
    """
    box = (slice(None),) * cells.ndim if inside is None else inside
    weights = class_weight[target[box]] + separation_term(cells, w0=w0, sigma=sigma, inside=inside)
    return weights if known is None else np.where(known[box], weights, np.float32(0))
