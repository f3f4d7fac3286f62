"""What an evaluation came to: scores pooled over planes, their curves, and what each plane scored."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from unet_dask.metrics.objects import OVERLAPS
from unet_dask.metrics.ratio import Ratio
from unet_dask.metrics.scores import MIDDLE, SCORES, Over

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


@dataclass(frozen=True, slots=True)
class Score:
    """One score of a stack.

    Attributes
    ----------
    name : short, as in --metrics
    title : for people
    low : whether lower is better
    value : pooled over the planes; at the best threshold, at an overlap of 0.5, or the only one
    level : that threshold or overlap; None if there is none
    mean : mean of `planes`
    planes : per plane, at the same level; NaN where there was nothing to score
    over : what `levels` are
    levels : all thresholds or overlaps
    curve : pooled over the planes, per level
    """

    name: str
    title: str
    low: bool
    value: float
    level: float | None
    mean: float
    planes: tuple[float, ...]
    over: Over
    levels: tuple[float, ...]
    curve: tuple[float, ...]

    @property
    def mean_of_levels(self) -> float:
        """The mean of the curve, as in "F1 over the overlaps from 0.5 to 0.95"."""
        return _mean(self.curve)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The scores of a prediction.

    Attributes
    ----------
    prediction, truth : what was read
    kind : what the prediction holds: "probabilities", "classes" or "instances"
    truth_kind : what the truth was taken for: "foreground" or "instances"
    foreground : what of the prediction is foreground
    planes : names of the planes
    scores : in the order of :data:`SCORES`
    notes : how files were paired, and what contradicts itself, for people
    """

    prediction: str
    truth: str
    kind: str
    truth_kind: str
    foreground: str
    planes: tuple[str, ...]
    scores: tuple[Score, ...]
    notes: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> Score:
        return next(score for score in self.scores if score.name == name)

    def to_record(self) -> dict[str, Any]:
        """Return the same for programs: plain JSON, None for what is not a number."""
        scores = {score.name: asdict(score) for score in self.scores}
        for score in self.scores:
            del scores[score.name]["name"]
            if score.over is Over.OVERLAP:
                scores[score.name]["mean_of_levels"] = score.mean_of_levels
        record = {known.name: getattr(self, known.name) for known in fields(self)} | {"scores": scores}
        return {name: _plain(value) for name, value in record.items()}

    def rows(self) -> Iterator[tuple[str, str, str, str, str]]:
        """Yield title, pooled value, where it was taken, and mean and range of the planes, of every score."""
        for score in self.scores:
            known = [value for value in score.planes if not math.isnan(value)]
            spread = f"{_number(min(known))} to {_number(max(known))}" if len(known) > 1 else ""
            level = f"{score.over} {score.level:g}" if score.level is not None else ""
            yield score.title, _number(score.value), level, _number(score.mean), spread
            if score.over is Over.OVERLAP:
                least, most = min(score.levels), max(score.levels)
                yield "", _number(score.mean_of_levels), f"mean of {least:g} to {most:g}", "", ""

    def lines(self) -> Iterator[str]:
        """Yield a table for people."""
        count = f"{len(self.planes)} plane{'s' * (len(self.planes) > 1)}"
        yield f"{'prediction':>18}  {self.prediction}: {self.kind}; foreground is {self.foreground}"
        yield f"{'truth':>18}  {self.truth}: {self.truth_kind}, {count}"
        yield f"{'':>18}  {'pooled':<10}{'at':<20}{'planes':<10}range"
        for title, value, level, mean, spread in self.rows():
            yield f"{title:>18}  {value:<10}{level:<20}{mean:<10}{spread}".rstrip()


def summarise(
    planes: Sequence[dict[str, tuple[Ratio, ...]]], thresholds: tuple[float, ...]
) -> tuple[Score, ...]:
    """Pool the ratios of all planes, then choose the best threshold of each score.

    Parameters
    ----------
    planes : per plane, the ratios of every score, at least one plane
    thresholds : of the map; more than one makes a curve

    Examples
    --------
    >>> planes = [{"pixel": (Ratio(1, 4), Ratio(0, 4))}, {"pixel": (Ratio(2, 4), Ratio(1, 4))}]
    >>> (score,) = summarise(planes, (0.4, 0.5))
    >>> score.value, score.level, score.planes
    (0.125, 0.5, (0.0, 0.25))
    """
    scores = []
    for name, metric in SCORES.items():
        if name not in planes[0]:
            continue
        pooled = tuple(
            sum(level, Ratio(0, 0)).value for level in zip(*(each[name] for each in planes), strict=True)
        )
        levels = {Over.THRESHOLD: thresholds, Over.OVERLAP: OVERLAPS, Over.NOTHING: ()}[metric.over]
        if len(levels) != len(pooled):
            levels = ()  # labels have no threshold
        best = _best(pooled, levels, low=metric.low) if metric.over is Over.THRESHOLD and levels else 0
        each_plane = tuple(plane[name][best].value for plane in planes)
        scores.append(
            Score(
                name=name,
                title=metric.title,
                low=metric.low,
                value=pooled[best],
                level=levels[best] if levels else None,
                mean=_mean(each_plane),
                planes=each_plane,
                over=metric.over if levels else Over.NOTHING,
                levels=levels,
                curve=pooled if levels else (),
            )
        )
    return tuple(scores)


def _best(curve: tuple[float, ...], levels: tuple[float, ...], *, low: bool) -> int:
    """Return where a curve is best; of equals, the threshold nearest to one half."""

    def worth(index: int) -> tuple[float, float]:
        value = curve[index]
        return (math.inf if math.isnan(value) else value if low else -value, abs(levels[index] - MIDDLE))

    return min(range(len(curve)), key=worth)


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return math.fsum(known) / len(known) if known else math.nan


def _number(value: float) -> str:
    """Write a score with four digits that count, as the challenge's tables do for small errors."""
    if math.isnan(value):
        return "-"
    return f"{value:.6f}" if abs(value) < 0.001 and value else f"{value:.4f}"


def _plain(value: object) -> object:
    """Return a value as plain JSON."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return None if isinstance(value, float) and math.isnan(value) else value
