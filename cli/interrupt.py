"""Ctrl-C is heeded wherever it falls.

Python raises it between any two instructions of the main thread, so now and then within a finaliser or a callback of
the garbage collector (distributed has one), where nothing can be raised: it is written to the terminal as ignored, and
the program goes on. Then it is sent once more.
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

#: Seconds until it is sent once more: whatever swallowed it has ended by then.
_MOMENT = 0.05


@contextmanager
def heeded() -> Iterator[None]:
    """Have an interrupt that Python could not raise come once more."""
    before = sys.unraisablehook

    def again(ignored: UnraisableHookArgs) -> None:
        if issubclass(ignored.exc_type, KeyboardInterrupt):
            threading.Timer(_MOMENT, _interrupt).start()
        else:
            before(ignored)

    sys.unraisablehook = again
    try:
        yield
    finally:
        sys.unraisablehook = before


def _interrupt() -> None:
    """Interrupt the main thread; where there are signals by one, since that ends its waiting too."""
    if os.name == "posix":
        os.kill(os.getpid(), signal.SIGINT)
    else:
        _thread.interrupt_main()
