"""What a verification says: findings, each one line that names the place, and the figures beside them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from unet_dask.config import format_bytes
from unet_dask.io.remote import redact_url
from unet_dask.tiling.box import Box

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

#: What can be wrong: a node's metadata, the ledger, stored values, stored bytes whose values are right, a voxel that
#: was never written, the source, values that the network does not give, objects that the classes do not give, a face
#: between tiles.
Kind = Literal["metadata", "ledger", "values", "bytes", "sentinel", "source", "crop", "objects", "seam"]
#: Of a piece of work in the ledger: level, index.
Key = tuple[int, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong with a sink.

    Attributes
    ----------
    kind : of what is wrong
    text : one line for people, without the place
    product : "" if it is not one product's
    level : of the pyramid; None if it is no array's
    box : (start, stop) per axis; in voxels of the source at level 0, of the level's own array above
    pieces : of work that must be done again; empty where that would not help
    """

    kind: Kind
    text: str
    product: str = ""
    level: int | None = None
    box: Mapping[str, tuple[int, int]] | None = None
    pieces: tuple[Key, ...] = ()

    @property
    def place(self) -> str:
        """The place for people: product, level and box, as far as there are any."""
        level = "" if self.level is None else f"level {self.level}"
        box = Box("".join(self.box), tuple(self.box.values())).text if self.box else ""
        return ", ".join(part for part in (self.product, level, box) if part)

    def line(self) -> str:
        """Return one line for people."""
        return f"{self.kind}: {self.place}: {self.text}" if self.place else f"{self.kind}: {self.text}"

    def to_json(self) -> Mapping[str, object]:
        """Return the same for programs."""
        box = None if self.box is None else {axis: list(interval) for axis, interval in self.box.items()}
        found = {"kind": self.kind, "product": self.product or None, "level": self.level, "box": box}
        return found | {"text": self.text, "repairable": bool(self.pieces)}


@dataclass(frozen=True, slots=True)
class Verification:
    """The outcome of a verification.

    Attributes
    ----------
    sink : path or URL
    findings : what is wrong, after a repair what is still wrong
    notes : what was not looked at, and why
    pieces : of work whose values were compared with the ledger
    read_bytes : of values that were read
    crops : boxes that were recomputed from the source
    objects : objects that were made again of the stored classes
    seams : score of the faces between tiles per axis, about 1 without seams; only axes with enough faces
    repaired : pieces of work that were done again
    seconds : of wall time
    """

    sink: str
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    pieces: int
    read_bytes: int
    crops: int
    seams: Mapping[str, float]
    repaired: int
    seconds: float
    objects: int = 0

    @property
    def whole(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings

    def lines(self) -> Iterator[str]:
        """Yield findings, notes and a summary for people, one line each."""
        yield from (finding.line() for finding in self.findings)
        yield from (f"note: {note}" for note in self.notes)
        yield self.summary()

    def summary(self) -> str:
        """Return one line for people."""
        state = "whole and right" if self.whole else f"{len(self.findings)} finding(s)"
        seams = ", ".join(f"{axis} {score:.2f}" for axis, score in self.seams.items())
        told = [
            f"{redact_url(self.sink)}: {state}",
            f"{self.pieces} checksums over {format_bytes(self.read_bytes)}",
            f"{self.crops} crops recomputed",
            f"{self.objects} objects made again" if self.objects else "",
            f"seam score {seams}" if seams else "no seam score",
            f"{self.repaired} blocks repaired" if self.repaired else "",
            f"{self.seconds:.1f} s",
        ]
        return "; ".join(part for part in told if part)

    def to_json(self) -> dict[str, object]:
        """Return the outcome for programs."""
        return {
            "sink": redact_url(self.sink),
            "whole": self.whole,
            "findings": [finding.to_json() for finding in self.findings],
            "notes": list(self.notes),
            "pieces": self.pieces,
            "read_bytes": self.read_bytes,
            "crops": self.crops,
            "objects": self.objects,
            "seams": dict(self.seams),
            "repaired": self.repaired,
            "seconds": self.seconds,
        }
