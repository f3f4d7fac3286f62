"""An interrupt that falls where Python can raise nothing is not lost."""

from __future__ import annotations

import importlib
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

heeded: Callable[[], AbstractContextManager[None]] = importlib.import_module("unet_dask_cli.interrupt").heeded


class Finalised:
    """Is interrupted while it is finalised."""

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGINT)
        time.sleep(0.01)


def patient() -> None:
    """Drop what is interrupted while it is finalised, and go on for a while."""
    Finalised()
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        time.sleep(0.1)


def test_interrupt_that_a_finaliser_swallows_comes_once_more() -> None:
    began = time.monotonic()
    with heeded(), pytest.raises(KeyboardInterrupt):
        patient()
    assert time.monotonic() < began + 2


def test_other_things_that_cannot_be_raised_are_told_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def __del__(self) -> None:
            raise ValueError("planted")

    told: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", told.append)
    with heeded():
        Broken()
    assert [each.exc_type for each in told] == [ValueError]
    assert sys.unraisablehook == told.append
