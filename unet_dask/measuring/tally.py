"""What is counted beside a table of objects: how many there are of each class in each plane, and how large they are."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from unet_dask.measuring.columns import kinds_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from unet_dask.measuring.frame import Frame
    from unet_dask.measuring.sums import Rows


@dataclass(frozen=True, slots=True)
class Seen:
    """What was seen in a block.

    Attributes
    ----------
    rows : sums of its objects
    planes : in which it lies
    extent : voxels of each of them that were segmented: of a run with a mask those within
    """

    rows: Rows
    planes: tuple[slice, ...]
    extent: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class PlaneCount:
    """The objects of one plane, of those that have objects of their own.

    Attributes
    ----------
    place : of the plane in the source, by axis
    objects : how many there are
    classes : how many of each
    extent : what was segmented in square or cubic millimetres; None if not known
    density : objects per square or cubic millimetre of that
    """

    place: Mapping[str, float]
    objects: int
    classes: Mapping[str, int]
    extent: float | None
    density: float | None

    def to_json(self) -> dict[str, object]:
        """Return the same for programs."""
        said = {"objects": self.objects, "classes": dict(self.classes)}
        return {**self.place, **said, "extent": self.extent, "density": self.density}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Return what :meth:`to_json` has said.

        Raises
        ------
        KeyError, TypeError, ValueError, AttributeError
            If it has said something else.
        """
        place = {axis: at for axis in "tz" if (at := number_of(document.get(axis))) is not None}
        extent, density = (number_of(document[name]) for name in ("extent", "density"))
        return cls(place, int(document["objects"]), counted(document["classes"]), extent, density)


def counted(document: Mapping[str, Any]) -> dict[str, int]:
    """Return how many there are of each class, by a document that may be a stranger's."""
    if not all(map(str.isprintable, document)):
        raise ValueError("no names of classes")
    return {name: int(count) for name, count in document.items()}


def number_of(value: Any) -> float | None:
    """Return a number, or that it is not known, by a document that may be a stranger's."""
    if value is None or type(value) in (int, float):
        number: float | None = value
        return number
    raise ValueError("no number")


@dataclass
class Tally:
    """What is counted.

    Attributes
    ----------
    frame : where voxels lie
    classes : names, background first
    core : class that all objects are of; 0 if each has its own
    extent : of each plane the voxels that were segmented, an axis for each that counts planes
    counts : of each plane the objects of each class
    areas : of objects, as voxels -> how many; there are far fewer areas than objects
    """

    frame: Frame
    classes: tuple[str, ...]
    core: int = 0
    extent: NDArray[np.int64] = field(init=False)
    counts: NDArray[np.int64] = field(init=False)
    areas: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        planes = self.frame.shape[: len(self.frame.planes)]
        self.extent = np.zeros(planes, np.int64)
        self.counts = np.zeros((*planes, len(self.classes)), np.int64)

    def see(self, seen: Seen) -> None:
        """Count the voxels of a block."""
        self.extent[seen.planes] += seen.extent

    def count(self, rows: Rows) -> None:
        """Count objects of which all is known."""
        for area, number in zip(*(each.tolist() for each in np.unique_counts(rows["area"])), strict=True):
            self.areas[area] = self.areas.get(area, 0) + number
        planes = tuple(rows["low"][:, axis] for axis in range(len(self.frame.planes)))
        np.add.at(self.counts, (*planes, kinds_of(rows, self.core)), 1)

    @property
    def objects(self) -> int:
        """How many there are."""
        return sum(self.areas.values())

    @property
    def median(self) -> float | None:
        """Median area in voxels, None if there are no objects."""
        if not self.areas:
            return None
        areas = sorted(self.areas)
        ends = np.cumsum([self.areas[area] for area in areas])
        low, high = (areas[int(np.searchsorted(ends, rank))] for rank in _middle(int(ends[-1])))
        return (low + high) / 2

    def millimetres(self, voxels: int) -> float | None:
        """Return what some voxels are in square or cubic millimetres, None if the size of one is not known."""
        size = self.frame.size
        return None if size is None else voxels * size / 1000**self.frame.dims

    @property
    def by_class(self) -> dict[str, int]:
        """Objects of each class but background, which an object has whose class is not told."""
        return self._named(self.counts.reshape(-1, len(self.classes)).sum(axis=0))

    @property
    def by_plane(self) -> tuple[PlaneCount, ...]:
        """The objects of each plane; () if objects are not of planes."""
        if not self.frame.planes:
            return ()
        return tuple(self._plane(index) for index in np.ndindex(*self.extent.shape))

    def _plane(self, index: tuple[int, ...]) -> PlaneCount:
        place = {
            axis: self.frame.edges(number, np.asarray(at)).item()
            for number, (axis, at) in enumerate(zip(self.frame.planes, index, strict=True))
        }
        objects, extent = int(self.counts[index].sum()), self.millimetres(int(self.extent[index]))
        density = objects / extent if extent else None
        return PlaneCount(place, objects, self._named(self.counts[index]), extent, density)

    def _named(self, counts: NDArray[np.int64]) -> dict[str, int]:
        pairs = list(zip(self.classes, counts.tolist(), strict=True))
        if self.core:
            return dict([pairs[self.core]])
        return dict(pairs[1:]) | ({pairs[0][0]: pairs[0][1]} if pairs[0][1] else {})


def _middle(count: int) -> tuple[int, int]:
    """Return the ranks, from 1, of the middle of some numbers."""
    return (count + 1) // 2, count // 2 + 1
