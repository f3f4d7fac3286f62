"""Where outcomes are entered: put in their place, then in the ledger, then anybody hears of them."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from unet_dask.dispatch import Failure
from unet_dask.errors import IncompleteError
from unet_dask.io.remote import redact_url
from unet_dask.objects.rule import REACH
from unet_dask.run.events import Listener, Progress, Remark, Stage
from unet_dask.run.making import ASIDE_LEVEL
from unet_dask.run.written import files_of

if TYPE_CHECKING:
    from collections.abc import Generator

    from unet_dask.graph import Record
    from unet_dask.io.sink.session import Session
    from unet_dask.io.sink.store import Sink
    from unet_dask.ledger import Ledger
    from unet_dask.run.written import Written

    Outcomes = Generator[Record | Failure, None, None]

#: What the stage is called in which the network is run.
REGIONS = "regions"
#: And that in which objects are joined, and given their shape.
OBJECTS = "objects across regions"


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
    table : of its objects, path or URL; "" if none was asked for
    """

    computed: int = 0
    peak_bytes: int = 0
    float32_fallbacks: int = 0
    unshaped: int = 0
    remaining: int = 0
    complete: bool = False
    table: str = ""


class Recorder:
    """Where outcomes are entered: put in their place, then in the ledger, then anybody hears of them."""

    def __init__(self, ledger: Ledger, session: Session, on_event: Listener, count: int, total: int) -> None:
        self.done = Done()
        self.count = count
        self.total = total
        self._ledger = ledger
        self._session = session
        self.say = on_event

    def enter(self, stage: str, outcomes: Outcomes, written: Written, sink: Sink) -> None:
        """Enter all outcomes of a stage, and raise in the end if there were failures.

        What is in flight when an error or Ctrl-C ends the stage is cancelled before anybody leaves the cluster.
        """
        self.say(Stage(stage))
        failures = []
        with closing(outcomes):
            for outcome in outcomes:
                if isinstance(outcome, Failure):
                    failures.append(outcome)
                else:
                    self._session.place(outcome.attempt, files_of(written, outcome.entry.key))
                    self.done.unshaped += outcome.unshaped
                    self.done.peak_bytes = max(self.done.peak_bytes, outcome.peak_bytes)
                    if outcome.entry.level == ASIDE_LEVEL:
                        continue
                    self._ledger.append(outcome.entry)
                    self.count += 1
                    self.done.computed += 1
                    self.done.float32_fallbacks += outcome.float32_fallbacks
                self.say(Progress(outcome, self.count, self.total))
        if stage == REGIONS and self.done.float32_fallbacks:
            self.say(
                Remark(
                    f"{self.done.float32_fallbacks} tiles reach further than what was measured for int8, and were run "
                    "in float32"
                )
            )
        if stage == OBJECTS and self.done.unshaped:
            reach = REACH[written.dims]
            self.say(
                Remark(f"{self.done.unshaped} objects are longer than {reach} pixels, and stay as they are")
            )
        if failures:
            raise IncompleteError(_report(failures, written, sink, self.total))


def _report(failures: list[Failure], written: Written, sink: Sink, total: int) -> str:
    """Return one line about what failed: how much, where first, and what to do."""
    named = []
    for failure in failures[:5]:
        if failure.level > 0:
            named.append(f"pyramid level {failure.level} block {failure.index}: {failure.reason.rstrip('.')}")
            continue
        place = written.grid.box(failure.index).in_space_and_time.text
        named.append(f"[{place}] {failure.reason.rstrip('.')}")
    more = f"; and {len(failures) - 5} more" if len(failures) > 5 else ""
    return (
        f"{len(failures)} of {total} regions failed, all others are written: {'; '.join(named)}{more}. "
        f"Mend the cause, then --resume (with --source-fixed if that changed the source) {redact_url(sink.url)}."
    )
