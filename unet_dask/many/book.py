"""Where rows are entered as images are done, told of, and written to a table in the end, whatever ends the run."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from unet_dask.many.events import Segmented
from unet_dask.many.outcome import ManyRun
from unet_dask.many.table import table_of, write_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from unet_dask.many.asked import Asked
    from unet_dask.many.events import ManyListener
    from unet_dask.many.one import Order
    from unet_dask.many.outcome import Row


@dataclass(slots=True)
class Book:
    """The rows of a run.

    Attributes
    ----------
    asked : what was asked for
    orders : for each of its images
    say : is told of every row
    """

    asked: Asked
    orders: Sequence[Order]
    say: ManyListener
    _began: float = field(default_factory=time.perf_counter)
    _rows: dict[str, Row] = field(default_factory=dict)

    @property
    def table(self) -> str:
        """Path or URL of the table."""
        return table_of(self.asked.output, self.asked.part)

    def enter(self, row: Row) -> None:
        """Enter what became of an image."""
        self._rows[row.image] = row
        self.say(Segmented(row, len(self._rows), len(self.orders)))

    def closed(self, notes: tuple[str, ...] = ()) -> ManyRun:
        """Write the table, and return what became of all images that were reached.

        Parameters
        ----------
        notes : of all images together

        Raises
        ------
        SinkLostError
            If the table cannot be written.
        """
        names = [order.image.name for order in self.orders]
        rows = tuple(self._rows[name] for name in names if name in self._rows)
        write_table(self.table, rows)
        every = tuple(dict.fromkeys((*notes, *(note for row in rows for note in row.notes))))
        took = time.perf_counter() - self._began
        return ManyRun(self.asked.output, rows, took, self.table, self.asked.part, every)
