"""Work that was submitted and has not come back, and everything that can keep it from ever doing so.

Workers die with results that nobody has fetched, stand still, or all leave at once; schedulers fall silent. Each is
found by asking, now and then, and mended or said in one line: a driver never waits for ever.
"""

from __future__ import annotations

import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from unet_dask.errors import ClusterError, SinkLostError, UnetDaskError
from unet_dask.io.remote import UnreachableError
from unet_dask.workers.load import ANYWHERE, OrphanedTasks, present
from unet_dask.workers.watchdog import Watchdog

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from distributed import Client, Future

    from unet_dask.workers.load import WorkerLoad

    #: Submits some work, with a worker that it would best be done by, and returns its futures.
    Batch = Callable[[str], dict[Future, "Piece"]]

Index = tuple[int, ...]

#: Seconds that a cluster may be without any worker; batch systems take minutes to replace those that they preempt.
PATIENCE = 600.0
_LOST = "The connection to the scheduler was lost. What is done is kept; use --resume."
#: Seconds between two looks at the workers of a cluster that returns nothing.
_ASK_EVERY = 5.0


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of work that was submitted.

    Attributes
    ----------
    index : of the region
    alone : submits this piece once more, and nothing else
    """

    index: Index
    alone: Batch


@dataclass(frozen=True, slots=True)
class Retryable:
    """Work that may have failed by no fault of its own: its workers died, or its source did not answer."""

    reason: str
    unanswered: bool = False


@dataclass(frozen=True, slots=True)
class _Lost:
    """A result whose worker died before it was fetched; the scheduler has it computed again, if anybody is left."""


@dataclass(frozen=True, slots=True)
class _Orphan:
    """Work that was kept for a worker that never came back, until the scheduler lost patience."""


class PendingTasks:
    """What was submitted to a cluster and has not come back.

    Parameters
    ----------
    client : connected
    load : who is given work, and how much
    patience : seconds after which a worker that finishes nothing is started anew
    """

    def __init__(self, client: Client, load: WorkerLoad, patience: float) -> None:
        from distributed import as_completed

        self._client = client
        self._load = load
        self._finished = as_completed(loop=client.loop, raise_errors=False)
        self._taken: deque[Future] = deque()
        self._fetched: dict[Future, Any] = {}
        self._pieces: dict[Future, tuple[Piece, str]] = {}
        self._watchdog = Watchdog(client, patience)
        self._orphaned = OrphanedTasks(client)

    def outcomes(
        self, batches: Iterator[Batch]
    ) -> Iterator[tuple[Piece, Any]]:  # whatever the tasks returned
        """Submit batch after batch, the next once a worker has little left to do; yield what each piece came to.

        Raises
        ------
        ClusterError
            If the scheduler or all workers were lost, so that nothing can be done any more.
        SinkLostError
            If the sink cannot be written: all further work would be in vain.
        """
        from distributed.client import ClosedClientError

        waiting = deque(_next(batches))
        try:
            while waiting or self._pieces:
                while waiting and (worker := self._load.least_loaded()) is not None:
                    self._submit(waiting.popleft(), worker)
                    waiting.extend(_next(batches))
                future = self._next_finished()
                if future in self._pieces:  # else it was cancelled, and submitted again
                    yield from self._settled(future)
        except ClosedClientError:
            raise ClusterError(_LOST) from None
        finally:
            if self._pieces:
                with suppress(ClosedClientError):  # what ended the connection is what is to be told
                    self._client.cancel(list(self._pieces), force=True)

    def _submit(self, batch: Batch, worker: str) -> None:
        futures = batch(worker)
        self._pieces |= {future: (piece, worker) for future, piece in futures.items()}
        self._load.give(worker, len(futures))
        self._finished.update(list(futures))

    def _settled(self, future: Future) -> Iterator[tuple[Piece, Any]]:
        """Yield what a finished piece came to, unless it is to be waited for once more."""
        outcome = self._outcome(future)
        if isinstance(outcome, _Lost):
            self._finished.add(future)
        elif isinstance(outcome, _Orphan):
            self._again(future)
        else:
            piece, worker = self._pieces.pop(future)
            self._load.take(worker)
            future.release()
            yield piece, outcome

    def _again(self, future: Future) -> None:
        """Submit a piece once more, for any worker."""
        piece, worker = self._pieces.pop(future)
        self._load.take(worker)
        self._client.cancel([future], force=True)
        self._submit(piece.alone, ANYWHERE)

    def _look(self) -> None:
        """Look for what would keep a future from ever ending; most calls return at once."""
        self._watchdog.end(future.key for future in self._pieces)
        orphans = self._orphaned.found((future.key, worker) for future, (_, worker) in self._pieces.items())
        if orphans:
            for future in [future for future in self._pieces if future.key in orphans]:
                self._again(future)

    def _next_finished(self) -> Future:
        """Wait for a future, but not for ever: a cluster whose workers have all left may never get new ones.

        Raises
        ------
        ClusterError
            If the cluster has been without any worker for `PATIENCE` seconds.
        """
        self._look()
        if not self._taken:
            self._wait()
            self._taken += self._finished.next_batch(block=False)
            self._fetch([future for future in self._taken if future.status == "finished"])
        return self._taken.popleft()

    def _fetch(self, futures: list[Future]) -> None:
        """Fetch results that are there at once together; one by one, each would be several messages there and back."""
        if len(futures) > 1:
            with suppress(Exception):  # whatever it is, it will be met again, by the one that it belongs to
                values = self._client.sync(
                    lambda: self._client.gather(futures, asynchronous=True), callback_timeout=_ASK_EVERY
                )
                self._fetched |= dict(zip(futures, values, strict=True))

    def _wait(self) -> None:
        """Wait until a future has finished, or there has been no worker for too long."""
        seen = asked = time.monotonic()
        while not self._finished.has_ready():
            with self._finished.thread_condition:
                self._finished.thread_condition.wait(timeout=0.1)
            now = time.monotonic()
            if now - asked < _ASK_EVERY:
                continue
            asked = now
            self._look()
            if self._client.status != "running" or present(self._client):
                seen = now
            elif now - seen > PATIENCE:
                raise ClusterError(
                    f"The cluster has had no worker for {PATIENCE:.0f} seconds. What is done is kept; start workers "
                    "and use --resume."
                )

    def _outcome(self, future: Future) -> Any:  # whatever the task returned
        """Return a finished future's result, the reason of its failure in one line, or that it was lost."""
        if future in self._fetched:
            return self._fetched.pop(future)
        if future.status == "finished":
            try:
                return future.result(timeout=_ASK_EVERY)
            except TimeoutError:  # its worker died while the result was fetched: this may never end
                return _Lost()
            except Exception as error:
                if future.status == "finished":
                    return reason(error)
        if future.status == "error":
            raised = future.exception()
            return self._stalled(future, raised) or reason(raised)
        if self._client.status == "running" and future.status != "cancelled":
            return _Lost()
        raise ClusterError(_LOST)

    def _stalled(self, future: Future, error: BaseException | None) -> Retryable | None:
        """Return the reason if work failed because every worker of it stood still."""
        from distributed import KilledWorker

        if future.key not in self._watchdog.blamed or not isinstance(error, KilledWorker):
            return None
        return Retryable(
            f"no worker finished it within {self._watchdog.limit:.0f} s; what it reads or computes with may not answer"
        )


def _next(batches: Iterator[Batch]) -> list[Batch]:
    """Return the next batch, if there is one."""
    batch = next(batches, None)
    return [] if batch is None else [batch]


def reason(error: BaseException | None) -> str | Retryable | _Orphan:
    """Return in one line why a task failed, unless that ends the run."""
    from distributed import KilledWorker

    name = type(error).__name__
    if name == "NoValidWorkerError":
        return _Orphan()
    if name == "NoWorkerError":
        raise ClusterError("No worker is left. What is done is kept; start workers and use --resume.")
    if isinstance(error, SinkLostError):
        raise error
    if isinstance(error, KilledWorker):
        return Retryable("its worker was killed every time, most likely for memory; try a larger --memory")
    text = str(error) if isinstance(error, UnetDaskError) else f"{name}: {error}"
    line = " ".join(text.split())
    return Retryable(line, unanswered=True) if isinstance(error, UnreachableError) else line
