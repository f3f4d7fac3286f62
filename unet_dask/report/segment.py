"""`segment_store` with a report: its place is checked before the run, and the run is never lost to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unet_dask.errors import UnetDaskError
from unet_dask.pipeline import segment_store
from unet_dask.report.facts import Asked, Outcome, gathered
from unet_dask.report.journal import Journal
from unet_dask.report.page import page
from unet_dask.report.place import require_place, write_page

if TYPE_CHECKING:
    from pathlib import Path

    from unet_dask.run.events import Event, Listener
    from unet_dask.run.outcome import Run

__all__ = ["Asked", "segment_and_report"]


def segment_and_report(report: str | None, asked: Asked, on_event: Listener) -> Run:
    """Segment a Zarr volume into a Zarr group, and write a report of it if a file for one is named.

    Parameters
    ----------
    report : path of the HTML file; None for no report
    asked : what to segment, and how
    on_event : called with every event of the run, and with a remark if the report cannot be written

    Raises
    ------
    OptionError
        If a report cannot be written there; nothing was begun.
    UnetDaskError
        Of the run. If its work had begun, the report is written all the same.
    """
    if report is None:
        return _segment(asked, on_event)
    path = require_place(report, asked.source, asked.sink)
    journal = Journal()

    def record(event: Event) -> None:
        journal(event)
        on_event(event)

    try:
        run = _segment(asked, record)
    except UnetDaskError as error:
        if journal.started is not None:
            _write(path, asked, journal, Outcome(str(error), good=False, complete=False), on_event)
        raise
    _write(path, asked, journal, Outcome(run.summary(), good=True, complete=run.complete), on_event)
    return run


def _segment(asked: Asked, on_event: Listener) -> Run:
    return segment_store(
        asked.source,
        asked.sink,
        asked.model,
        config=asked.config,
        on_event=on_event,
        resume=asked.resume,
        overwrite=asked.overwrite,
    )


def _write(path: Path, asked: Asked, journal: Journal, outcome: Outcome, on_event: Listener) -> None:
    write_page(
        path, lambda: page(gathered(asked, journal, outcome), journal), on_event, "the result is as it is"
    )
