"""Where the values of a TIFF's page lie in the file, and which of them a window touches."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

#: Bytes of rows that are read at once where a window has only some of their columns.
BAND = 4 << 20


@dataclass(frozen=True, slots=True)
class Page:
    """Where the segments of a page lie in the file.

    Attributes
    ----------
    offsets, counts : in bytes, per segment
    raw : first byte of the values, where they lie one after the other as they are; None where they must be decoded
    tables : of JPEG, which all segments share
    header : of JPEG, which all segments share
    decode : of tifffile; values along (depth, y, x, samples) of an encoded segment and its number
    """

    offsets: Sequence[int]
    counts: Sequence[int]
    raw: int | None
    tables: bytes | None = None
    header: bytes | None = None
    decode: Callable[..., tuple[NDArray[np.generic], ...]] | None = None


def follow(offsets: Sequence[int], counts: Sequence[int], size: int) -> bool:
    """Return whether the segments of a page lie one after the other, and hold what a page holds."""
    if len(offsets) == 1:
        return True
    ends = (offset + count for offset, count in zip(offsets, counts, strict=False))
    return sum(counts) == size and all(end == start for end, start in zip(ends, offsets[1:], strict=False))


def overlap(
    window: Sequence[slice], corner: Sequence[int], side: Sequence[int]
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Return what a segment fills of a window, and what of the segment that is.

    Examples
    --------
    >>> overlap([slice(5, 30)], [10], [10])
    ((slice(5, 15, None),), (slice(0, 10, None),))
    """
    spans = [
        (max(part.start, start), min(part.stop, start + size))
        for part, start, size in zip(window, corner, side, strict=True)
    ]
    target = (
        slice(low - part.start, high - part.start) for (low, high), part in zip(spans, window, strict=True)
    )
    taken = (slice(low - start, high - start) for (low, high), start in zip(spans, corner, strict=True))
    return tuple(target), tuple(taken)


def bands(rows: slice, columns: slice, row_bytes: int, width: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield (first, last, left, right) of what is read at once: bands of whole rows, or parts of single long rows."""
    if row_bytes > BAND or 8 * (columns.stop - columns.start) < width:
        yield from ((row, row + 1, columns.start, columns.stop) for row in range(rows.start, rows.stop))
        return
    step = max(BAND // max(row_bytes, 1), 1)
    for first in range(rows.start, rows.stop, step):
        yield first, min(first + step, rows.stop), 0, width


def exactly(file: int, offset: int, count: int) -> bytes:
    """Return so many bytes of a file.

    Raises
    ------
    ValueError
        If it ends before.
    """
    parts = []
    while count > 0:
        part = os.pread(file, count, offset)
        if not part:
            raise ValueError(f"the file ends at {offset} bytes")
        parts.append(part)
        offset, count = offset + len(part), count - len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)
