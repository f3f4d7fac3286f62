"""Which worker a wave of regions is given to.

Neighbouring regions share chunks of the source, and a worker keeps the chunks that it read last. So a wave goes to
one worker, as a wish: if that worker dies, or another has nothing left to do, the scheduler gives its regions away.
If nobody is left at that moment, it keeps them for the one that they were wished for, who will never come back: such
orphans have to be submitted again.
"""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from unet_dask.engine.slots import REGION_SLOTS

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Sequence

    from distributed import Client

#: Seconds after which the list of workers is asked for again.
_ASK_EVERY = 5.0
#: Seconds that the scheduler may take to answer.
_ANSWER = 30.0
#: Seconds between two looks for tasks that nobody has.
_ORPHANED_EVERY = 10.0
#: No worker in particular, while none is known.
ANYWHERE = ""


def present(client: Client) -> dict[str, Any]:
    """Return what the scheduler says of each worker that it has now, by address; none if it does not answer."""
    # Not scheduler_info: the client's own look at the scheduler, every two seconds, may replace its answer by none.
    try:
        answer = client.sync(client.scheduler.identity, n_workers=-1, callback_timeout=_ANSWER)
    except OSError:  # a time-out too; the connection is about to be found lost, by whoever waits for a result
        return {}
    workers: dict[str, Any] = answer["workers"]
    return workers


class OrphanedTasks:
    """Tasks whose worker has gone, and that nobody else was given.

    Parameters
    ----------
    client : connected
    clock : returns seconds
    """

    def __init__(self, client: Client, clock: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._clock = clock
        self._looked = clock()
        self._suspects: frozenset[Hashable] = frozenset()

    def found(self, given: Iterable[tuple[Hashable, str]]) -> frozenset[Hashable]:
        """Return the keys of tasks that were twice found with nobody; most calls return none at once.

        Parameters
        ----------
        given : key of each task that we wait for, and the worker it was wished for
        """
        now = self._clock()
        if now - self._looked < _ORPHANED_EVERY:
            return frozenset()
        self._looked = now
        wished = {key: worker for key, worker in given if worker != ANYWHERE}
        workers = present(self._client) if wished else {}
        orphaned = {key for key, worker in wished.items() if worker not in workers}
        if not workers or not orphaned:
            self._suspects = frozenset()
            return self._suspects
        suspects = frozenset(orphaned.difference(*_processing(self._client)))
        found, self._suspects = suspects & self._suspects, suspects
        return found


def _processing(client: Client) -> list[list[Hashable]]:
    """Return the tasks that each worker has been given; none if the scheduler does not answer."""
    try:
        given = client.sync(client.scheduler.processing, workers=None, callback_timeout=_ANSWER)
    except OSError:
        return []
    return list(given.values())


class WorkerLoad:
    """Workers, and how many pieces of work each was given and has not finished.

    Parameters
    ----------
    workers : returns the addresses of the workers that there are now
    low_water : pieces that a worker may have left when it is given more
    """

    def __init__(self, workers: Callable[[], Sequence[str]], *, low_water: int) -> None:
        self._list_workers = workers
        self._low_water = low_water
        self._left: Counter[str] = Counter()
        self._workers: Sequence[str] = ()
        self._asked = 0.0

    @classmethod
    def of(cls, client: Client) -> WorkerLoad:
        """Return the workers of a cluster; one with no more left than it has in hand is given more: none ever waits."""
        return cls(lambda: list(present(client)), low_water=REGION_SLOTS)

    @classmethod
    def anywhere(cls, low_water: int) -> WorkerLoad:
        """Return one place for all: whoever has time does the work."""
        return cls(lambda: (ANYWHERE,), low_water=low_water)

    def least_loaded(self) -> str | None:
        """Return the worker that has least to do, or None if all have enough."""
        now = time.monotonic()
        if not self._workers or now - self._asked > _ASK_EVERY:
            self._asked = now
            found = self._list_workers()
            self._workers = (
                found if len(found) > 1 else (ANYWHERE,)
            )  # a wish for the only one could only harm
        least = min(self._workers, key=self._left.__getitem__)
        return least if self._left[least] <= self._low_water else None

    def give(self, worker: str, pieces: int) -> None:
        """Note that a worker was given so many pieces."""
        self._left[worker] += pieces

    def take(self, worker: str) -> None:
        """Note that a piece was finished, wherever."""
        self._left[worker] -= 1
        if not self._left[worker]:
            del self._left[worker]
