"""The times of regions over the run, to be drawn: a slow start, a slow worker and a slow disk look different."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_WIDE, _HIGH = 640, 220
#: Room for the labels.
_LEFT, _BELOW, _ABOVE = 56, 34, 10


@dataclass(frozen=True, slots=True)
class Chart:
    """What is drawn, in the coordinates of an SVG.

    Attributes
    ----------
    size : of all of it
    axes : a path
    dots : one for each region
    labels : place, anchor and text
    """

    size: tuple[int, int]
    axes: str
    dots: tuple[tuple[str, str], ...]
    labels: tuple[tuple[int, int, str, str], ...]


def region_chart(times: Sequence[tuple[float, float]]) -> Chart | None:
    """Return a chart with a dot per region, None if there are none.

    Parameters
    ----------
    times : seconds since the beginning at which a region was done, and seconds that it took
    """
    if not times:
        return None
    last = max(now for now, _ in times) or 1.0
    longest = max(seconds for _, seconds in times) or 1.0
    inner, deep = _WIDE - _LEFT - 10, _HIGH - _BELOW - _ABOVE
    floor = _ABOVE + deep
    return Chart(
        (_WIDE, _HIGH),
        f"M{_LEFT} {_ABOVE}V{floor}H{_WIDE - 10}",
        tuple(
            (f"{_LEFT + now / last * inner:.1f}", f"{_ABOVE + deep * (1 - took / longest):.1f}")
            for now, took in times
        ),
        (
            (_LEFT - 6, _ABOVE + 8, "end", f"{longest:.3g} s"),
            (_LEFT - 6, floor, "end", "0 s"),
            (_LEFT, floor + 16, "start", "0 s"),
            (_WIDE - 10, floor + 16, "end", f"{last:.3g} s"),
            ((_LEFT + _WIDE) // 2, floor + 30, "middle", "when a region was done, against the time it took"),
        ),
    )


def quantiles(times: Sequence[tuple[float, float]]) -> tuple[float, float, float]:
    """Return the 5th, 50th and 95th percentile of the seconds that regions took.

    Examples
    --------
    >>> quantiles([(0.0, 3.0), (1.0, 1.0), (2.0, 2.0)])
    (1.0, 2.0, 3.0)
    """
    ordered = sorted(seconds for _, seconds in times)
    low, middle, high = (ordered[round(share * (len(ordered) - 1))] for share in (0.05, 0.5, 0.95))
    return low, middle, high
