"""Let Ctrl-C, and other signals that end a program, end a training between two iterations, not within one."""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import FrameType, TracebackType

#: Ctrl-C, being asked to end, and the terminal that goes away.
_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


class Interruption:
    """Note the first signal instead of ending; the second does at once what it would have done.

    A `KeyboardInterrupt` in the middle of an update would leave parameters and momentum of two different
    iterations, and no checkpoint could be exact. Signals that are ignored, as under nohup, stay so. Outside of the
    main thread signals cannot be received, and this does nothing.

    Attributes
    ----------
    requested : whether somebody wants the training to stop
    """

    def __init__(self) -> None:
        self._first: int | None = None
        self._before: dict[int, Any] = {}

    @property
    def requested(self) -> bool:
        """Return whether somebody wants the training to stop."""
        return self._first is not None

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                if signal.getsignal(number) not in (signal.SIG_IGN, None):
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def stop(self) -> None:
        """Do now what the noted signal would have done: for Ctrl-C, raise `KeyboardInterrupt`.

        Raises
        ------
        KeyboardInterrupt
            Always, unless the signal ends the process.
        """
        first, before = self._first, dict(self._before)
        self.__exit__(None, None, None)
        if first in before and first != signal.SIGINT:
            signal.raise_signal(first)
        raise KeyboardInterrupt

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._first is not None:
            self._first = number
            self.stop()
        self._first = number
