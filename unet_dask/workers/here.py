"""A cluster of this process alone: whatever is submitted is done at once, by whoever submits it.

A small image is one region. To hand its twelve pieces of work to a worker and back, one by one, takes longer than to do
them. So a worker that is given an image as a whole does all of its run by itself, with the same code: it is told that
its cluster is here.
"""

from __future__ import annotations

from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from unet_dask.workers.pending import Retryable, reason

if TYPE_CHECKING:
    from collections.abc import Callable


class Here:
    """What stands in for a client of Dask where this process is the only worker."""

    def submit(self, function: Callable[..., Any], *arguments: Any, pure: bool = False) -> Future[Any]:
        """Do something, and return a future that holds what came of it."""
        done: Future[Any] = Future()
        try:
            done.set_result(function(*arguments))
        except Exception as error:
            done.set_exception(error)
        return done

    def outcome(self, function: Callable[..., Any], *arguments: Any) -> Any:  # whatever it returns
        """Return what a piece of work came to, or in one line why it failed; what may help is tried once more.

        Raises
        ------
        SinkLostError
            If the sink cannot be written: all further work would be in vain.
        """
        failed = ""
        for _ in range(2):
            try:
                return function(*arguments)
            except Exception as error:
                why = reason(error)
            if not isinstance(why, Retryable):
                return why
            failed = why.reason
        return failed
