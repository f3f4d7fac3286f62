"""Progress of a run for people, in a terminal or a notebook.

A terminal and a notebook show one bar; a log file gets a line every few seconds instead.
"""

from __future__ import annotations

import sys
import time
from typing import IO, TYPE_CHECKING, cast

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from unet_dask.dispatch import Failure
from unet_dask.printable import visible
from unet_dask.run.events import Event, Progress, Remark, Stage, Started

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TextIO

#: Seconds between two lines of a log.
_LOG_EVERY = 10.0


class _Terminal(Console):
    """A console that leaves it to its caller what the loss of the reader means; by itself it would exit."""

    def on_broken_pipe(self) -> None:
        """Raise once; what is drawn while the display is taken down goes nowhere."""
        self.quiet = True
        raise BrokenPipeError


class _Lossy:
    """A text stream that takes what its disk has room for: a full one must not end a run that it only tells of."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write text, or lose it."""
        return self._try(lambda: self._stream.write(text)) or len(text)

    def flush(self) -> None:
        """Hand on what is in the buffer, or lose it."""
        self._try(self._stream.flush)

    def __getattr__(self, name: str) -> Any:  # encoding, isatty, fileno
        return getattr(self._stream, name)

    @staticmethod
    def _try(act: Callable[[], Any]) -> Any:
        try:
            return act()
        except BrokenPipeError:
            raise
        except OSError:
            return None


class Board:
    """Lines for people, and a bar below them.

    Parameters
    ----------
    console : to write to; the default is standard error
    quiet : show failures and remarks only
    verbose : also a line per finished piece
    notes : to show with those of the run
    """

    def __init__(
        self,
        console: Console | None = None,
        *,
        quiet: bool = False,
        verbose: bool = False,
        notes: tuple[str, ...] = (),
    ) -> None:
        self.console = console or _Terminal(
            file=cast("IO[str]", _Lossy(sys.stderr)), highlight=False, soft_wrap=True
        )
        self._quiet = quiet
        self._verbose = verbose
        self._notes = notes
        self._logged = time.monotonic()
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
            disable=quiet or not (self.console.is_terminal or in_notebook()),
        )
        self._task = self._bar.add_task("plan", total=None)

    def close(self) -> None:
        """Take the bar away."""
        self._bar.stop()

    def _line(self, text: str) -> None:
        self.console.print(visible(text), markup=False)

    def _remark(self, event: Remark) -> None:
        self._line(f"{'note':>18}  {event.text}")

    def _due(self, done: int, total: int) -> bool:
        """Return whether a log deserves another line."""
        if time.monotonic() - self._logged < _LOG_EVERY and done < total:
            return False
        self._logged = time.monotonic()
        return True


class Display(Board):
    """Show the events of one run."""

    _stage = "regions"

    def __call__(self, event: Event) -> None:
        """Show one event."""
        if isinstance(event, Started):
            self._start(event)
        elif isinstance(event, Stage):
            self._stage = event.name
            self._bar.start()
            self._bar.update(self._task, description=event.name)
        elif isinstance(event, Remark):
            self._remark(event)
        else:
            self._step(event)

    def _start(self, event: Started) -> None:
        self._bar.update(self._task, completed=event.done, total=event.total)
        if self._quiet:
            return
        for label, text in event.plan.describe():
            self._line(f"{label:>18}  {text}")
        for note in (*self._notes, *(note for note in event.notes if note not in event.plan.notes)):
            self._line(f"{'note':>18}  {note}")
        if event.done:
            self._line(f"{'resumed':>18}  {event.done} of {event.total} done before")

    def _step(self, event: Progress) -> None:
        self._bar.update(self._task, completed=event.done, total=event.total)
        if event.done == event.total:
            self.close()
        if isinstance(event.outcome, Failure):
            if self._verbose:
                self._line(f"failed {event.outcome.index}: {event.outcome.reason}")
        elif self._verbose:
            entry, seconds = event.outcome.entry, event.outcome.seconds
            self._line(f"{self._stage} {entry.index} in {seconds:.1f} s")
        elif not self._quiet and self._bar.disable and self._due(event.done, event.total):
            self._line(f"{event.done} of {event.total} done")


def in_notebook() -> bool:
    """Return whether this process is the kernel of a notebook."""
    shell = sys.modules.get("IPython")
    return shell is not None and type(shell.get_ipython()).__name__ == "ZMQInteractiveShell"


def listener() -> Callable[[Event], None]:
    """Return a listener that shows progress."""
    return Display(Console(highlight=False))
