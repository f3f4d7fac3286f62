"""All scores of one plane: what each is called, how it is read, and how it is computed from the parts below.

A prediction is either a *map*, a value in [0, 1] per pixel that is cut at thresholds, or *labels*. Every score comes
out as ratios, one per threshold, so that planes can be pooled before the best threshold is chosen, as the challenge
of 2012 does: one threshold for the whole stack.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np

from unet_dask.components import labelled
from unet_dask.metrics import objects, rand
from unet_dask.metrics.contingency import contingency
from unet_dask.metrics.objects import OVERLAPS
from unet_dask.metrics.pixel import wrong_pixels
from unet_dask.metrics.ratio import Ratio
from unet_dask.metrics.thinning import thinned
from unet_dask.metrics.warping import warp

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from numpy.typing import NDArray

    from unet_dask.metrics.contingency import Contingency

#: The threshold at which a map becomes objects.
MIDDLE = 0.5


class Over(StrEnum):
    """What the values of a score are taken over."""

    THRESHOLD = "threshold"  # of the map
    OVERLAP = "overlap"  # of objects
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class Metric:
    """What a score is.

    Attributes
    ----------
    title : for people
    low : whether lower is better
    over : what its values are taken over
    part_of : the metric that is asked for to get it, where that is another one
    """

    title: str
    low: bool = False
    over: Over = Over.NOTHING
    part_of: str = ""


#: Every score, in the order in which they are shown.
SCORES: Mapping[str, Metric] = {
    "pixel": Metric("pixel error", low=True, over=Over.THRESHOLD),
    "rand": Metric("Rand error", low=True, over=Over.THRESHOLD),
    "warping": Metric("warping error", low=True, over=Over.THRESHOLD),
    "vrand": Metric("V_rand", over=Over.THRESHOLD),
    "vinfo": Metric("V_info", over=Over.THRESHOLD),
    "iou": Metric("foreground IoU"),
    "dice": Metric("foreground Dice"),
    "seg": Metric("SEG"),
    "f1": Metric("object F1", over=Over.OVERLAP),
    "precision": Metric("object precision", over=Over.OVERLAP, part_of="f1"),
    "recall": Metric("object recall", over=Over.OVERLAP, part_of="f1"),
    "ap": Metric("object AP", over=Over.OVERLAP, part_of="f1"),
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
    values: NDArray[np.floating], truth: Truth, metrics: Collection[str], *, thresholds: tuple[float, ...]
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
    swept = [name for name in metrics if SCORES[name].over is Over.THRESHOLD]
    found: dict[str, list[Ratio]] = {name: [] for name in swept}
    for threshold in thresholds if swept else ():
        for name, ratio in _at(values > threshold, truth, swept).items():
            found[name].append(ratio)
    scores = {name: tuple(each) for name, each in found.items()}
    if set(metrics) - set(swept):
        scores |= _object_scores(_table(truth, labelled(values > MIDDLE)), metrics)
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
    scores = {name: (score(labels > 0, truth),) for name, score in _OF_PIXELS.items() if name in metrics}
    scores |= {name: (score(table),) for name, score in _OF_TABLE.items() if name in metrics}
    return scores | _object_scores(table, metrics)


def _at(foreground: NDArray[np.bool_], truth: Truth, metrics: Collection[str]) -> dict[str, Ratio]:
    """Return the scores of a map that was cut."""
    scores = {name: score(foreground, truth) for name, score in _OF_MAP.items() if name in metrics}
    if _OF_THINNED.keys() & set(metrics):
        table = _table(truth, labelled(thinned(foreground)))
        scores |= {name: score(table) for name, score in _OF_THINNED.items() if name in metrics}
    return scores


def _pixels(foreground: NDArray[np.bool_], truth: Truth) -> Ratio:
    return wrong_pixels(foreground, truth.foreground, known=truth.known)


def _rand(table: Contingency) -> Ratio:
    return rand.rand_agreement(table).f_score.complement


def _warping(foreground: NDArray[np.bool_], truth: Truth) -> Ratio:
    """Warp the truth; unknown pixels count as right and stay as they are."""
    if truth.known is None:
        return Ratio(warp(truth.foreground, foreground).remaining, foreground.size)
    found = np.where(truth.known, foreground, truth.foreground)
    return Ratio(warp(truth.foreground, found).remaining, int(np.count_nonzero(truth.known)))


def _table(truth: Truth, labels: NDArray[np.integer]) -> Contingency:
    return contingency(truth.labels, labels, mask=truth.known)


def _object_scores(table: Contingency, metrics: Collection[str]) -> dict[str, tuple[Ratio, ...]]:
    scores: dict[str, tuple[Ratio, ...]]
    scores = {name: (score(table),) for name, score in _OF_OBJECTS.items() if name in metrics}
    if "f1" in metrics:
        matches = objects.match(table, OVERLAPS)
        scores["f1"] = tuple(match.f1 for match in matches)
        scores["precision"] = tuple(match.precision for match in matches)
        scores["recall"] = tuple(match.recall for match in matches)
        scores["ap"] = tuple(match.average_precision for match in matches)
    return scores


#: How each score is computed: of a foreground, a map that was cut, thinned components, a labelling, objects.
_OF_PIXELS: dict[str, Callable[[NDArray[np.bool_], Truth], Ratio]] = {"pixel": _pixels}
_OF_MAP = _OF_PIXELS | {
    "rand": lambda foreground, truth: _rand(_table(truth, labelled(foreground))),
    "warping": _warping,
}
_OF_THINNED: dict[str, Callable[[Contingency], Ratio]] = {
    "vrand": lambda table: rand.rand_agreement(table).f_score,
    "vinfo": lambda table: rand.information_agreement(table).f_score,
}
_OF_TABLE = {"rand": _rand} | _OF_THINNED
_OF_OBJECTS: dict[str, Callable[[Contingency], Ratio]] = {
    "iou": objects.foreground_iou,
    "dice": objects.dice,
    "seg": objects.seg,
}
