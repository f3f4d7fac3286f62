"""Progress of many images for people: what all have in common, then a bar or a line now and then."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unet_dask.many.events import Segmented, Surveyed
from unet_dask.many.outcome import BEFORE, FAILED
from unet_dask.run.progress import Board

if TYPE_CHECKING:
    from unet_dask.run.events import Remark


class ImagesDisplay(Board):
    """Show the events of a run over many images."""

    def __call__(self, event: Surveyed | Segmented | Remark) -> None:
        """Show one event."""
        if isinstance(event, Surveyed):
            self._start(event)
        elif isinstance(event, Segmented):
            self._step(event)
        else:
            self._remark(event)

    def _start(self, event: Surveyed) -> None:
        self._bar.start()
        self._bar.update(self._task, description="images", completed=0, total=event.total)
        if self._quiet:
            return
        for label, text in event.survey.describe():
            self._line(f"{label:>18}  {text}")
        for note in (*self._notes, *event.notes):
            self._line(f"{'note':>18}  {note}")

    def _step(self, event: Segmented) -> None:
        self._bar.update(self._task, completed=event.done, total=event.total)
        row = event.row
        if event.done == event.total:
            self.close()
        if self._verbose:
            how = {FAILED: f"failed: {row.reason}", BEFORE: "was done before"}
            self._line(f"{row.image} {how.get(row.status, f'in {row.seconds:.1f} s')}")
        elif not self._quiet and self._bar.disable and self._due(event.done, event.total):
            self._line(f"{event.done} of {event.total} images done")
