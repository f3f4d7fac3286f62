"""Futures: work is submitted a bounded amount at a time, each piece with a future of its own.

Never `gather`: one failed region would take the others with it. A region that fails, or kills its worker every
time, becomes a :class:`Failure` and all others go on; only the loss of the scheduler, or of all workers, ends
the run, which can then be resumed.

The scheduler blames a dead worker on everything it held, so by chance a harmless region can stand beside a deadly
one each time; and a service may be away for a minute. Whatever may have failed by no fault of its own is therefore
done once more, alone, when all else is done: what then kills its worker does so by itself.

A cluster of this process alone (:class:`unet_dask.workers.here.Here`) does each piece when its turn comes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from unet_dask.workers.here import Here
from unet_dask.workers.load import WorkerLoad
from unet_dask.workers.pending import PendingTasks, Piece, Retryable
from unet_dask.workers.watchdog import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator

    from dask.task_spec import Task
    from distributed import Client, Future

    from unet_dask.graph import Record
    from unet_dask.tiling.region import Wave
    from unet_dask.workers.pending import Batch, Index

    #: Says of a region whether it is to be done; a set of millions would be the driver's largest possession.
    Wanted = Callable[[Index], bool]
    #: Makes one task for every region of a wave.
    Build = Callable[[Wave], dict[Index, Task]]

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


def _submit_wave(
    client: Client, build: Build, wave: Wave, wanted: Wanted, priority: int, worker: str
) -> dict[Future, Piece]:
    """Submit the wanted regions of a wave, each with a future of its own."""
    from dask.highlevelgraph import HighLevelGraph

    chosen = {index: task for index, task in build(wave).items() if wanted(index)}
    tasks = {task.key: task for task in chosen.values()}
    futures = client.get(
        # A plain dictionary would be hashed task by task for a name that nobody asks for: half of a driver's time.
        HighLevelGraph({"wave": tasks}, {"wave": set()}),
        list(tasks),
        sync=False,
        priority=priority,
        workers=worker or None,
        allow_other_workers=bool(worker),
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
    *,
    patience: float = PATIENCE,
) -> Generator[Record | Failure, None, None]:
    """Run the wanted regions, wave after wave, and yield each result as it comes.

    A worker is given a wave as soon as it has no more than one region left, so that it never waits and the
    scheduler never holds more than about a wave for each. One that finishes no region in `patience` seconds is
    started anew.
    """
    if isinstance(client, Here):
        outcomes = _done_here(client, waves, wanted, build)
    else:
        batches = (
            partial(_submit_wave, client, build, wave, wanted, -number)
            for number, wave in enumerate(waves)
            if any(map(wanted, wave.indices()))
        )
        outcomes = _drain(client, batches, WorkerLoad.of(client), patience)
    for index, outcome in outcomes:
        if isinstance(outcome, str):
            yield Failure(index, 0, outcome)
        else:
            yield outcome


def _done_here(
    here: Here, waves: Iterable[Wave], wanted: Wanted, build: Build
) -> Iterator[tuple[Index, Any]]:
    """Do the wanted regions of each wave, one after the other."""
    for wave in waves:
        for index, task in build(wave).items():
            if wanted(index):
                yield index, here.outcome(task)


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
    if isinstance(client, Here):
        yield from ((index, client.outcome(function, *arguments)) for index, arguments in calls)
        return
    batches = (partial(_submit_call, client, function, index, arguments) for index, arguments in calls)
    yield from _drain(client, batches, WorkerLoad.anywhere(in_flight), PATIENCE)


def _submit_call(
    client: Client, function: Callable[..., Any], index: Index, arguments: tuple[Any, ...], _home: str
) -> dict[Future, Piece]:
    again = partial(_submit_call, client, function, index, arguments)
    return {client.submit(function, *arguments, pure=False): Piece(index, again)}


def _drain(
    client: Client, batches: Iterator[Batch], load: WorkerLoad, patience: float
) -> Iterator[tuple[Index, Any]]:
    """Submit batches while somebody has little left to do; yield what each piece came to."""
    retryable: list[tuple[Piece, Retryable]] = []
    for piece, outcome in PendingTasks(client, load, patience).outcomes(batches):
        if isinstance(outcome, Retryable):
            retryable.append((piece, outcome))
        else:
            yield piece.index, outcome
    unanswered = 0
    for piece, failed in retryable:
        outcome = failed
        if unanswered < _UNANSWERED:
            ((_, outcome),) = PendingTasks(client, WorkerLoad.anywhere(0), patience).outcomes(
                iter([piece.alone])
            )
            still = isinstance(outcome, Retryable) and outcome.unanswered
            unanswered = unanswered + 1 if still else 0
        yield piece.index, outcome.reason if isinstance(outcome, Retryable) else outcome
