"""What a run told while it went on, kept in bounded memory whatever the number of its regions."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from unet_dask.dispatch import Failure
from unet_dask.run.events import Progress, Remark, Stage, Started

if TYPE_CHECKING:
    from unet_dask.graph import Record
    from unet_dask.run.events import Event
    from unet_dask.tiling.box import Interval

#: Stages in which regions are done, by networks and without.
_COMPUTED, _BACKGROUND = "regions", "background"
#: Times of regions that are kept; when there are more, every second one is dropped, again and again.
_KEPT = 4000
#: Failures that are kept; beyond, they are counted.
_FAILURES = 1000


@dataclass(slots=True)
class WorkerTold:
    """What one worker did.

    Attributes
    ----------
    pieces : of work
    seconds : in them
    peak_bytes : most resident memory
    """

    pieces: int = 0
    seconds: float = 0.0
    peak_bytes: int = 0


@dataclass(slots=True)
class Journal:
    """A listener that remembers a run.

    Attributes
    ----------
    began : on the clock of `perf_counter`
    started : what the run told when its work began; None before
    stages : name, and seconds since the beginning at which it began and at which its last piece was done
    regions, voxels : computed by networks this time
    background : regions that a mask leaves out, written this time
    blocks : other pieces of work done this time
    workers : by the number of their process
    times : seconds since the beginning, and seconds in the task, of regions; of many, some
    failures : the first of them
    failed : how many there were
    remarks : told at the end
    """

    began: float = field(default_factory=time.perf_counter)
    started: Started | None = None
    stages: list[tuple[str, float, float]] = field(default_factory=list)
    regions: int = 0
    voxels: int = 0
    background: int = 0
    blocks: int = 0
    workers: dict[int, WorkerTold] = field(default_factory=dict)
    times: list[tuple[float, float]] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    failed: int = 0
    remarks: list[str] = field(default_factory=list)
    _every: int = 1

    def __call__(self, event: Event) -> None:
        """Remember one event."""
        now = time.perf_counter() - self.began
        if isinstance(event, Started):
            self.started = event
            self.stages = [
                (name, since, now) for name, since, _ in self.stages
            ]  # the statistics, done by now
        elif isinstance(event, Stage):
            self.stages.append((event.name, now, now))
        elif isinstance(event, Remark):
            self.remarks.append(event.text)
        else:
            self._progress(event, now)

    def _progress(self, event: Progress, now: float) -> None:
        name, since, _ = self.stages[-1] if self.stages else ("", now, now)
        self.stages[-1:] = [(name, since, now)]
        if isinstance(event.outcome, Failure):
            self.failed += 1
            if len(self.failures) < _FAILURES:
                self.failures.append(event.outcome)
            return
        self._worker(event.outcome)
        if name == _COMPUTED:
            self._region(event.outcome, now)
        elif name == _BACKGROUND:
            self.background += 1
        else:
            self.blocks += 1

    def _worker(self, record: Record) -> None:
        told = self.workers.setdefault(record.worker, WorkerTold())
        told.pieces += 1
        told.seconds += record.seconds
        told.peak_bytes = max(told.peak_bytes, record.peak_bytes)

    def _region(self, record: Record, now: float) -> None:
        assert self.started is not None
        self.voxels += voxels(self.started.plan.grid.write(record.entry.index))
        if self.regions % self._every == 0:
            self.times.append((now, record.seconds))
        self.regions += 1
        if len(self.times) > _KEPT:
            self.times = self.times[::2]
            self._every *= 2

    @property
    def seconds_computing(self) -> float:
        """Wall time in which networks were run."""
        return sum(until - since for name, since, until in self.stages if name == _COMPUTED)


def voxels(intervals: tuple[Interval, ...]) -> int:
    """Return the voxels of a box."""
    return math.prod(stop - start for start, stop in intervals)
