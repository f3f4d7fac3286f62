"""From corners to rings, and from rings to polygons that are valid.

Corners of an object in one line of the grid are the ends of edges along it, two by two; so are those in one column.
Following an edge along a line, then one along a column, and so on, goes once around the object and comes back.

Where an object touches itself at a corner, both ways around are possible. Here the way keeps to the pixels that it
goes around, so pieces that only meet at a corner are ways of their own. A way that comes to the same corner twice goes
around one piece and one of its holes, and is cut there into both: rings touch themselves nowhere, and a hole touches
its ring, or another hole, at single points, which is what a valid polygon may do.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from unet_dask.measuring.sums import Rows

    #: Places (y, x) of the corners of a ring, each once. Most have some tens: lists are faster than arrays of those.
    Ring = list[tuple[int, int]]


@dataclass
class Polygon:
    """A piece of an object: its ring, which turns as from x to y, and those of its holes, which turn the other way.

    Attributes
    ----------
    ring : around it
    holes : in it
    """

    ring: Ring
    holes: list[Ring] = field(default_factory=list)

    @cached_property
    def area(self) -> int:
        """Pixels within the ring, those of holes included."""
        return _area(self.ring)

    def holds(self, y: float, x: float) -> bool:
        """Return whether a point that is on no edge lies within the ring."""
        edges = zip(self.ring, self.ring[1:] + self.ring[:1], strict=True)
        crossed = (
            at < x and min(one, other) < y < max(one, other)
            for (one, at), (other, there) in edges
            if at == there
        )
        return sum(crossed) % 2 == 1


@dataclass(frozen=True)
class Outline:
    """An object in one plane.

    Attributes
    ----------
    label : of the object
    plane : number
    polygons : its pieces
    """

    label: int
    plane: int
    polygons: list[Polygon]


def outlines(rows: Rows) -> Iterator[Outline]:
    """Yield the outline of each object in each plane.

    Parameters
    ----------
    rows : all corners of some objects, merged: see :func:`unet_dask.outlines.corners.merged_corners`
    """
    if not len(rows):
        return
    twice = np.repeat(np.arange(len(rows)), np.abs(rows["sum"]))  # a corner of two ways comes twice
    ends = rows[twice]
    second = np.append(False, twice[1:] == twice[:-1])
    along = np.arange(len(ends)) ^ 1  # in lines they are sorted already: each end is beside the other
    # Around pixels above left and below right, the way from the left goes up; around the other two it goes down.
    order = np.lexsort((second ^ (ends["sum"] == -2), ends["y"], ends["x"], ends["plane"], ends["label"]))
    across = np.empty(len(ends), np.intp)
    across[order[0::2]], across[order[1::2]] = order[1::2], order[0::2]
    graph = _Graph(along.tolist(), across.tolist(), twice.tolist(), ends["sum"].tolist())
    places = list(zip(ends["y"].tolist(), ends["x"].tolist(), strict=True))
    keys = ends[["label", "plane"]]
    starts = np.flatnonzero(np.append(True, keys[1:] != keys[:-1])).tolist()
    for first, last in zip(starts, [*starts[1:], len(ends)], strict=True):
        ways = graph.ways(first, last)
        yield Outline(int(ends["label"][first]), int(ends["plane"][first]), _polygons(graph, ways, places))


@dataclass(frozen=True)
class _Graph:
    """Ends of edges, in raster order, and where they lead.

    Attributes
    ----------
    along, across : the end at the other side of the edge in the line, and in the column
    corner : number of the corner; two ends are at one where an object touches itself
    sums : of the corner
    """

    along: list[int]
    across: list[int]
    corner: list[int]
    sums: list[int]

    def ways(self, first: int, last: int) -> Iterator[list[int]]:
        """Yield the ways around the pieces of an object, and its holes, which have the object at their right."""
        seen = bytearray(last - first)
        for begin in range(first, last):
            if seen[begin - first]:
                continue
            way: list[int] = []
            end = begin
            while not seen[end - first]:
                other = self.along[end]
                way += (end, other)
                seen[end - first] = seen[other - first] = 1
                end = self.across[other]
            # It sets out to the right from its first corner: around a piece that lies below, or a hole that does.
            yield way if self.sums[begin] > 0 else way[::-1]

    def rings(self, way: list[int]) -> Iterator[list[int]]:
        """Yield a way, cut where it comes to a corner for the second time."""
        ring: list[int] = []
        at: dict[int, int] = {}
        for end in way:
            corner = self.corner[end]
            if corner not in at:
                at[corner] = len(ring)
                ring.append(end)
                continue
            begin = at[corner]
            yield ring[begin:]
            for each in ring[begin + 1 :]:
                del at[self.corner[each]]
            del ring[begin + 1 :]
        yield ring


def _polygons(graph: _Graph, ways: Iterator[list[int]], places: list[tuple[int, int]]) -> list[Polygon]:
    """Return the pieces of an object, with their holes."""
    pieces: list[Polygon] = []
    loose: list[Ring] = []
    for way in ways:
        rings = [[places[end] for end in ring] for ring in graph.rings(way)]
        holes = [ring for ring in rings if _area(ring) < 0]
        around = [Polygon(ring) for ring in rings if _area(ring) > 0]
        if around:
            around[0].holes += holes
        else:
            loose += holes
        pieces += around
    for hole in loose:
        y, x = min(hole)
        # The pixel above the first edge is of the piece; of pieces within holes of pieces, the smallest around it.
        owners = pieces if len(pieces) == 1 else [each for each in pieces if each.holds(y - 0.5, x + 0.5)]
        min(owners, key=lambda each: each.area).holes.append(hole)
    return pieces


def _area(ring: Ring) -> int:
    """Return the pixels within a ring: positive where x turns to y, as around a piece; negative around a hole."""
    # Edges go along lines and columns in turn; of those along lines, each adds the pixels between it and line 0.
    first = ring[0][0] != ring[1][0]
    ends = ring[1:] + ring[:1] if first else ring
    return sum(y * (x - other) for (y, x), (_, other) in zip(ends[::2], ends[1::2], strict=True))
