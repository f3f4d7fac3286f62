"""Reading windows of an array of any format, in any process: opened once, read again where it changed meanwhile."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from unet_dask import axes as axes_
from unet_dask.errors import GeometryError, InputError
from unet_dask.io.source import formats, stamps
from unet_dask.io.source.protocol import SourceSpec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from unet_dask.io.source.protocol import Stored

__all__ = ["SourceSpec", "opened", "read_stamped", "read_window", "stamp_of"]


def read_window(spec: SourceSpec, window: tuple[slice, ...], *, run: str = "") -> NDArray[np.generic]:
    """Return the values of a window, as `Source.read` does, in any process.

    The array is opened once per process, spec and run.

    Parameters
    ----------
    spec : of the source
    window : one slice per canonical axis
    run : name of a run, in which chunks that were read last are kept; "" for none

    Raises
    ------
    GeometryError
        If the window does not lie in the array.
    DataError
        If a chunk is damaged, or the array was replaced since it was opened.
    UnreachableError
        If the store does not answer, or what lies there was moved or changed while it was read.
    """
    return read_stamped(spec, window, run=run)[0]


def read_stamped(
    spec: SourceSpec, window: tuple[slice, ...], *, run: str = ""
) -> tuple[NDArray[np.generic], str]:
    """Return the values of a window, as `read_window` does, and a stamp of the files that hold it."""
    stored = _opened_in(spec, run) if run else opened(spec)
    parts = _bounds(spec, stored.shape, window)
    pieces, looks = [], []
    for span, kept in _spans(spec, stored, parts):
        values, look = _stored(spec, stored, span)
        pieces.append(
            values if kept is None else values.take(kept, axis=axes_.canonical(spec.axes).index("c"))
        )
        looks.append(look)
    position = axes_.canonical(spec.axes).index("c")
    joined = pieces[0] if len(pieces) == 1 else np.concatenate(pieces, axis=position)
    values = _repeated(spec, joined, parts)
    return np.ascontiguousarray(values, values.dtype.newbyteorder("=")), stamps.stamp(looks)


def stamp_of(spec: SourceSpec, window: tuple[slice, ...]) -> str:
    """Return the stamp of the files that hold a window now; nothing of it is read."""
    stored = opened(spec)
    spans = _spans(spec, stored, _bounds(spec, stored.shape, window))
    return stamps.stamp(stored.look(_selection(spec, span)) for span, _ in spans)


def _spans(
    spec: SourceSpec, stored: Stored, parts: dict[str, slice]
) -> list[tuple[dict[str, slice], list[int] | None]]:
    """Return the parts of an array to read for a window, and which channels of each to keep, None for all."""
    if spec.channels is None or not axes_.has_channel(spec.axes):
        return [(parts, None)]
    chosen = spec.channels[parts["c"]]
    return [
        (parts | {"c": span}, kept)
        for span, kept in _runs(chosen, stored.decoding.chunk[spec.axes.index("c")])
    ]


def _selection(spec: SourceSpec, parts: dict[str, slice]) -> tuple[slice, ...]:
    return tuple(parts[axis] for axis in spec.axes)


def _repeated(spec: SourceSpec, values: NDArray[np.generic], parts: dict[str, slice]) -> NDArray[np.generic]:
    """Return the only channel of an image without channels as often as it was chosen."""
    count = parts["c"].stop - parts["c"].start
    if axes_.has_channel(spec.axes) or count == 1:
        return values
    return values.repeat(count, axis=axes_.canonical(spec.axes).index("c"))


def _runs(channels: Sequence[int], chunk: int) -> list[tuple[slice, list[int]]]:
    """Return the spans of channels to read, and which of each to keep.

    Slices are several times faster in Zarr than lists of numbers. What lies in one chunk is read at
    once, what does not in runs of neighbours.

    Examples
    --------
    >>> _runs((4, 0, 1), 1)
    [(slice(4, 5, None), [0]), (slice(0, 2, None), [0, 1])]
    >>> _runs((2, 0), 3)
    [(slice(0, 3, None), [2, 0])]
    """
    low, high = min(channels, default=0), max(channels, default=-1)
    if low // chunk == high // chunk or not channels:
        return [(slice(low, high + 1), [channel - low for channel in channels])]
    ends = [i + 1 for i in range(len(channels)) if channels[i + 1 : i + 2] != (channels[i] + 1,)]
    starts = [0, *ends[:-1]]
    return [
        (slice(channels[i], channels[j - 1] + 1), list(range(j - i)))
        for i, j in zip(starts, ends, strict=True)
    ]


def _stored(
    spec: SourceSpec, stored: Stored, parts: dict[str, slice]
) -> tuple[NDArray[np.generic], stamps.Look | None]:
    """Return stored values in canonical order and the files that hold them, or the reason why they cannot be read."""
    for last in (False, False, True):
        try:
            values, look = stored.read(_selection(spec, parts))
        except stamps.ChangedError:
            if last:
                raise
        except (MemoryError, InputError):
            raise
        except (Exception, RecursionError) as error:
            _opened_in.cache_clear()  # what was kept may be what is wrong
            stored.refuse(_shown(spec, parts), error)
        else:
            break
    return axes_.to_canonical(values, spec.axes), look


def _shown(spec: SourceSpec, parts: dict[str, slice]) -> str:
    return " ".join(f"{axis} {parts[axis].start}:{parts[axis].stop}" for axis in axes_.canonical(spec.axes))


@lru_cache(maxsize=32)
def opened(spec: SourceSpec) -> Stored:
    """Return the array of a spec, opened once per process.

    Raises
    ------
    DataError
        If the array is gone or another one is in its place.
    """
    return formats.named(spec.format).opened(spec, keep=False)


@lru_cache(maxsize=1)
def _opened_in(spec: SourceSpec, run: str) -> Stored:
    """Return the array of a spec with what was read last in a run; of one run, so that memory is bounded."""
    return formats.named(spec.format).opened(spec, keep=True)


def _bounds(spec: SourceSpec, shape: tuple[int, ...], window: tuple[slice, ...]) -> dict[str, slice]:
    """Return the window by axis, checked; along c it counts the chosen channels."""
    order = axes_.canonical(spec.axes)
    sizes = axes_.by_axis(spec.axes, shape)
    if spec.channels is not None or not axes_.has_channel(sizes):
        sizes["c"] = len(spec.channels) if spec.channels is not None else 1
    if len(window) != len(order):
        raise GeometryError(
            f"A window of {len(window)} slices does not fit the axes {order}. Give one slice per axis."
        )
    parts: dict[str, slice] = {}
    for axis, part in zip(order, window, strict=True):
        start = 0 if part.start is None else int(part.start)
        stop = sizes[axis] if part.stop is None else int(part.stop)
        if part.step not in (None, 1) or not 0 <= start <= stop <= sizes[axis]:
            raise GeometryError(
                f"The window {start}:{stop} along {axis} does not lie in 0:{sizes[axis]}, or has a step. "
                f"Clip it to the array."
            )
        parts[axis] = slice(start, stop)
    return parts
