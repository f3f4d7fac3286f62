"""Which worker a wave of regions is given to.

Neighbouring regions share chunks of the source, and a worker keeps the chunks that it read last. So a wave goes to
one worker, as a wish: if that worker dies, or another has nothing left to do, the scheduler gives its regions away.
"""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from distributed import Client

#: Seconds after which the list of workers is asked for again.
_ASK_EVERY = 5.0
#: No worker in particular, while none is known.
ANYWHERE = ""


def present(client: Client) -> dict[str, Any]:
    """Return what the scheduler says of each worker that it has now, by address; none if it does not answer."""
    # Not scheduler_info: the client's own look at the scheduler, every two seconds, may replace its answer by none.
    try:
        workers: dict[str, Any] = client.sync(client.scheduler.identity, n_workers=-1)["workers"]
    except OSError:  # the connection is about to be found lost, by whoever waits for a result
        return {}
    return workers


class Homes:
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
    def of(cls, client: Client) -> Homes:
        """Return the workers of a cluster; one that has a piece left is given more, so that none ever waits."""
        return cls(lambda: list(present(client)), low_water=1)

    @classmethod
    def anywhere(cls, low_water: int) -> Homes:
        """Return one home for all: whoever has time does the work."""
        return cls(lambda: (ANYWHERE,), low_water=low_water)

    def hungry(self) -> str | None:
        """Return the worker that has least to do, or None if all have enough."""
        now = time.monotonic()
        if not self._workers or now - self._asked > _ASK_EVERY:
            self._asked = now
            self._workers = self._list_workers() or (ANYWHERE,)
        least = min(self._workers, key=self._left.__getitem__)
        return least if self._left[least] <= self._low_water else None

    def give(self, home: str, pieces: int) -> None:
        """Note that a worker was given so many pieces."""
        self._left[home] += pieces

    def take(self, home: str) -> None:
        """Note that a piece was finished, wherever."""
        self._left[home] -= 1
        if not self._left[home]:
            del self._left[home]
