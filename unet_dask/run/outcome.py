"""What a run came to."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from unet_dask.config import format_bytes
from unet_dask.io.remote import redact_url

if TYPE_CHECKING:
    from unet_dask.part import Part
    from unet_dask.planning.plan import Plan


@dataclass(frozen=True, slots=True)
class Run:
    """The outcome of a run.

    Attributes
    ----------
    sink : path or URL of the Zarr group
    plan : what was done
    regions : number of regions of the run, or of this driver's part; all of them done
    computed : pieces of work done this time; less than all after a resume
    seconds : of wall time, workers' start included
    peak_bytes : most resident memory that any worker had, 0 if nothing was computed
    notes : what the user should know
    part : of several independent drivers, which this was; None for the only one
    remaining : regions that other parts have not done yet
    complete : whether the whole run is done, pyramids included; without parts it always is
    table : path or URL of the table of objects; "" if none was asked for, or the run is not complete
    """

    sink: str
    plan: Plan
    regions: int
    computed: int
    seconds: float
    peak_bytes: int
    notes: tuple[str, ...] = ()
    part: Part | None = None
    remaining: int = 0
    complete: bool = True
    table: str = ""

    def summary(self) -> str:
        """Return one line for people."""
        if not self.complete:
            left = (
                f"{self.remaining} of {len(self.plan.grid)} regions remain to other parts"
                if self.remaining
                else "all regions are done, and another part completes the run"
            )
            return (
                f"part {self.part} of {redact_url(self.sink)} is complete: {self.regions} regions, {self.computed} of "
                f"them in these {self.seconds:.1f} s; {left}"
            )
        if self.part is not None:  # the rate of a run is not that of its last part
            return (
                f"{redact_url(self.sink)}: all {len(self.plan.grid)} regions; part {self.part} was the last, "
                f"{self.computed} blocks in {self.seconds:.1f} s, peak "
                f"{format_bytes(self.peak_bytes)} per worker"
            )
        voxels = math.prod(stop - start for start, stop in self.plan.grid.roi)
        return (
            f"{redact_url(self.sink)}: {self.regions} regions, {self.computed} blocks in {self.seconds:.1f} s "
            f"({voxels / 1e6 / self.seconds:.2f} Mvoxel/s), peak {format_bytes(self.peak_bytes)} per worker"
        )

    def to_json(self) -> dict[str, object]:
        """Return the outcome for programs."""
        return {
            "sink": redact_url(self.sink),
            "regions": self.regions,
            "computed": self.computed,
            "seconds": self.seconds,
            "peak_bytes": self.peak_bytes,
            "notes": list(self.notes),
            "part": None if self.part is None else str(self.part),
            "remaining": self.remaining,
            "complete": self.complete,
            "table": redact_url(self.table) or None,
            "plan": self.plan.to_json(),
        }
