"""Workers that stand still: a read that is never answered, a device that hangs.

The task of such a worker never ends, and neither would the run. So a worker that finishes nothing for too long is
started anew, and the scheduler gives its work to others. A task that stalls every worker is blamed like one that
kills them: it becomes a hole, and all others are done.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from unet_dask.errors import ClusterError
from unet_dask.workers.load import present

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from distributed import Client

#: Seconds that a worker may take for a piece of work, beside what reading and computing it may take at worst.
PATIENCE = 900.0
#: Operations a second, of a processor and of a GPU, and bytes a second, below which nobody would call it work.
_SLOWEST_FLOP, _SLOWEST_GPU, _SLOWEST_READ = 1e9, 1e12, 1e5
#: Looks at the workers in that time.
_LOOKS = 12
#: Seconds that the scheduler may take to answer.
_ANSWER = 30.0


def patience(flop: float, read: float, *, gpu: bool = False) -> float:
    """Return the seconds after which a worker that has finished nothing stands still.

    Parameters
    ----------
    flop, read : operations and bytes of a piece of work
    gpu : whether a GPU does them

    Examples
    --------
    >>> patience(0, 0), patience(3e14, 0, gpu=True)
    (900.0, 1200.0)
    """
    return PATIENCE + flop / (_SLOWEST_GPU if gpu else _SLOWEST_FLOP) + read / _SLOWEST_READ


class Watchdog:
    """Which workers have finished nothing of ours for how long.

    Parameters
    ----------
    client : connected
    limit : seconds after which a worker stands still
    clock : returns seconds
    """

    def __init__(self, client: Client, limit: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit = limit
        #: Keys of the tasks that a worker held when it stood still.
        self.blamed: set[Any] = set()
        self._client = client
        self._clock = clock
        self._looked = clock()
        #: address -> tasks, and since when none of them has ended
        self._held: dict[str, tuple[frozenset[Any], float]] = {}

    def end(self, ours: Iterable[Any]) -> None:
        """Start anew the workers that stand still; most calls return at once.

        A worker with a task of somebody else, or with somebody's results, is left alone.

        Parameters
        ----------
        ours : keys of the tasks that we wait for

        Raises
        ------
        ClusterError
            If one has no nanny to start it anew.
        """
        now = self._clock()
        if now - self._looked < self.limit / _LOOKS:
            return
        self._looked = now
        own = set(ours)
        standing = self._standing(self._ask("processing", workers=None), own, now)
        if standing:
            results = self._ask("has_what", workers=standing)
            idle = [address for address in standing if own.issuperset(results.get(address, ()))]
            for address in idle:
                self.blamed |= self._held.pop(address)[0]
            self._restart(idle)

    def _restart(self, standing: list[str]) -> None:
        """Start workers anew; one that nobody watches over could only be lost."""
        workers = present(self._client)
        for address in standing:
            if address in workers and not workers[address].get("nanny"):
                raise ClusterError(
                    f"The worker at {address} has finished nothing for {self.limit:.0f} s, and has no nanny that could "
                    "start it anew. What is done is kept; restart it, and use --resume."
                )
        with suppress(
            OSError
        ):  # a time-out is one: it may come back later, or the scheduler gives its work away
            self._client.restart_workers(standing, timeout=_ANSWER, raise_for_error=False)

    def _standing(self, processing: Mapping[str, Collection[Any]], ours: set[Any], now: float) -> list[str]:
        """Return the workers none of whose tasks has ended for too long, and that hold only ours."""
        held = {}
        for address, keys in processing.items():
            before, since = self._held.get(address, (frozenset[Any](), now))
            tasks = frozenset(keys)
            if tasks:
                held[address] = tasks, since if before and before <= tasks else now
        self._held = held
        return [
            address for address, (tasks, since) in held.items() if now - since > self.limit and tasks <= ours
        ]

    def _ask(self, question: str, **arguments: Any) -> dict[str, Any]:
        """Return the scheduler's answer; nothing if it does not answer, for others will notice."""
        handler = getattr(self._client.scheduler, question)
        try:
            answer = self._client.sync(handler, **arguments, callback_timeout=_ANSWER)
        except OSError:  # a time-out is one
            return {}
        return dict(answer) if isinstance(answer, dict) else {}
