"""Let Ctrl-C end a training between two iterations, not within one."""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType, TracebackType


class Interruption:
    """Note the first SIGINT instead of raising; the second raises at once.

    A `KeyboardInterrupt` in the middle of an update would leave parameters and momentum of two different
    iterations, and no checkpoint could be exact. Outside of the main thread signals cannot be received,
    and this does nothing.

    Attributes
    ----------
    requested : whether somebody wants the training to stop
    """

    def __init__(self) -> None:
        self.requested = False
        self._before: object = None

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)  # type: ignore[arg-type]  # what signal() gave us

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
