"""Ctrl-C is heeded wherever it falls.

Python raises it between any two instructions of the main thread, so now and then within a finaliser or a callback of
the garbage collector (distributed has one), where nothing can be raised: it is written to the terminal as ignored, and
the program goes on. Then it is sent once more.

Being asked to end (SIGTERM), or left by the terminal (SIGHUP), is an interruption too: what is done is kept, in order.
"""

from __future__ import annotations

import _thread
import os
import signal
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from sys import UnraisableHookArgs
    from types import FrameType

#: Seconds until it is sent once more: whatever swallowed it has ended by then.
_MOMENT = 0.05


#: Signals that end a program which does not listen to them.
_ENDING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))


class Terminated(KeyboardInterrupt):
    """Somebody asked the program to end; to all code it is what Ctrl-C is.

    Attributes
    ----------
    exit_code : as shells have it for a program that was ended by the signal
    """

    def __init__(self, number: int) -> None:
        super().__init__("terminated")
        self.exit_code = 128 + number


@contextmanager
def heeded() -> Iterator[None]:
    """Have an interrupt that Python could not raise come once more, and other signals that end a program raise too."""
    before = sys.unraisablehook
    signals = _listened()

    def again(ignored: UnraisableHookArgs) -> None:
        if issubclass(ignored.exc_type, KeyboardInterrupt):
            number = getattr(ignored.exc_value, "exit_code", 128 + signal.SIGINT) - 128
            threading.Timer(_MOMENT, _interrupt, (number,)).start()
        else:
            before(ignored)

    sys.unraisablehook = again
    try:
        yield
    finally:
        sys.unraisablehook = before
        for number in signals:
            signal.signal(number, signal.SIG_DFL)


def _listened() -> list[signal.Signals]:
    """Raise on signals that would just end the program; one that is ignored, as by nohup, stays so."""
    if threading.current_thread() is not threading.main_thread():
        return []
    chosen = [number for number in _ENDING if signal.getsignal(number) is signal.SIG_DFL]
    for number in chosen:
        signal.signal(number, _terminate)
    return chosen


def _terminate(number: int, frame: FrameType | None) -> None:
    raise Terminated(number)


def _interrupt(number: int) -> None:
    """Interrupt the main thread; where there are signals by one, since that ends its waiting too."""
    if os.name == "posix":
        os.kill(os.getpid(), number)
    else:
        _thread.interrupt_main()
