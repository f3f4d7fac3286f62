"""The work of a run: what the ledger does not hold yet, region by region, then level by level.

Every finished piece goes into the ledger before anybody hears of it; a failed one is kept for the report, and
all others go on.
"""

from __future__ import annotations

import itertools
import math
import os
import time
from contextlib import closing, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from unet_dask import graph
from unet_dask.dispatch import Failure, run_calls, run_waves
from unet_dask.engine.augment import symmetries
from unet_dask.errors import IncompleteError
from unet_dask.io.remote import redact_url
from unet_dask.io.sink import lock as locks
from unet_dask.io.sink import place as places
from unet_dask.io.sink import pyramid
from unet_dask.io.sink import session as sessions
from unet_dask.io.sink import store as sinks
from unet_dask.io.source.lazy_window import LazyWindow
from unet_dask.ledger import Entry
from unet_dask.model.cost import tile_flop
from unet_dask.objects.rule import REACH
from unet_dask.part import WHOLE
from unet_dask.run import seal
from unet_dask.run.events import Listener, Progress, Remark, Stage, Started
from unet_dask.run.join import join
from unet_dask.run.making import ASIDE_LEVEL, LEVEL, Making, joined_array
from unet_dask.workers import watchdog

if TYPE_CHECKING:
    from collections.abc import Collection, Generator, Iterable, Iterator

    from unet_dask.graph import Record
    from unet_dask.io.sink.session import Session
    from unet_dask.ledger import Key, Ledger
    from unet_dask.model.header import Normalisation
    from unet_dask.planning.plan import Plan
    from unet_dask.run.prepared import Prepared
    from unet_dask.workers.cluster import Cluster

    Outcomes = Generator[Record | Failure, None, None]

#: What the stage is called in which the network is run.
_REGIONS = "regions"
#: And that in which objects are joined, and given their shape.
_OBJECTS = "objects across regions"
#: Regions of a wave, at most; its worker reads what they share once. Larger waves read less context twice, and more
#: is blamed on the death of a worker.
_WAVE = 16
#: Regions that are given out before every worker has some; with many workers the first waves are smaller.
_FIRST = 512


@dataclass(slots=True)
class Done:
    """What a driver has done, and what is left.

    Attributes
    ----------
    computed : pieces of work
    peak_bytes : most resident memory of any worker
    float32_fallbacks : tiles that were run in float32 because they reach beyond what bytes can say
    unshaped : objects that are too large to be given another shape than their piece's
    remaining : regions that other parts have not done yet
    complete : whether the whole run is done, pyramids included
    """

    computed: int = 0
    peak_bytes: int = 0
    float32_fallbacks: int = 0
    unshaped: int = 0
    remaining: int = 0
    complete: bool = False


def work(
    prepared: Prepared,
    workers: Cluster,
    sink: sinks.Sink,
    ledger: Ledger,
    constants: Normalisation,
    on_event: Listener,
    notes: tuple[str, ...],
    session: Session,
) -> Done:
    """Do what the ledger does not hold yet: all of it, or the regions of a part and perhaps what comes after all.

    Of several drivers, one that finds all regions done when its own are makes the pyramids, and one ledger of all.
    If none did, because it was killed, whoever comes next does: a part that is started again, or a run without
    parts.
    """
    plan, part = prepared.plan, prepared.part
    own = (part or WHOLE).stretch(len(plan.grid))
    seal.forget_stale(prepared, workers, ledger)
    finished = _finished(plan, sink, ledger, alone=part is None)
    before = sum((0, index) in finished for index in plan.grid.stretch(own))
    count, total = (len(finished), total_work(plan)) if part is None else (before, len(own))
    on_event(Started(plan, sink.url, count, total, notes))
    sink = replace(sink, session=session.name)
    recorder = _Recorder(ledger, session, on_event, count, total)
    if before < len(own):
        for stage, outcomes in region_stages(prepared, workers, sink, own, finished, constants):
            recorder.enter(stage, outcomes, plan, sink)
    del finished  # of a large volume it is large
    if part is not None:
        recorder.done.remaining = _remaining(plan, ledger)
        if recorder.done.remaining:
            return recorder.done
    with nullcontext(True) if part is None else locks.finishing(sink.url) as chosen:
        if chosen and part is not None:  # drivers that were killed may never come back
            sessions.end_all(sink.url, but=session.name)
            places.sweep(sink.url)
            locks.sweep(sink.url)
        if chosen:
            seal.require_numbers(plan, sink, ledger)
            finished = ledger.finished()
            recorder.count, recorder.total = len(finished), total_work(plan)
            for stage, outcomes in _last_stages(plan, workers, sink, finished):
                recorder.enter(stage, outcomes, plan, sink)
            on_event(Stage("last look"))
            seal.require_whole(prepared, workers, sink, ledger)
            sinks.remove_numbers(sink)
            ledger.compact(total_work(plan))
            recorder.done.complete = True
    return recorder.done


def _finished(plan: Plan, sink: sinks.Sink, ledger: Ledger, *, alone: bool) -> set[Key]:
    """Return the work that is recorded and still there; what has vanished is taken out, unless others are writing."""
    finished = ledger.finished()
    lost = seal.vanished(plan, sink, finished)
    if lost and alone:  # later stages ask the ledger again
        ledger.forget(lost)
    return finished - lost


class _Recorder:
    """Where outcomes are entered: put in their place, then in the ledger, then anybody hears of them."""

    def __init__(self, ledger: Ledger, session: Session, on_event: Listener, count: int, total: int) -> None:
        self.done = Done()
        self.count = count
        self.total = total
        self._ledger = ledger
        self._session = session
        self._on_event = on_event

    def enter(self, stage: str, outcomes: Outcomes, plan: Plan, sink: sinks.Sink) -> None:
        """Enter all outcomes of a stage, and raise in the end if there were failures.

        What is in flight when an error or Ctrl-C ends the stage is cancelled before anybody leaves the cluster.
        """
        self._on_event(Stage(stage))
        failures = []
        with closing(outcomes):
            for outcome in outcomes:
                if isinstance(outcome, Failure):
                    failures.append(outcome)
                else:
                    self._session.place(outcome.attempt, seal.files_of(plan, outcome.entry.key))
                    self.done.unshaped += outcome.unshaped
                    if outcome.entry.level == ASIDE_LEVEL:
                        continue
                    self._ledger.append(outcome.entry)
                    self.count += 1
                    self.done.computed += 1
                    self.done.peak_bytes = max(self.done.peak_bytes, outcome.peak_bytes)
                    self.done.float32_fallbacks += outcome.float32_fallbacks
                self._on_event(Progress(outcome, self.count, self.total))
        if stage == _REGIONS and self.done.float32_fallbacks:
            self._on_event(
                Remark(
                    f"{self.done.float32_fallbacks} tiles reach further than what was measured for int8, and were run "
                    "in float32"
                )
            )
        if stage == _OBJECTS and self.done.unshaped:
            reach = REACH[plan.header.network.dims]
            self._on_event(
                Remark(f"{self.done.unshaped} objects are longer than {reach} pixels, and stay as they are")
            )
        if failures:
            raise IncompleteError(_report(failures, plan, sink, self.total))


def _remaining(plan: Plan, ledger: Ledger) -> int:
    """Return the number of regions that no driver has done yet."""
    return len(plan.grid) - sum(level == 0 for level, _ in ledger.finished())


def region_stages(
    prepared: Prepared,
    workers: Cluster,
    sink: sinks.Sink,
    own: range,
    finished: Collection[Key],
    constants: Normalisation,
) -> Iterator[tuple[str, Outcomes]]:
    """Yield what has to be done of the regions of a stretch: those to compute, and those that a mask leaves out."""
    plan = prepared.plan
    task = _task(prepared, workers, constants)
    yield _REGIONS, _regions(prepared, workers, sink, task, own, finished)
    if plan.skipped:
        missing = (i for i in plan.grid.stretch(own) if i in plan.skipped and (0, i) not in finished)
        yield "background", _background(workers, sink, task, missing)


def _last_stages(
    plan: Plan, workers: Cluster, sink: sinks.Sink, finished: set[Key]
) -> Iterator[tuple[str, Outcomes]]:
    """Yield what is left to do when all regions are done: each stage needs what the one before has written."""
    network = plan.header.network
    if joined_array(plan.arrays):
        making = Making.of(plan.arrays, plan.grid, dims=network.dims, classes=network.classes, rule=plan.rule)
        if any((LEVEL, index) not in finished for index in plan.grid.indices()):
            yield _OBJECTS, join(workers, sink, making, finished)
    for level in range(1, max(len(array.levels) for array in plan.arrays)):
        yield f"level {level} of the pyramid", _blocks(workers, sink, level, finished)


def _task(prepared: Prepared, workers: Cluster, constants: Normalisation) -> graph.RegionTask:
    """Return what workers compute of each region."""
    plan = prepared.plan
    return graph.RegionTask(
        grid=plan.grid,
        outputs=plan.outputs,
        network=prepared.key(),
        normalisation=constants,
        spec=prepared.model.header.network,
        threads=workers.threads,
        nan=prepared.config.nan,
        tta=prepared.config.tta,
        mask=prepared.mask,
        # Tiles of one shape stay within the plan by themselves. The copies of a region, half of what it needs, come
        # and go while no tile is run.
        core=plan.rule.core,
        memory=0 if prepared.mask is None else plan.memory.total - plan.memory.regions // 2,
    )


def _regions(
    prepared: Prepared,
    workers: Cluster,
    sink: sinks.Sink,
    task: graph.RegionTask,
    own: range,
    finished: Collection[Key],
) -> Outcomes:
    plan, source = prepared.plan, prepared.source
    window = tuple((0, size) for size in source.shape)
    volume = LazyWindow(source.spec, window, source.dtype, run=os.urandom(8).hex())
    return run_waves(
        workers.client,
        plan.grid.waves(_wave_sizes(len(own), workers.workers), own),
        lambda index: (0, index) not in finished and index not in plan.skipped,
        lambda wave: graph.wave_tasks(volume, wave, graph.WriteRegion(task, sink)),
        patience=_patience(prepared),
    )


def _patience(prepared: Prepared) -> float:
    """Return the seconds that no region may take, the largest and fullest: within a mask others are far cheaper."""
    plan, network = prepared.plan, prepared.plan.header.network
    passes = len(symmetries(prepared.config.tta, network.dims))
    before, space = plan.grid.grids[: -network.dims], plan.grid.grids[-network.dims :]
    names = plan.grid.axes[: -network.dims]
    planes = math.prod(each.longest for name, each in zip(names, before, strict=True) if name != "c")
    tiles = math.prod(len(each.tiles(each.longest)) for each in space)
    flop = planes * tiles * float(tile_flop(network, plan.tile))
    window = math.prod(grid.longest + grid.before + grid.after for grid in plan.grid.grids)
    read = window * prepared.source.dtype.itemsize
    return watchdog.patience(passes * flop, read, gpu=plan.device == "cuda")


def _wave_sizes(regions: int, workers: int) -> Iterator[int]:
    """Yield the regions of each wave, at most: a worker's share, and few at first if many workers wait for them.

    Examples
    --------
    >>> [size for size, _ in itertools.groupby(itertools.islice(_wave_sizes(10**6, 256), 1000))]
    [2, 4, 8, 16]
    """
    most = min(_WAVE, max(regions // workers, 1))
    size = max(_FIRST // workers, 2)
    while size < most:
        yield from itertools.repeat(size, workers)
        size *= 2
    yield from itertools.repeat(most)


def _background(
    workers: Cluster, sink: sinks.Sink, task: graph.RegionTask, indices: Iterable[tuple[int, ...]]
) -> Outcomes:
    """Write the regions that the mask does not touch."""
    calls = ((index, (sink, task, index)) for index in indices)
    for index, outcome in run_calls(
        workers.client, graph.write_background, calls, in_flight=4 * workers.workers
    ):
        yield Failure(index, 0, outcome) if isinstance(outcome, str) else outcome


def _blocks(workers: Cluster, sink: sinks.Sink, level: int, finished: Collection[Key]) -> Outcomes:
    """Make one level of every product's pyramid."""
    calls = (
        ((number, *index), (sink, array, level, (number, *index)))
        for number, array in enumerate(sink.arrays)
        if level < len(array.levels)
        for index in pyramid.block_indices(array, level)
        if (level, (number, *index)) not in finished
    )
    for index, outcome in run_calls(workers.client, _write_block, calls, in_flight=4 * workers.workers):
        yield Failure(index, level, outcome) if isinstance(outcome, str) else outcome


def _write_block(sink: sinks.Sink, array: sinks.ArraySpec, level: int, index: tuple[int, ...]) -> Record:
    """Make one block of a pyramid level on a worker; the index begins with the number of the product."""
    began = time.perf_counter()
    with sink.attempted() as own:
        checksum = pyramid.write_block(own, array, level, index[1:])
        return graph.record(Entry(index, level, {array.name: checksum}), began, attempt=own.attempt)


def total_work(plan: Plan) -> int:
    """Return the pieces of work of a run: regions, twice if their objects are joined, and blocks of all pyramids."""
    blocks = sum(
        1
        for array in plan.arrays
        for level in range(1, len(array.levels))
        for _ in pyramid.block_indices(array, level)
    )
    return len(plan.grid) * (1 + bool(joined_array(plan.arrays))) + blocks


def _report(failures: list[Failure], plan: Plan, sink: sinks.Sink, total: int) -> str:
    """Return one line about what failed: how much, where first, and what to do."""
    named = []
    for failure in failures[:5]:
        if failure.level > 0:
            named.append(f"pyramid level {failure.level} block {failure.index}: {failure.reason.rstrip('.')}")
            continue
        place = plan.grid.box(failure.index).in_space_and_time.text
        named.append(f"[{place}] {failure.reason.rstrip('.')}")
    more = f"; and {len(failures) - 5} more" if len(failures) > 5 else ""
    return (
        f"{len(failures)} of {total} regions failed, all others are written: {'; '.join(named)}{more}. "
        f"Mend the cause, then --resume (with --source-fixed if that changed the source) {redact_url(sink.url)}."
    )
