"""Calls that must come to an end."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

Result = TypeVar("Result")


class HangError(AssertionError):
    """Something did not end in its time."""


def in_time(seconds: float, function: Callable[[], Result]) -> Result:
    """Return what a function returns, or raise if it is still at it after some seconds."""
    results: list[Result] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            results.append(function())
        except BaseException as error:  # it is raised again below
            errors.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise HangError(f"no end after {seconds:.0f} seconds")
    if errors:
        raise errors[0]
    return results[0]
