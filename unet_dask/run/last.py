"""What comes after the regions: objects, pyramids, and a last look; each needs what the one before has written."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from unet_dask import graph
from unet_dask.dispatch import Failure, run_calls
from unet_dask.errors import UnetDaskError
from unet_dask.io.sink import pyramid
from unet_dask.io.sink import store as sinks
from unet_dask.ledger import Entry
from unet_dask.measuring.kept import remove_table
from unet_dask.run.events import Stage
from unet_dask.run.join import join
from unet_dask.run.making import LEVEL, Making, joined_array
from unet_dask.run.recorder import OBJECTS
from unet_dask.run.written import total_work

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from unet_dask.graph import Record
    from unet_dask.ledger import Key, Ledger
    from unet_dask.run.recorder import Outcomes, Recorder
    from unet_dask.run.written import Written
    from unet_dask.workers.cluster import Cluster


def complete(
    written: Written,
    workers: Cluster,
    sink: sinks.Sink,
    ledger: Ledger,
    recorder: Recorder,
    look: Callable[[], object],
    table: Callable[[], None] | None = None,
) -> None:
    """Do what is left when all regions are done, and call the run complete.

    Parameters
    ----------
    written, workers, sink, ledger : of the run
    recorder : of what comes of it
    look : the last one, which raises if something has changed
    table : makes that of the objects; None if nobody asked for one
    """
    finished = ledger.finished()
    recorder.count, recorder.total = len(finished), total_work(written)
    for stage, outcomes in _stages(written, workers, sink, finished):
        recorder.enter(stage, outcomes, written, sink)
    if table is not None:
        table()
    recorder.say(Stage("last look"))
    try:
        look()
    except UnetDaskError:
        remove_table(sink.url)  # it may be of what has changed
        raise
    sinks.remove_numbers(sink)
    ledger.compact(total_work(written))
    recorder.done.complete = True


def _stages(
    written: Written, workers: Cluster, sink: sinks.Sink, finished: set[Key]
) -> Iterator[tuple[str, Outcomes]]:
    """Yield what is left to do when all regions are done: each stage needs what the one before has written."""
    if joined_array(written.arrays):
        making = Making.of(
            written.arrays, written.grid, dims=written.dims, classes=written.classes, rule=written.rule
        )
        if any((LEVEL, index) not in finished for index in written.grid.indices()):
            yield OBJECTS, join(workers, sink, making, finished)
    for level in range(1, max(len(array.levels) for array in written.arrays)):
        yield f"level {level} of the pyramid", _blocks(workers, sink, level, finished)


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
