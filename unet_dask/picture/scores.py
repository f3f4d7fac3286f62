"""The picture of an evaluation: every score against its threshold, objects against their overlap."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unet_dask.errors import OptionError, SinkError
from unet_dask.metrics.scores import Over
from unet_dask.paths import local_path

if TYPE_CHECKING:
    import os

    from matplotlib.axes import Axes

    from unet_dask.evaluation.result import Evaluation, Score

#: Panels side by side.
_COLUMNS = 3


def draw_scores(path: str | os.PathLike[str], evaluation: Evaluation) -> None:
    """Draw the curves of an evaluation as PNG, a panel per score, for their scales differ by orders of magnitude.

    Raises
    ------
    OptionError
        If no score has a curve.
    SinkError
        If the picture cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    swept = [score for score in evaluation.scores if score.over is Over.THRESHOLD]
    matched = [score for score in evaluation.scores if score.over is Over.OVERLAP]
    count = len(swept) + bool(matched)
    if not count:
        raise OptionError(
            f"There is no curve to draw: {evaluation.kind} have no threshold. Evaluate probabilities, or add the "
            "metric f1, which is drawn against the overlap."
        )
    columns = min(count, _COLUMNS)
    rows = -(-count // columns)
    figure = Figure(figsize=(3.6 * columns, 2.8 * rows + 0.4), layout="constrained")
    FigureCanvasAgg(figure)
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes, score in zip(panels, swept, strict=False):
        _sweep(axes, score)
    if matched:
        _matching(panels[len(swept)], matched)
    for axes in panels[count:]:
        axes.set_axis_off()
    figure.suptitle(f"{evaluation.prediction} against {evaluation.truth}", fontsize=9)
    file = local_path(path)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(file, dpi=120, format="png")
    except OSError as error:
        raise SinkError(f"The picture {path} cannot be written: {error.strerror or error}.") from error


def _sweep(axes: Axes, score: Score) -> None:
    """Draw one score against the threshold, the best one marked."""
    axes.plot(score.levels, score.curve, marker=".", color="tab:red" if score.low else "tab:blue")
    if score.level is not None:
        axes.plot([score.level], [score.value], marker="o", color="black", fillstyle="none")
    axes.set_title(f"{score.title} {score.value:.4g}", fontsize=9)
    axes.set_xlabel("threshold", fontsize=8)
    axes.set_xlim(0, 1)
    axes.tick_params(labelsize=7)


def _matching(axes: Axes, scores: list[Score]) -> None:
    """Draw the scores of objects against the overlap that makes a match."""
    for score in scores:
        axes.plot(score.levels, score.curve, marker=".", label=score.title.removeprefix("object "))
    axes.set_title("objects", fontsize=9)
    axes.set_xlabel("overlap (IoU) of a match", fontsize=8)
    axes.set_ylim(0, 1.02)
    axes.legend(fontsize=7)
    axes.tick_params(labelsize=7)
