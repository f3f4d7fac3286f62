"""The work of a run: what the ledger does not hold yet, region by region, then level by level.

Every finished piece goes into the ledger before anybody hears of it; a failed one is kept for the report, and
all others go on.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from unet_dask import graph, join
from unet_dask.dispatch import Failure, run_calls, run_waves
from unet_dask.errors import IncompleteError
from unet_dask.io.remote import redact_url
from unet_dask.io.sink import pyramid
from unet_dask.ledger import Entry
from unet_dask.run import Listener, Prepared, Progress, Stage, Started

if TYPE_CHECKING:
    from collections.abc import Iterator

    from unet_dask.cluster import Cluster
    from unet_dask.graph import Record
    from unet_dask.io.sink import store as sinks
    from unet_dask.ledger import Ledger
    from unet_dask.model.header import Normalisation
    from unet_dask.plan import Plan

#: Regions of a wave per worker, and at least. Larger waves read less context twice, and hold more input.
_WAVE_PER_WORKER = 2
_WAVE_AT_LEAST = 4


def work(
    prepared: Prepared,
    workers: Cluster,
    sink: sinks.Sink,
    ledger: Ledger,
    constants: Normalisation,
    tell: Listener,
    notes: tuple[str, ...],
) -> tuple[int, int]:
    """Do what the ledger does not hold yet; return the pieces of work done and the workers' peak memory."""
    plan = prepared.plan
    done = set(ledger.entries())
    count, total = len(done), total_work(plan)
    tell(Started(plan, sink.url, count, total, notes))
    computed, peak, failures = 0, 0, []
    for outcome in _outcomes(prepared, workers, sink, done, constants, tell):
        if isinstance(outcome, Failure):
            failures.append(outcome)
        else:
            ledger.append(outcome.entry)
            done.add(outcome.entry.key)
            computed, peak = computed + 1, max(peak, outcome.peak_bytes)
        tell(Progress(outcome, count + computed, total))
    if failures:
        raise IncompleteError(_report(failures, plan, sink))
    ledger.compact()
    return computed, peak


def _outcomes(
    prepared: Prepared,
    workers: Cluster,
    sink: sinks.Sink,
    done: set[tuple[int, tuple[int, ...]]],
    constants: Normalisation,
    tell: Listener,
) -> Iterator[Record | Failure]:
    """Yield the outcomes of all stages; a stage with failures is the last."""
    for stage, outcomes in _stages(prepared, workers, sink, done, constants):
        tell(Stage(stage))
        failed = False
        for outcome in outcomes:
            failed |= isinstance(outcome, Failure)
            yield outcome
        if failed:
            return


def _stages(
    prepared: Prepared,
    workers: Cluster,
    sink: sinks.Sink,
    done: set[tuple[int, tuple[int, ...]]],
    constants: Normalisation,
) -> Iterator[tuple[str, Iterator[Record | Failure]]]:
    """Yield the stages that have something left to do: each needs what the one before has written."""
    plan = prepared.plan
    missing = {index for index in plan.grid.indices() if (0, index) not in done}
    task = _task(prepared, workers, constants)
    if missing - plan.skipped:
        yield "regions", _regions(prepared, workers, sink, task, missing - plan.skipped)
    if missing & plan.skipped:
        yield "background", _background(workers, sink, task, sorted(missing & plan.skipped))
    if _joins(plan) and any((join.LEVEL, index) not in done for index in plan.grid.indices()):
        network = plan.header.network
        several = network.classes > 2
        yield (
            "objects across regions",
            join.join(workers, sink, plan.grid, network.dims, done, several=several),
        )
    for level in range(1, max(len(array.levels) for array in plan.arrays)):
        yield f"level {level} of the pyramid", _blocks(workers, sink, level, done)


def _joins(plan: Plan) -> bool:
    """Return whether objects are to be joined across regions."""
    return any(each.name == join.PRODUCT for each in plan.outputs)


def _task(prepared: Prepared, workers: Cluster, constants: Normalisation) -> graph.RegionTask:
    """Return what workers compute of each region."""
    plan = prepared.plan
    return graph.RegionTask(
        grid=plan.grid,
        outputs=plan.outputs,
        network=prepared.key(),
        normalisation=constants,
        dims=prepared.model.header.network.dims,
        classes=prepared.model.header.network.classes,
        threads=workers.threads,
        nan=prepared.config.nan,
        tta=prepared.config.tta,
        mask=prepared.mask,
    )


def _regions(
    prepared: Prepared,
    workers: Cluster,
    sink: sinks.Sink,
    task: graph.RegionTask,
    wanted: set[tuple[int, ...]],
) -> Iterator[Record | Failure]:
    plan, source = prepared.plan, prepared.source
    return run_waves(
        workers.client,
        plan.grid.waves(max(_WAVE_PER_WORKER * workers.workers, _WAVE_AT_LEAST)),
        wanted,
        lambda wave: graph.wave_array(
            source.spec, source.dtype, wave, graph.WriteRegion(task, sink, wave.start)
        ),
        low_water=workers.workers,
    )


def _background(
    workers: Cluster, sink: sinks.Sink, task: graph.RegionTask, indices: list[tuple[int, ...]]
) -> Iterator[Record | Failure]:
    """Write the regions that the mask does not touch."""
    calls = ((index, (sink, task, index)) for index in indices)
    for index, outcome in run_calls(
        workers.client, graph.write_background, calls, in_flight=4 * workers.workers
    ):
        yield Failure(index, 0, outcome) if isinstance(outcome, str) else outcome


def _blocks(
    workers: Cluster, sink: sinks.Sink, level: int, done: set[tuple[int, tuple[int, ...]]]
) -> Iterator[Record | Failure]:
    """Make one level of every product's pyramid."""
    calls = (
        ((number, *index), (sink, array, level, (number, *index)))
        for number, array in enumerate(sink.arrays)
        if level < len(array.levels)
        for index in pyramid.block_indices(array, level)
        if (level, (number, *index)) not in done
    )
    for index, outcome in run_calls(workers.client, _write_block, calls, in_flight=4 * workers.workers):
        yield Failure(index, level, outcome) if isinstance(outcome, str) else outcome


def _write_block(sink: sinks.Sink, array: sinks.ArraySpec, level: int, index: tuple[int, ...]) -> Record:
    """Make one block of a pyramid level on a worker; the index begins with the number of the product."""
    began = time.perf_counter()
    checksum = pyramid.write_block(sink, array, level, index[1:])
    return graph.record(Entry(index, level, {array.name: checksum}), began)


def total_work(plan: Plan) -> int:
    """Return the pieces of work of a run: regions, twice if their objects are joined, and blocks of all pyramids."""
    blocks = sum(
        1
        for array in plan.arrays
        for level in range(1, len(array.levels))
        for _ in pyramid.block_indices(array, level)
    )
    return len(plan.grid) * (1 + _joins(plan)) + blocks


def _report(failures: list[Failure], plan: Plan, sink: sinks.Sink) -> str:
    """Return one line about what failed: how much, where first, and what to do."""
    named = []
    for failure in failures[:5]:
        if failure.level > 0:
            named.append(f"pyramid level {failure.level} block {failure.index}: {failure.reason.rstrip('.')}")
            continue
        place = ", ".join(
            f"{axis} {start}:{stop}"
            for axis, (start, stop) in zip(plan.grid.axes, plan.grid.write(failure.index), strict=True)
            if axis != "c"
        )
        named.append(f"[{place}] {failure.reason.rstrip('.')}")
    more = f"; and {len(failures) - 5} more" if len(failures) > 5 else ""
    return (
        f"{len(failures)} of {total_work(plan)} regions failed, all others are written: {'; '.join(named)}{more}. "
        f"Mend the cause, then --resume (with --mended if that changed the source) {redact_url(sink.url)}."
    )
