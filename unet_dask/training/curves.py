"""The record of a training: one CSV line per validation, and a picture of it."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

from unet_dask.durable import write

if TYPE_CHECKING:
    from pathlib import Path

_COLUMNS = ("iteration", "loss", "pixel_error", "score", "seconds")


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """One line of the record; `loss` is the mean since the line before, the rest may be NaN."""

    iteration: int
    loss: float
    pixel_error: float
    score: float
    seconds: float


def read_curves(path: Path, *, until: int) -> list[CurvePoint]:
    """Return the points of a record up to an iteration; none if there is no record."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row.keys() >= set(_COLUMNS)]
    points = [CurvePoint(int(row["iteration"]), *(float(row[name]) for name in _COLUMNS[1:])) for row in rows]
    return [point for point in points if point.iteration <= until]


def write_curves(path: Path, points: list[CurvePoint]) -> None:
    """Write the whole record; it is short."""
    with io.StringIO(newline="") as text:
        writer = csv.writer(text)
        writer.writerow(_COLUMNS)
        writer.writerows([[getattr(point, name) for name in _COLUMNS] for point in points])
        write(path, [text.getvalue().encode()])


def draw_curves(path: Path, points: list[CurvePoint]) -> None:
    """Draw loss and validation over iterations as PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 5), layout="constrained")
    FigureCanvasAgg(figure)
    above, below = figure.subplots(2, 1, sharex=True)
    iterations = [point.iteration for point in points]
    above.plot(iterations, [point.loss for point in points], color="black")
    above.set_ylabel("training loss")
    below.plot(iterations, [point.score for point in points], label="score (mean IoU)", color="tab:blue")
    below.plot(iterations, [point.pixel_error for point in points], label="pixel error", color="tab:red")
    below.set_ylabel("held-out images")
    below.set_xlabel("iteration")
    below.set_ylim(0, 1)
    below.legend()
    figure.savefig(path, dpi=120, format="png")
