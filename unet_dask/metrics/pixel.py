"""Scores that count pixels: pixel error and intersection over union, from one confusion matrix."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from unet_dask.metrics.ratio import Ratio

if TYPE_CHECKING:
    from numpy.typing import NDArray


def confusion(
    classes: NDArray[np.integer],
    truth: NDArray[np.integer],
    *,
    count: int,
    weight: NDArray[np.floating] | None = None,
) -> NDArray[np.float64]:
    """Count pixels by true and by found class.

    Parameters
    ----------
    classes : found class of every pixel, in [0, count)
    truth : true class of every pixel, in [0, count)
    count : number of classes
    weight : how much each pixel counts, 0 where the truth is unknown; default 1

    Returns
    -------
    (true class, found class) float64, exact for whole weights; matrices of several images may be added

    Examples
    --------
    >>> confusion(np.array([0, 1, 1]), np.array([0, 0, 1]), count=2)
    array([[1., 1.],
           [0., 1.]])
    """
    pair = truth.astype(np.int64).ravel() * count + classes.astype(np.int64).ravel()
    weights = None if weight is None else weight.ravel()
    return np.bincount(pair, weights, minlength=count * count).reshape(count, count).astype(np.float64)


def pixel_error(matrix: NDArray[np.number]) -> float:
    """Return the share of wrong pixels; NaN if none was counted.

    Examples
    --------
    >>> pixel_error(np.array([[2, 1], [0, 1]]))
    0.25
    """
    total = float(matrix.sum())
    return (total - float(np.trace(matrix))) / total if total else float("nan")


def wrong_pixels(
    found: NDArray[np.bool_], truth: NDArray[np.bool_], *, known: NDArray[np.bool_] | None = None
) -> Ratio:
    """Return pixels that two masks disagree on, over all: the pixel error of the challenge of 2012.

    For binary maps, their squared Euclidean distance per pixel (Arganda-Carreras et al. 2015, Front. Neuroanat.
    9:142) is just that.

    Parameters
    ----------
    found, truth : of one shape
    known : of the same shape, True where pixels count; all by default

    Examples
    --------
    >>> wrong_pixels(np.array([True, True, False]), np.array([True, False, False]))
    Ratio(above=1, below=3)
    """
    wrong = found != truth
    if known is None:
        return Ratio(int(np.count_nonzero(wrong)), wrong.size)
    return Ratio(int(np.count_nonzero(wrong & known)), int(np.count_nonzero(known)))


def iou(matrix: NDArray[np.number]) -> tuple[float, ...]:
    """Return intersection over union per class; NaN for a class neither true nor found.

    Examples
    --------
    >>> iou(np.array([[2, 1], [0, 1]]))
    (0.6666666666666666, 0.5)
    """
    both = np.diagonal(matrix)
    either = matrix.sum(axis=0) + matrix.sum(axis=1) - both
    return tuple(
        float(hit) / float(union) if union else float("nan") for hit, union in zip(both, either, strict=True)
    )


def mean_iou(matrix: NDArray[np.number]) -> float:
    """Return the mean intersection over union of the classes that occur; NaN if none does.

    Examples
    --------
    >>> mean_iou(np.array([[2, 0, 0], [0, 2, 0], [0, 0, 0]]))
    1.0
    """
    occurring = [value for value in iou(matrix) if not np.isnan(value)]
    return float(np.mean(occurring)) if occurring else float("nan")
