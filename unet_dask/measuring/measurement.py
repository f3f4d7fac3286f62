"""What was measured, in a few numbers."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Self

from unet_dask.measuring.tally import PlaneCount, counted, number_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from unet_dask.measuring.columns import Columns


@dataclass(frozen=True, slots=True)
class Measurement:
    """What was measured, in a few numbers; the table itself if it was not written to a file.

    Attributes
    ----------
    path : of the table; None if `columns` holds it
    objects : how many there are
    median : of their areas in pixels, or volumes in voxels; None if there are none
    physical : the same in `unit`; None if the size of a pixel is not known
    unit : "um2" or "um3"
    extent : what was segmented in square or cubic millimetres, the tissue of a run with a mask; None if not known
    density : objects per square or cubic millimetre of that
    masked : whether a mask says what was segmented
    classes : objects of each class
    planes : objects of each plane, where planes have objects of their own
    notes : what the user should know
    columns : the table, by names; None if it was written to a file
    """

    path: Path | None
    objects: int
    median: float | None
    physical: float | None
    unit: str
    extent: float | None
    density: float | None
    masked: bool
    classes: Mapping[str, int]
    planes: tuple[PlaneCount, ...]
    notes: tuple[str, ...]
    columns: Columns | None = field(default=None, repr=False, compare=False)

    def to_json(self) -> dict[str, object]:
        """Return the numbers for programs."""
        said = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "columns"}
        planes = [plane.to_json() for plane in self.planes]
        return said | {"path": None if self.path is None else str(self.path), "planes": planes}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Return what :meth:`to_json` has said, of a table that is not written out yet.

        Raises
        ------
        KeyError, TypeError, ValueError, AttributeError
            If it has said something else.
        """
        return cls(
            path=None,
            objects=int(document["objects"]),
            median=number_of(document["median"]),
            physical=number_of(document["physical"]),
            unit={"um2": "um2", "um3": "um3"}[document["unit"]],
            extent=number_of(document["extent"]),
            density=number_of(document["density"]),
            masked=bool(document["masked"]),
            classes=counted(document["classes"]),
            planes=tuple(map(PlaneCount.from_json, document["planes"])),
            notes=tuple(document["notes"]),
        )

    def lines(self) -> Iterator[tuple[str, str]]:
        """Yield what was measured for people: a label and a text for each line."""
        yield "objects", f"{self.objects}"
        if len(self.classes) > 1:
            yield "of classes", ", ".join(f"{count} {name}" for name, count in self.classes.items())
        if self.median is not None:
            flat = self.unit == "um2"
            size = f"{self.median:g} {'pixels' if flat else 'voxels'}"
            known = "" if self.physical is None else f", {self.physical:.4g} {self.unit}"
            yield f"median {'area' if flat else 'volume'}", size + known
        if self.extent is not None and self.density is not None:
            unit, of = self.unit.replace("um", "mm"), "the mask" if self.masked else "the image"
            yield f"objects per {unit}", f"{self.density:.4g} ({self.extent:.4g} {unit} of {of})"
        if len(self.planes) > 1:
            yield "objects per plane", self._spread()
        if self.path is not None:
            yield "table", str(self.path)
        for note in self.notes:
            yield "note", note

    def _spread(self) -> str:
        """Return in which plane there are fewest objects, and in which most."""
        least, most = (how(self.planes, key=lambda plane: plane.objects) for how in (min, max))
        shown = (
            f"{plane.objects} ({', '.join(f'{axis} {at:g}' for axis, at in plane.place.items())})"
            for plane in (least, most)
        )
        return f"{' to '.join(shown)}, {self.objects / len(self.planes):.4g} on average of {len(self.planes)}"
