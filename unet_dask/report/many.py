"""`segment_images` with a report: one page for all images, a row each, and pictures of some."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import TYPE_CHECKING

from unet_dask.io import remote
from unet_dask.io.source.received import Consent
from unet_dask.many.events import Surveyed
from unet_dask.many.outcome import FAILED, ImagesFailedError
from unet_dask.many.segment import segment_images
from unet_dask.model.file import inspect_model
from unet_dask.picture.preview import drawn
from unet_dask.report.facts import about_model, png, versions
from unet_dask.report.page import rendered
from unet_dask.report.place import require_place, write_page
from unet_dask.setting import for_people

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from unet_dask.many.asked import Asked
    from unet_dask.many.events import ManyListener, Segmented
    from unet_dask.many.outcome import ManyRun, Row
    from unet_dask.run.events import Remark

#: Images that are drawn, from all over.
_DRAWN = 4


@dataclass(frozen=True, slots=True)
class _Report:
    """Where the report goes, of what.

    Attributes
    ----------
    path : of the file
    asked, model : what was asked for
    """

    path: Path
    asked: Asked
    model: str


def segment_all_and_report(report: str | None, asked: Asked, model: str, on_event: ManyListener) -> ManyRun:
    """Segment images, and write a report of all of them if a file for one is named.

    Parameters
    ----------
    report : path of the HTML file; None for no report
    asked : what to segment, and how
    model : path of a model file, or name of a model
    on_event : called with every event of the run, and with a remark if the report cannot be written

    Raises
    ------
    OptionError
        If a report cannot be written there; nothing was begun.
    UnetDaskError
        Of the run. If only some images failed, the report is written all the same.
    """
    if report is None:
        return segment_images(asked, model, on_event)
    place = _Report(_place(report, asked), asked, model)
    told: list[Surveyed] = []

    def record(event: Surveyed | Segmented | Remark) -> None:
        if isinstance(event, Surveyed):
            told.append(event)
        on_event(event)

    try:
        run = segment_images(asked, model, record)
    except ImagesFailedError as error:
        _write(place, error.run, told, on_event)
        raise
    _write(place, run, told, on_event)
    return run


def _place(report: str, asked: Asked) -> Path:
    """Return the path of the report, which may lie in the folder of the results, and in no image or result."""
    sources = {image.source: f"{asked.output}/{image.name}.zarr" for image in asked.images}
    for source, sink in sources.items():
        path = require_place(report, source, sink)
    return path


def _write(place: _Report, run: ManyRun, told: list[Surveyed], on_event: ManyListener) -> None:
    write_page(place.path, lambda: _page(place, run, told), on_event, "the results are as they are")


def _page(place: _Report, run: ManyRun, told: list[Surveyed]) -> str:
    """Return the page."""
    return rendered(
        "images.html",
        run=run,
        pictures=list(_pictures([row for row in run.rows if row.status != FAILED])),
        failed=[(row.image, row.reason) for row in run.failed],
        images=[
            (row.image, row.status, "" if row.objects is None else row.objects, f"{row.seconds:.1f}")
            for row in run.rows
        ],
        plan=[pair for event in told for pair in event.survey.describe()],
        notes=run.notes,
        model=about_model(inspect_model(place.model)),
        settings={name: remote.redact_url(text) for name, text in for_people(place.asked.config).items()},
        versions=versions(),
    )


def _pictures(rows: list[Row]) -> Iterator[tuple[str, str]]:
    """Yield the name and a picture of some images."""
    for row in rows[:: max(-(-len(rows) // _DRAWN), 1)]:
        try:
            figure, _ = drawn(row.result, consent=Consent(), counted=False)
        except Exception as error:  # the rows are worth more than a picture
            yield f"{row.image} cannot be drawn: {remote.one_line(error)}", ""
        else:
            yield row.image, base64.b64encode(png(figure)).decode()
