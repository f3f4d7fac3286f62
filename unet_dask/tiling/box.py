"""A box of voxels: which axes, and from where to where along each.

Regions, blocks of pyramids, crops and faces are boxes of a volume, of a result that begins at the region of interest,
or of a product that has other axes than the volume. Here is how one becomes the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

from unet_dask.axes import by_axis, without_channel

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

#: (start, stop) in voxels
Interval = tuple[int, int]
#: A box that an array is indexed with; it begins and ends within the array.
Window = tuple[slice, ...]


@dataclass(frozen=True, slots=True)
class Box:
    """A box of voxels.

    Attributes
    ----------
    axes : names, such as "czyx"
    spans : (start, stop) along each
    """

    axes: str
    spans: tuple[Interval, ...]

    @property
    def start(self) -> tuple[int, ...]:
        """First voxel."""
        return tuple(start for start, _ in self.spans)

    @property
    def shape(self) -> tuple[int, ...]:
        """Voxels along each axis."""
        return tuple(stop - start for start, stop in self.spans)

    @property
    def slices(self) -> tuple[slice, ...]:
        """What an array of these axes is indexed with."""
        return tuple(slice(start, stop) for start, stop in self.spans)

    @property
    def named(self) -> dict[str, Interval]:
        """Spans by the names of their axes."""
        return by_axis(self.axes, self.spans)

    @property
    def text(self) -> str:
        """The box for people.

        Examples
        --------
        >>> Box("cyx", ((0, 1), (4, 8), (0, 9))).text
        'c 0:1, y 4:8, x 0:9'
        """
        return ", ".join(f"{axis} {start}:{stop}" for axis, (start, stop) in self.named.items())

    def along(self, axis: str, span: Interval) -> Box:
        """Return the box with another span along an axis, which it need not have had.

        Examples
        --------
        >>> Box("cyx", ((0, 1), (4, 8), (0, 9))).along("y", (5, 6)).spans
        ((0, 1), (5, 6), (0, 9))
        """
        changed = self.named | {axis: span}
        return Box("".join(changed), tuple(changed.values()))

    def over(self, axes: str) -> Box:
        """Return the box over some of its axes, in their order.

        Examples
        --------
        >>> Box("cyx", ((0, 1), (4, 8), (0, 9))).over("yx").spans
        ((4, 8), (0, 9))
        """
        spans = self.named
        return Box(axes, tuple(spans[axis] for axis in axes))

    @property
    def in_space_and_time(self) -> Box:
        """The box without the axis of channels."""
        return self.over(without_channel(self.axes))

    def relative_to(self, outer: Box) -> Box:
        """Return the box counted from the first voxel of another over the same axes.

        Examples
        --------
        >>> Box("yx", ((4, 8), (7, 9))).relative_to(Box("yx", ((4, 20), (5, 20)))).spans
        ((0, 4), (2, 4))
        """
        pairs = zip(self.spans, outer.start, strict=True)
        return Box(self.axes, tuple((start - first, stop - first) for (start, stop), first in pairs))

    def grown(self, margin: int, dims: int, *, within: Sequence[int]) -> Box:
        """Return the box with a margin along its last axes, as far as a volume of some shape goes.

        Examples
        --------
        >>> Box("zyx", ((4, 5), (4, 8), (7, 9))).grown(3, 2, within=(9, 9, 9)).spans
        ((4, 5), (1, 9), (4, 9))
        """
        fixed, wider = self.spans[:-dims], self.spans[-dims:]
        ends = zip(wider, within[-dims:], strict=True)
        spans = ((max(start - margin, 0), min(stop + margin, side)) for (start, stop), side in ends)
        return Box(self.axes, (*fixed, *spans))

    def meets(self, other: Box) -> bool:
        """Return whether two boxes over the same axes have a voxel in common."""
        pairs = zip(self.spans, other.spans, strict=True)
        return all(start < end and first < stop for (start, stop), (first, end) in pairs)

    def cut(self, sides: Sequence[int]) -> Iterator[Box]:
        """Yield the parts of a box of so many voxels along each axis; the last ones may be smaller."""
        spans = (
            [(first, min(first + side, stop)) for first in range(start, stop, side)]
            for (start, stop), side in zip(self.spans, sides, strict=True)
        )
        yield from (Box(self.axes, part) for part in product(*spans))

    def units(self, sides: Sequence[int]) -> tuple[range, ...]:
        """Return which units of so many voxels, counted from the first voxel of the array, a box touches.

        Examples
        --------
        >>> Box("yx", ((4, 8), (7, 9))).units((4, 4))
        (range(1, 2), range(1, 3))
        """
        return tuple(
            range(start // side, -(-stop // side))
            for (start, stop), side in zip(self.spans, sides, strict=True)
        )


def hull(boxes: Sequence[Box]) -> Box:
    """Return the smallest box that holds others.

    Examples
    --------
    >>> hull([Box("x", ((4, 8),)), Box("x", ((6, 9),))]).text
    'x 4:9'
    """
    sides = zip(*(box.spans for box in boxes), strict=True)
    return Box(boxes[0].axes, tuple((min(a for a, _ in side), max(b for _, b in side)) for side in sides))


def whole(shape: Sequence[int]) -> Window:
    """Return the box of everything."""
    return tuple(slice(0, side) for side in shape)


def grown(box: Window, margin: int, shape: Sequence[int]) -> Window:
    """Return a box with `margin` pixels more on every side, as far as the image of `shape` goes.

    Examples
    --------
    >>> grown((slice(2, 5), slice(30, 40)), 8, (50, 42))
    (slice(0, 13, None), slice(22, 42, None))
    """
    return tuple(
        slice(max(span.start - margin, 0), min(span.stop + margin, side))
        for span, side in zip(box, shape, strict=True)
    )


def shifted(box: Window, outer: Window) -> Window:
    """Return a box counted from the first pixel of another that holds it."""
    return tuple(
        slice(span.start - around.start, span.stop - around.start)
        for span, around in zip(box, outer, strict=True)
    )


def overlap(one: Window, other: Window) -> Window | None:
    """Return what two boxes have in common, or None if that is nothing.

    Examples
    --------
    >>> overlap((slice(0, 5),), (slice(3, 9),)), overlap((slice(0, 5),), (slice(5, 9),))
    ((slice(3, 5, None),), None)
    """
    common = tuple(slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(one, other, strict=True))
    return common if all(span.start < span.stop for span in common) else None
