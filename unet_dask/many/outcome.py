"""What became of many images: a row for each, and all of them together."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from unet_dask.config import format_bytes
from unet_dask.errors import IncompleteError
from unet_dask.io.remote import redact_url

if TYPE_CHECKING:
    from unet_dask.part import Part

#: What may become of an image: it was segmented now, it had been before, or that failed.
DONE, BEFORE, FAILED = "done", "was done", "failed"


@dataclass(frozen=True, slots=True)
class Row:
    """What became of one image.

    Attributes
    ----------
    image : its name
    source, key : path or URL, without secrets, and which image of several it is there, "" for the only one
    result : path or URL of its result
    status : "done", "was done" before this run, or "failed"
    objects : how many there are, None if none are asked for, or there are too many voxels to count in a moment
    seconds : of wall time, beside others that were in hand
    peak_bytes : most resident memory of the worker that did it, 0 if nothing was computed
    reason : why it failed, in one line
    notes : what the user should know of it
    """

    image: str
    source: str
    key: str
    result: str
    status: str
    objects: int | None = None
    seconds: float = 0.0
    peak_bytes: int = 0
    reason: str = ""
    notes: tuple[str, ...] = field(default=())

    def to_json(self) -> dict[str, object]:
        """Return it for programs."""
        return asdict(self) | {"notes": list(self.notes)}


@dataclass(frozen=True, slots=True)
class ManyRun:
    """The outcome of a run over many images.

    Attributes
    ----------
    output : folder of the results
    rows : one for each image, in the order of the images
    seconds : of wall time, workers' start included
    table : path of the table of all rows
    part : of the images, which this was; None for all
    notes : what the user should know of all images
    """

    output: str
    rows: tuple[Row, ...]
    seconds: float
    table: str
    part: Part | None = None
    notes: tuple[str, ...] = ()

    @property
    def failed(self) -> tuple[Row, ...]:
        """The images that have no result."""
        return tuple(row for row in self.rows if row.status == FAILED)

    @property
    def complete(self) -> bool:
        """Whether every image of this run, or of its part, has its result."""
        return not self.failed

    def summary(self) -> str:
        """Return one line for people."""
        count = {status: sum(row.status == status for row in self.rows) for status in (DONE, BEFORE, FAILED)}
        more = [f"{count[BEFORE]} done before"] * bool(count[BEFORE]) + [f"{count[FAILED]} failed"] * bool(
            count[FAILED]
        )
        counted = [row.objects for row in self.rows if row.objects is not None]
        what = f", {sum(counted)} objects" if counted else ""
        peak = max((row.peak_bytes for row in self.rows), default=0)
        return (
            f"{redact_url(self.output)}: {count[DONE]} images{''.join(f', {each}' for each in more)} in "
            f"{self.seconds:.1f} s{what}" + (f", peak {format_bytes(peak)} per worker" if peak else "")
        )

    def to_json(self) -> dict[str, object]:
        """Return the outcome for programs."""
        return {
            "output": redact_url(self.output),
            "table": redact_url(self.table),
            "complete": self.complete,
            "seconds": self.seconds,
            "part": None if self.part is None else str(self.part),
            "notes": list(self.notes),
            "images": [row.to_json() for row in self.rows],
        }


class ImagesFailedError(IncompleteError):
    """Some images have no result; all others have theirs.

    Attributes
    ----------
    run : what became of each
    """

    def __init__(self, run: ManyRun) -> None:
        self.run = run
        failed = run.failed
        named = ", ".join(row.image for row in failed[:3]) + f" and {len(failed) - 3} more" * (
            len(failed) > 3
        )
        others = ", all others are segmented" if len(failed) < len(run.rows) else ""
        super().__init__(
            f"{len(failed)} of {len(run.rows)} images failed ({named}){others}; "
            f"{redact_url(run.table)} says why. Mend the cause, then --resume, which does only these."
        )

    def __reduce__(self) -> tuple[type[ImagesFailedError], tuple[ManyRun]]:
        """Return what makes this error again in another process."""
        return (ImagesFailedError, (self.run,))
