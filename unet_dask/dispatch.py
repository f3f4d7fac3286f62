"""Futures: work is submitted a bounded amount at a time, each piece with a future of its own.

Never `gather`: one failed region would take the others with it. A region that fails, or kills its worker every
time, becomes a :class:`Failure` and all others go on; only the loss of the scheduler, or of all workers, ends
the run, which can then be resumed.

The scheduler blames a dead worker on everything it held, so by chance a harmless region can stand beside a deadly
one each time; and a service may be away for a minute. Whatever may have failed by no fault of its own is therefore
done once more, alone, when all else is done: what then kills its worker does so by itself.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from unet_dask.errors import ClusterError, SinkLostError, UnetDaskError
from unet_dask.homes import Homes, present
from unet_dask.io.remote import UnreachableError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator

    from dask.delayed import Delayed
    from distributed import Client, Future, as_completed

    from unet_dask.graph import Record
    from unet_dask.tiling.region import Wave

    #: Says of a region whether it is to be done; a set of millions would be the driver's largest possession.
    Wanted = Callable[["Index"], bool]
    #: Makes one task for every region of a wave.
    Build = Callable[[Wave], dict["Index", Delayed]]
    #: Submits some work, with a worker that it would best be done by, and returns its futures.
    Batch = Callable[[str], dict[Future, "Piece"]]

Index = tuple[int, ...]

#: Seconds that a cluster may be without any worker; batch systems take minutes to replace those that they preempt.
PATIENCE = 600.0
#: Seconds between two looks at the workers of a cluster that returns nothing.
_ASK_EVERY = 5.0
#: A source that does not answer so many times running is gone: what else waits for it is not tried again.
_UNANSWERED = 3


@dataclass(frozen=True, slots=True)
class Failure:
    """A piece of work that could not be done; the others go on.

    Attributes
    ----------
    index : of the region
    level : 0 for a region, else of the pyramid
    reason : one line
    """

    index: Index
    level: int
    reason: str


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
class _Doubtful:
    """Work that may have failed by no fault of its own: its workers died, or its source did not answer."""

    reason: str
    unanswered: bool = False


@dataclass(frozen=True, slots=True)
class _Lost:
    """A result whose worker died before it was fetched; the scheduler has it computed again, if anybody is left."""


def _submit_wave(
    client: Client, build: Build, wave: Wave, wanted: Wanted, priority: int, home: str
) -> dict[Future, Piece]:
    """Submit the wanted regions of a wave, each with a future of its own."""
    chosen = {index: task for index, task in build(wave).items() if wanted(index)}
    futures = client.compute(
        list(chosen.values()),
        priority=priority,
        optimize_graph=False,
        workers=home or None,
        allow_other_workers=bool(home),
    )
    pieces = (
        Piece(index, alone=partial(_submit_wave, client, build, wave.only(index), wanted, priority))
        for index in chosen
    )
    return dict(zip(futures, pieces, strict=True))


def run_waves(
    client: Client,
    waves: Iterable[Wave],
    wanted: Wanted,
    build: Build,
) -> Generator[Record | Failure, None, None]:
    """Run the wanted regions, wave after wave, and yield each result as it comes.

    A worker is given a wave as soon as it has no more than one region left, so that it never waits and the
    scheduler never holds more than about a wave for each.
    """

    def batches() -> Iterator[Batch]:
        for number, wave in enumerate(waves):
            if any(map(wanted, wave.indices())):
                yield partial(_submit_wave, client, build, wave, wanted, -number)

    for index, outcome in _drain(client, batches(), Homes.of(client)):
        if isinstance(outcome, str):
            yield Failure(index, 0, outcome)
        else:
            yield outcome.reshape(-1)[0]


def run_calls(
    client: Client,
    function: Callable[..., Any],
    calls: Iterable[tuple[Index, tuple[Any, ...]]],
    *,
    in_flight: int,
) -> Iterator[tuple[Index, Any]]:
    """Run ``function(*arguments)`` for each (index, arguments), a bounded number at a time.

    Yields
    ------
    index and result, in the order in which they come; a reason (str) in place of a result that failed
    """

    def batches() -> Iterator[Batch]:
        for index, arguments in calls:
            yield partial(_submit_call, client, function, index, arguments)

    yield from _drain(client, batches(), Homes.anywhere(in_flight))


def _submit_call(
    client: Client, function: Callable[..., Any], index: Index, arguments: tuple[Any, ...], _home: str
) -> dict[Future, Piece]:
    again = partial(_submit_call, client, function, index, arguments)
    return {client.submit(function, *arguments, pure=False): Piece(index, again)}


def _drain(client: Client, batches: Iterator[Batch], homes: Homes) -> Iterator[tuple[Index, Any]]:
    """Submit batches while somebody has little left to do; yield what each piece came to."""
    doubtful: list[tuple[Piece, _Doubtful]] = []
    for piece, outcome in _in_flight(client, batches, homes):
        if isinstance(outcome, _Doubtful):
            doubtful.append((piece, outcome))
        else:
            yield piece.index, outcome
    unanswered = 0
    for piece, doubt in doubtful:
        outcome = doubt
        if unanswered < _UNANSWERED:
            ((_, outcome),) = _in_flight(client, iter([piece.alone]), Homes.anywhere(0))
            still = isinstance(outcome, _Doubtful) and outcome.unanswered
            unanswered = unanswered + 1 if still else 0
        yield piece.index, outcome.reason if isinstance(outcome, _Doubtful) else outcome


def _in_flight(
    client: Client, batches: Iterator[Batch], homes: Homes
) -> Iterator[tuple[Piece, Any]]:  # whatever the tasks returned
    """Submit batch after batch, the next once a home has little left to do."""
    from distributed import as_completed

    in_flight: dict[Future, tuple[Piece, str]] = {}
    finished = as_completed(loop=client.loop, raise_errors=False)
    waiting = deque(_next(batches))
    try:
        while waiting or in_flight:
            while waiting and (home := homes.hungry()) is not None:
                futures = waiting.popleft()(home)
                in_flight |= {future: (piece, home) for future, piece in futures.items()}
                homes.give(home, len(futures))
                finished.update(list(futures))
                waiting.extend(_next(batches))
            future = _next_finished(finished, client)
            outcome = _outcome(future, client)
            if isinstance(outcome, _Lost):
                finished.add(future)  # its worker died before the result was fetched: it is computed again
                continue
            piece, home = in_flight.pop(future)
            homes.take(home)
            future.release()
            yield piece, outcome
    finally:
        if in_flight:
            client.cancel(list(in_flight), force=True)


def _next_finished(finished: as_completed, client: Client) -> Future:
    """Wait for a future, but not for ever: a cluster whose workers have all left may never get new ones.

    Raises
    ------
    ClusterError
        If the cluster has been without any worker for `PATIENCE` seconds.
    """
    seen = asked = time.monotonic()
    while not finished.has_ready():
        with finished.thread_condition:
            finished.thread_condition.wait(timeout=0.1)
        now = time.monotonic()
        if now - asked < _ASK_EVERY:
            continue
        asked = now
        if client.status != "running" or present(client):
            seen = now
        elif now - seen > PATIENCE:
            raise ClusterError(
                f"The cluster has had no worker for {PATIENCE:.0f} seconds. What is done is kept; start workers and "
                "use --resume."
            )
    return next(finished)


def _next(batches: Iterator[Batch]) -> list[Batch]:
    """Return the next batch, if there is one."""
    batch = next(batches, None)
    return [] if batch is None else [batch]


def _outcome(future: Future, client: Client) -> Any:  # whatever the task returned
    """Return a finished future's result, the reason of its failure in one line, or that it was lost.

    Raises
    ------
    ClusterError
        If the scheduler or all workers were lost, so that no region can be done any more.
    SinkLostError
        If the sink cannot be written: every further region would be computed in vain.
    """
    if future.status == "finished":
        try:
            return future.result(timeout=_ASK_EVERY)
        except TimeoutError:  # its worker died while the result was fetched: this may never end
            return _Lost()
        except Exception as error:
            if future.status == "finished":
                return _reason(error)
    if future.status == "error":
        return _reason(future.exception())
    if client.status == "running" and future.status != "cancelled":
        return _Lost()
    raise ClusterError("The connection to the scheduler was lost. What is done is kept; use --resume.")


def _reason(error: BaseException | None) -> str | _Doubtful:
    """Return in one line why a task failed, unless that ends the run."""
    from distributed import KilledWorker

    if type(error).__name__ == "NoWorkerError":
        raise ClusterError("No worker is left. What is done is kept; start workers and use --resume.")
    if isinstance(error, SinkLostError):
        raise error
    if isinstance(error, KilledWorker):
        return _Doubtful("its worker was killed every time, most likely for memory; try a larger --memory")
    reason = str(error) if isinstance(error, UnetDaskError) else f"{type(error).__name__}: {error}"
    line = " ".join(reason.split())
    return _Doubtful(line, unanswered=True) if isinstance(error, UnreachableError) else line
