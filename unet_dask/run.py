"""One run on one sink: what it is told, what it remembers, and what it says on the way."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from unet_dask.config import SegmentConfig, format_bytes
from unet_dask.engine.cache import NetworkKey
from unet_dask.errors import MismatchError
from unet_dask.io.remote import redact_url
from unet_dask.part import Part, parse_part

if TYPE_CHECKING:
    from collections.abc import Mapping

    from unet_dask.dispatch import Failure
    from unet_dask.graph import Record
    from unet_dask.io.source.mask import Mask
    from unet_dask.io.source.volume import Source
    from unet_dask.model.file import ModelFile
    from unet_dask.plan import Plan


@dataclass(frozen=True, slots=True)
class Started:
    """The plan is made and the sink is there; work begins.

    Attributes
    ----------
    plan : of the run
    sink : path or URL
    done, total : pieces of work, regions and pyramid blocks together
    notes : what the user should know, one line each
    """

    plan: Plan
    sink: str
    done: int
    total: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Stage:
    """A part of the run begins, such as "statistics", "regions" or "pyramid"."""

    name: str


@dataclass(frozen=True, slots=True)
class Progress:
    """A piece of work is finished and in the ledger, or has failed."""

    outcome: Record | Failure
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Remark:
    """What the user should know, told once the work is done."""

    text: str


#: What a failed region may make a user change before she resumes; the regions that are done do not see it.
_MENDABLE = frozenset({"setting.nan", "source.content"})
#: Fields of a fingerprint by their beginnings, causes first: a change of one of them changes later ones too.
_CAUSES = (
    *("source.", "model.", "setting.", "software."),
    *("plan.roi", "plan.products", "plan.device", "plan.precision", "plan.region", "plan.tile"),
)

Event = Started | Stage | Progress | Remark
Listener = Callable[[Event], None]


@dataclass(frozen=True, slots=True)
class Prepared:
    """A run that is planned but not begun."""

    source: Source
    model: ModelFile
    config: SegmentConfig
    plan: Plan
    mask: Mask | None = None

    @property
    def part(self) -> Part | None:
        """Part of the regions that this driver does; None for all, pyramids included."""
        return None if self.config.part is None else parse_part(self.config.part)

    def key(self) -> NetworkKey:
        """Return the name by which workers know the network."""
        return NetworkKey(
            str(self.model.path.resolve()),
            self.model.checksum,
            self.plan.device,
            self.plan.precision,
            self.config.backend,
        )

    def reference(self) -> NetworkKey:
        """Return the name of the same network as torch runs it in float32, which anything else is compared with."""
        return replace(self.key(), precision="float32", backend="torch")


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
                f"{self.computed} pieces of work in {self.seconds:.1f} s, peak "
                f"{format_bytes(self.peak_bytes)} per worker"
            )
        voxels = math.prod(stop - start for start, stop in self.plan.grid.roi)
        return (
            f"{redact_url(self.sink)}: {self.regions} regions, {self.computed} pieces of work in {self.seconds:.1f} s "
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
            "plan": self.plan.to_json(),
        }


def compare(
    stored: Mapping[str, str],
    current: Mapping[str, str],
    sink: str,
    *,
    mended: bool = False,
    otherwise: str = "start over with --overwrite",
) -> None:
    """Raise unless two fingerprints are the same, but for what a user vouches to have mended.

    Parameters
    ----------
    stored, current : fingerprints of the run that was begun and of this one
    sink : of the run
    mended : whether the user vouches for fields that may be mended
    otherwise : what to do who does not want to go on with the same

    Raises
    ------
    MismatchError
        Naming the first field that differs, the most likely cause, and both values.
    """
    for name in sorted({*stored, *current}, key=_cause):
        before, now = stored.get(name), current.get(name)
        if before == now or (mended and name in _MENDABLE):
            continue
        hint = ", add --mended if it was changed only where regions failed" if name in _MENDABLE else ""
        raise MismatchError(
            f"{redact_url(sink)} was begun with another {name}: {_short(before)} then, {_short(now)} now. Resume "
            f"with the same{hint}, or {otherwise}."
        )


def _cause(name: str) -> tuple[int, str]:
    """Sort what a user may have changed before what the plan derived from it."""
    rank = [place for place, prefix in enumerate(_CAUSES) if name.startswith(prefix)]
    return (rank[0] if rank else len(_CAUSES), name)


def _short(value: Any) -> str:  # a stored value of any kind
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
