"""Records of objects sorted by number, more than memory holds: sorted runs on disk, merged as they are read.

Some for the same object may come at any time, from any block: that is why a table can be made of objects of any shape
that lie anywhere. The files have no names, so a killed process leaves none.
"""

from __future__ import annotations

from contextlib import ExitStack
from tempfile import TemporaryFile
from typing import IO, TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from types import TracebackType
    from typing import Self

    from unet_dask.measuring.sums import Rows

#: Bytes of records that are sorted in memory, and of those that are merged at a time.
LIMIT = 64 << 20
#: Records that are read of a run at a time, at least.
_FEWEST = 256


class Spill:
    """Records that are put in any order, and come back by number, all those of an object together.

    Parameters
    ----------
    merged : sorts records by their field "label", and makes one of those that are one
    folder : of the files; None for the usual one of the system
    limit : bytes in memory
    """

    def __init__(
        self, merged: Callable[[Rows], Rows], *, folder: Path | None = None, limit: int = LIMIT
    ) -> None:
        self._merged = merged
        self._folder = folder
        self._limit = limit
        self._waiting: list[Rows] = []
        self._files: list[IO[bytes]] = []
        self._opened = ExitStack()

    def __enter__(self) -> Self:
        """Return the records themselves."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let go of the files."""
        self._opened.close()

    def put(self, rows: Rows) -> None:
        """Take some records."""
        self._waiting.append(rows)
        if sum(each.nbytes for each in self._waiting) > self._limit:
            self._write()

    def batches(self) -> Iterator[Rows]:
        """Yield all records, merged, by number; those of one object are never in two batches."""
        if not self._files:
            if self._waiting and len(rows := self._merged(np.concatenate(self._waiting))):
                yield rows
            return
        self._write()
        yield from self._merging()

    def _write(self) -> None:
        """Write what waits as a sorted run."""
        if not self._waiting:
            return
        file = self._opened.enter_context(TemporaryFile(dir=self._folder))  # noqa: SIM115 # closed by the stack
        file.write(self._merged(np.concatenate(self._waiting)).tobytes())
        self._files.append(file)
        self._waiting = self._waiting[:1]
        self._dtype = self._waiting.pop().dtype

    def _merging(self) -> Iterator[Rows]:
        count = max(self._limit // self._dtype.itemsize // len(self._files), _FEWEST)
        runs = [_Run(file, self._dtype, count) for file in self._files]
        while runs:
            # Of smaller numbers than the last of any run that goes on, there are no more records anywhere.
            until = min((run.last for run in runs if run.goes_on), default=None)
            rows = self._merged(np.concatenate([run.before(until) for run in runs]))
            if len(rows):
                yield rows
            for run in runs:
                if run.goes_on and run.last == until:
                    run.more()
            runs = [run for run in runs if run.goes_on or len(run.rows)]


class _Run:
    """A sorted run, of which some records are in memory."""

    def __init__(self, file: IO[bytes], dtype: np.dtype[np.void], count: int) -> None:
        self._file, self._dtype, self._count = file, dtype, count
        self._file.seek(0)
        self.rows: Rows = np.empty(0, dtype)
        self.goes_on = True
        self.more()

    @property
    def last(self) -> int:
        """Number of the last record in memory."""
        return int(self.rows["label"][-1])

    def more(self) -> None:
        """Read on."""
        read = np.frombuffer(self._file.read(self._count * self._dtype.itemsize), self._dtype)
        self.rows = np.concatenate([self.rows, read])
        self.goes_on = len(read) == self._count

    def before(self, until: int | None) -> Rows:
        """Take the records of smaller numbers out of memory; all for None."""
        end = len(self.rows) if until is None else int(np.searchsorted(self.rows["label"], until))
        taken, self.rows = self.rows[:end], self.rows[end:]
        return taken
