"""The work of a run: what the ledger does not hold yet, region by region, then level by level.

Every finished piece goes into the ledger before anybody hears of it; a failed one is kept for the report, and
all others go on.
"""

from __future__ import annotations

import itertools
import math
import os
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from unet_dask import graph
from unet_dask.dispatch import Failure, run_calls, run_waves
from unet_dask.engine.augment import symmetries
from unet_dask.io.sink import lock as locks
from unet_dask.io.sink import place as places
from unet_dask.io.sink import session as sessions
from unet_dask.io.sink import store as sinks
from unet_dask.io.source.lazy_window import LazyWindow
from unet_dask.measuring.kept import remove_table
from unet_dask.part import WHOLE
from unet_dask.run import seal
from unet_dask.run.events import Listener, Started
from unet_dask.run.last import complete
from unet_dask.run.recorder import REGIONS, Done, Recorder
from unet_dask.run.table import make_table, of_run
from unet_dask.run.written import total_work
from unet_dask.workers import watchdog

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from unet_dask.io.sink.session import Session
    from unet_dask.ledger import Key, Ledger
    from unet_dask.model.header import Normalisation
    from unet_dask.planning.plan import Plan
    from unet_dask.run.prepared import Prepared
    from unet_dask.run.recorder import Outcomes
    from unet_dask.workers.cluster import Cluster

#: Regions of a wave, at most; its worker reads what they share once. Larger waves read less context twice, and more
#: is blamed on the death of a worker.
_WAVE = 16
#: Regions that are given out before every worker has some; with many workers the first waves are smaller.
_FIRST = 512


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
    if part is None and not ledger.complete():  # of a part, another driver may just have made it
        remove_table(sink.url)
    before = sum((0, index) in finished for index in plan.grid.stretch(own))
    count, total = (len(finished), total_work(plan)) if part is None else (before, len(own))
    on_event(Started(plan, sink.url, count, total, notes))
    sink = replace(sink, session=session.name)
    recorder = Recorder(ledger, session, on_event, count, total)
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
            complete(
                plan,
                workers,
                sink,
                ledger,
                recorder,
                lambda: seal.require_whole(prepared, workers, sink, ledger),
                partial(
                    make_table, workers, sink.url, plan.limit, ledger, recorder, partial(of_run, prepared)
                )
                if prepared.config.measure
                else None,
            )
    return recorder.done


def _finished(plan: Plan, sink: sinks.Sink, ledger: Ledger, *, alone: bool) -> set[Key]:
    """Return the work that is recorded and still there; what has vanished is taken out, unless others are writing."""
    finished = ledger.finished()
    lost = seal.vanished(plan, sink, finished)
    if lost and alone:  # later stages ask the ledger again
        ledger.forget(lost)
    return finished - lost


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
    yield REGIONS, _regions(prepared, workers, sink, task, own, finished)
    if plan.skipped:
        missing = (i for i in plan.grid.stretch(own) if i in plan.skipped and (0, i) not in finished)
        yield "background", _background(workers, sink, task, missing)


def _task(prepared: Prepared, workers: Cluster, constants: Normalisation) -> graph.RegionTask:
    """Return what workers compute of each region."""
    plan = prepared.plan
    return graph.RegionTask(
        grid=plan.grid,
        # Basins are numbered when all regions are there: they need a voxel around.
        outputs=tuple(each for each in plan.outputs if not (each.joined and plan.rule.threshold)),
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
    flop = planes * tiles * float(network.flop(plan.tile))
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
