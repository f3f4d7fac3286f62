"""All scores of one plane: what each is called, how it is read, and how it is computed from the parts below.

A prediction is either a *map*, a value in [0, 1] per pixel that is cut at thresholds, or *labels*. Every score comes
out as ratios, one per threshold, so that planes can be pooled before the best threshold is chosen, as the challenge
of 2012 does: one threshold for the whole stack.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from unet_dask.metrics import objects, rand
from unet_dask.metrics.components import components, thinned
from unet_dask.metrics.contingency import contingency
from unet_dask.metrics.objects import OVERLAPS
from unet_dask.metrics.pixel import wrong_pixels
from unet_dask.metrics.ratio import Ratio
from unet_dask.metrics.warping import warp

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from numpy.typing import NDArray

    from unet_dask.metrics.contingency import Contingency

#: The threshold at which a map becomes objects.
MIDDLE = 0.5


@dataclass(frozen=True, slots=True)
class Metric:
    """What a score is.

    Attributes
    ----------
    title : for people
    low : whether lower is better
    over : what its values are taken over: thresholds of the map, overlaps of objects, or nothing
    part_of : the metric that is asked for to get it, where that is another one
    """

    title: str
    low: bool = False
    over: Literal["threshold", "overlap", "nothing"] = "nothing"
    part_of: str = ""


#: Every score, in the order in which they are shown.
SCORES: Mapping[str, Metric] = {
    "pixel": Metric("pixel error", low=True, over="threshold"),
    "rand": Metric("Rand error", low=True, over="threshold"),
    "warping": Metric("warping error", low=True, over="threshold"),
    "vrand": Metric("V_rand", over="threshold"),
    "vinfo": Metric("V_info", over="threshold"),
    "iou": Metric("foreground IoU"),
    "dice": Metric("foreground Dice"),
    "seg": Metric("SEG"),
    "f1": Metric("object F1", over="overlap"),
    "precision": Metric("object precision", over="overlap", part_of="f1"),
    "recall": Metric("object recall", over="overlap", part_of="f1"),
    "ap": Metric("object AP", over="overlap", part_of="f1"),
}
#: What can be asked for.
METRICS = tuple(name for name, metric in SCORES.items() if not metric.part_of)
#: What a map alone can be scored by: labels can touch, and then no background is between them to warp.
ONLY_MAPS = frozenset({"warping"})


@dataclass(frozen=True, slots=True, eq=False)
class Truth:
    """The truth of a plane.

    Attributes
    ----------
    labels : (y, x), objects, 0 is background
    known : (y, x), False where nothing is scored; None if all is known
    """

    labels: NDArray[np.integer]
    known: NDArray[np.bool_] | None = None

    @property
    def foreground(self) -> NDArray[np.bool_]:
        """(y, x), where there is an object."""
        return self.labels > 0


def score_map(
    values: NDArray[np.floating],
    truth: Truth,
    metrics: Collection[str],
    *,
    thresholds: tuple[float, ...],
) -> dict[str, tuple[Ratio, ...]]:
    """Score a map, at every threshold or at one half.

    Parameters
    ----------
    values : (y, x) in [0, 1], how much a pixel is foreground; it is where the value exceeds the threshold
    truth : of the plane
    metrics : of :data:`METRICS`
    thresholds : at which to cut it

    Returns
    -------
    per score, one ratio per threshold, per overlap, or a single one

    Examples
    --------
    >>> truth = Truth(np.array([[1, 1, 0, 2]]))
    >>> score_map(np.array([[0.9, 0.6, 0.2, 0.9]]), truth, ["pixel"], thresholds=(0.5, 0.7))
    {'pixel': (Ratio(above=0, below=4), Ratio(above=1, below=4))}
    """
    swept = [name for name in metrics if SCORES[name].over == "threshold"]
    found: dict[str, list[Ratio]] = {name: [] for name in swept}
    for threshold in thresholds if swept else ():
        for name, ratio in _at(values > threshold, truth, swept).items():
            found[name].append(ratio)
    scores = {name: tuple(each) for name, each in found.items()}
    if set(metrics) - set(swept):
        scores |= _object_scores(_table(truth, components(values > MIDDLE)), metrics)
    return scores


def score_labels(
    labels: NDArray[np.integer], truth: Truth, metrics: Collection[str]
) -> dict[str, tuple[Ratio, ...]]:
    """Score labels as they are; V_rand and V_info too, since labels have no border to be thinned.

    Parameters
    ----------
    labels : (y, x), objects, 0 is background
    truth : of the plane
    metrics : of :data:`METRICS` without those of :data:`ONLY_MAPS`

    Examples
    --------
    >>> truth = Truth(np.array([[1, 1, 0, 2]]))
    >>> score_labels(np.array([[7, 7, 0, 9]]), truth, ["seg", "rand"])
    {'rand': (Ratio(above=0.0, below=10.0),), 'seg': (Ratio(above=2.0, below=2),)}
    """
    table = _table(truth, labels)
    scores = {}
    if "pixel" in metrics:
        scores["pixel"] = (wrong_pixels(labels > 0, truth.foreground, known=truth.known),)
    scores |= {name: (pick(table),) for name, pick in _OF_TABLE.items() if name in metrics}
    return scores | _object_scores(table, metrics)


#: Scores of a labelling that a threshold gives.
_OF_TABLE: dict[str, Callable[[Contingency], Ratio]] = {
    "rand": lambda table: rand.rand_agreement(table).f_score.complement,
    "vrand": lambda table: rand.rand_agreement(table).f_score,
    "vinfo": lambda table: rand.information_agreement(table).f_score,
}


def _at(foreground: NDArray[np.bool_], truth: Truth, metrics: Collection[str]) -> dict[str, Ratio]:
    """Return the scores of a map that was cut."""
    scores = {}
    if "pixel" in metrics:
        scores["pixel"] = wrong_pixels(foreground, truth.foreground, known=truth.known)
    if "rand" in metrics:
        scores["rand"] = _OF_TABLE["rand"](_table(truth, components(foreground)))
    if "warping" in metrics:
        scores["warping"] = _warping(foreground, truth)
    if {"vrand", "vinfo"} & set(metrics):
        table = _table(truth, components(thinned(foreground)))
        scores |= {name: _OF_TABLE[name](table) for name in ("vrand", "vinfo") if name in metrics}
    return scores


def _warping(foreground: NDArray[np.bool_], truth: Truth) -> Ratio:
    """Warp the truth; unknown pixels count as right and stay as they are."""
    if truth.known is None:
        return Ratio(warp(truth.foreground, foreground).remaining, foreground.size)
    found = np.where(truth.known, foreground, truth.foreground)
    return Ratio(warp(truth.foreground, found).remaining, int(np.count_nonzero(truth.known)))


def _table(truth: Truth, labels: NDArray[np.integer]) -> Contingency:
    return contingency(truth.labels, labels, mask=truth.known)


def _object_scores(table: Contingency, metrics: Collection[str]) -> dict[str, tuple[Ratio, ...]]:
    scores: dict[str, tuple[Ratio, ...]] = {}
    if "iou" in metrics:
        scores["iou"] = (objects.foreground_iou(table),)
    if "dice" in metrics:
        scores["dice"] = (objects.dice(table),)
    if "seg" in metrics:
        scores["seg"] = (objects.seg(table),)
    if "f1" in metrics:
        matches = objects.match(table, OVERLAPS)
        scores["f1"] = tuple(each.f1 for each in matches)
        scores["precision"] = tuple(each.precision for each in matches)
        scores["recall"] = tuple(each.recall for each in matches)
        scores["ap"] = tuple(each.average_precision for each in matches)
    return scores
