"""Reading windows of an array in any process: opened once, decoded by Zarr, distrusted.

Zarr reads missing data as fill value without a word. That is right where nothing was stored, and wrong
where a write was cut short or a mount was lost; the two are told apart by :mod:`unet_dask.io.source.witness`.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import lru_cache, partial
from hashlib import sha256
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import zarr
from zarr.storage import FsspecStore

from unet_dask import axes as axes_
from unet_dask.errors import DataError, GeometryError, InputError
from unet_dask.io import remote
from unet_dask.io.bounded import RegularFiles, bounded_array
from unet_dask.io.remote import Location
from unet_dask.io.source import node, pieces, witness
from unet_dask.io.source.absent import NotedAbsences, noted
from unet_dask.io.source.recent import RecentChunks, file_versions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from zarr.abc.store import Store

    from unet_dask.io.source.node import Node


@dataclass(frozen=True, slots=True, repr=False)
class SourceSpec:
    """All that a worker needs to read a source: small, picklable, hashable.

    Attributes
    ----------
    url : path or fsspec URL of the root of the store; secrets in it are not shown by `repr`
    key : path of the array in the store, "" if the root is the array
    axes : of the stored array, in its order, such as "yxc"
    channels : the channels to read, in this order; None for all
    zarr_format : 2 or 3
    metadata : SHA-256 of the documents of the array, so that a changed array is a different spec
    written : time of change (ns) of the document, by which an array with the same document is known; 0 for any
    """

    url: str
    key: str
    axes: str
    channels: tuple[int, ...] | None
    zarr_format: int
    metadata: str
    written: int = 0

    def __repr__(self) -> str:
        return (
            f"SourceSpec(url={remote.redact_url(self.url)!r}, key={self.key!r}, axes={self.axes!r}, "
            f"channels={self.channels!r}, zarr_format={self.zarr_format!r}, metadata={self.metadata[:12]!r})"
        )


def read_window(spec: SourceSpec, window: tuple[slice, ...], *, run: str = "") -> NDArray[Any]:
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


def read_stamped(spec: SourceSpec, window: tuple[slice, ...], *, run: str = "") -> tuple[NDArray[Any], str]:
    """Return the values of a window, as `read_window` does, and a stamp of the files that hold it."""
    array = _opened_in(spec, run) if run else opened(spec)
    parts = _bounds(spec, array.shape, window)
    pieces, looks = [], []
    for span, kept in _spans(spec, array, parts):
        values, look = _stored(spec, array, span)
        pieces.append(
            values if kept is None else values.take(kept, axis=axes_.canonical(spec.axes).index("c"))
        )
        looks.append(look)
    position = axes_.canonical(spec.axes).index("c")
    joined = pieces[0] if len(pieces) == 1 else np.concatenate(pieces, axis=position)
    return _native(_repeated(spec, joined, parts)), witness.stamp(looks)


def stamp_of(spec: SourceSpec, window: tuple[slice, ...]) -> str:
    """Return the stamp of the files that hold a window now; nothing of it is read."""
    array = opened(spec)
    spans = _spans(spec, array, _bounds(spec, array.shape, window))
    return witness.stamp(witness.look(spec, array, _selection(spec, span)) for span, _ in spans)


def _spans(
    spec: SourceSpec, array: zarr.Array[Any], parts: dict[str, slice]
) -> list[tuple[dict[str, slice], list[int] | None]]:
    """Return the parts of an array to read for a window, and which channels of each to keep, None for all."""
    if spec.channels is None or "c" not in spec.axes:
        return [(parts, None)]
    chosen = spec.channels[parts["c"]]
    return [(parts | {"c": span}, kept) for span, kept in _runs(chosen, array.chunks[spec.axes.index("c")])]


def _selection(spec: SourceSpec, parts: dict[str, slice]) -> tuple[slice, ...]:
    return tuple(parts[axis] for axis in spec.axes)


def _native(values: NDArray[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("="))


def _repeated(spec: SourceSpec, values: NDArray[Any], parts: dict[str, slice]) -> NDArray[Any]:
    """Return the only channel of an image without channels as often as it was chosen."""
    count = parts["c"].stop - parts["c"].start
    if "c" in spec.axes or count == 1:
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
    spec: SourceSpec, array: zarr.Array[Any], parts: dict[str, slice]
) -> tuple[NDArray[Any], witness.Look | None]:
    """Return stored values in canonical order and the files that hold them, or the reason why they cannot be read."""
    for last in (False, False, True):
        try:
            stored, look = _witnessed(spec, array, _selection(spec, parts))
        except witness.ChangedError:
            if last:
                raise
        except (MemoryError, InputError):
            raise
        except (Exception, RecursionError) as error:
            _opened_in.cache_clear()  # what was kept may be what is wrong
            _refuse_read(spec, parts, error)
        else:
            break
    return axes_.to_canonical(stored, spec.axes), look


def _witnessed(
    spec: SourceSpec, array: zarr.Array[Any], selection: tuple[slice, ...]
) -> tuple[NDArray[Any], witness.Look | None]:
    """Return stored values, if what lay there before they were read is what lies there afterwards."""
    before = witness.look(spec, array, selection)
    if before is not None and array.shards is not None:
        _refuse_empty_shards(spec, before)
    with noted() as absent:
        stored = pieces.read(array, selection)
    after = witness.look(spec, array, selection)
    witness.require_same(spec, before, after, absent)
    return stored, after


@lru_cache(maxsize=32)
def opened(spec: SourceSpec) -> zarr.Array[Any]:
    """Return the array of a spec, opened once per process.

    Raises
    ------
    DataError
        If the array is gone or another one is in its place.
    """
    return open_array(_found(spec))


@lru_cache(maxsize=1)
def _opened_in(spec: SourceSpec, run: str) -> zarr.Array[Any]:
    """Return the array of a spec with what was read last in a run; of one run, so that memory is bounded."""
    return open_array(_found(spec), keep=True)


def _found(spec: SourceSpec) -> Node:
    location = Location(spec.url)
    found = node.read_node(location, spec.key)
    same = found is not None and sha256(found.document).hexdigest() == spec.metadata
    if spec.written and same:  # another array may have the same document, byte for byte
        same = witness.written(location, spec.key, spec.zarr_format) == spec.written
    if found is None or found.kind != "array" or not same:
        raise DataError(
            f"The array {location.describe(spec.key)} was replaced since it was opened. Open the source "
            f"again."
        )
    return found


def open_array(found: Node, *, keep: bool = False) -> zarr.Array[Any]:
    """Return an array opened with Zarr, after our own checks of its document.

    Parameters
    ----------
    found : where it is
    keep : whether to keep the chunks that were read last, see `RecentChunks`

    Raises
    ------
    InputError
        If it is not numeric, not safe or not sound.
    """
    node.check_array(found)
    try:
        with warnings.catch_warnings():
            # An array that numcodecs wrote is ours to read, whatever the specification says of it.
            warnings.filterwarnings("ignore", message="Numcodecs codecs are not in", category=UserWarning)
            array = zarr.open_array(
                store=_store(found.location),
                path=found.key,
                mode="r",
                zarr_format=found.zarr_format,
            )
    except InputError:
        raise
    except (Exception, RecursionError) as error:
        if remote.is_unreachable(error):
            found.location.refuse(error)
        remote.wrap(
            error,
            f"The metadata of the array {found.shown} is damaged or of a kind that Zarr {zarr.__version__} "
            f"does not read: {remote.one_line(error)} ({type(error).__name__}). Restore it from a copy, or "
            f"write the array again.",
        )
    _refuse_bomb(found, array)
    return bounded_array(array, partial(_watched, found.location, keep=keep))


def _store(location: Location) -> Store:
    if remote.is_local(location.url):
        return RegularFiles(remote.local_path(location.url))
    url, options = location.options()
    return FsspecStore.from_url(url, storage_options=options, read_only=True)


def _watched(location: Location, store: Store, *, keep: bool) -> Store:
    """Return a store that notes what it does not hold, and may keep what was read last until that changes."""
    return NotedAbsences(RecentChunks(store, version=file_versions(location)) if keep else store)


def _refuse_bomb(found: Node, array: zarr.Array[Any]) -> None:
    if min(array.chunks) < 1 and min(array.shape) > 0:
        raise InputError(
            f"The metadata of the array {found.shown} is damaged: its chunks are {array.chunks}, which hold nothing. "
            f"Restore it from a copy, or write the store again."
        )
    count = 1
    for size in array.chunks:
        count *= int(size)
    decoded = count * np.dtype(array.dtype).itemsize
    if decoded > node.CHUNK_LIMIT:
        raise InputError(
            f"One chunk of the array {found.shown} is {decoded / 1024**3:.1f} GiB in memory, more than the "
            f"{node.CHUNK_LIMIT // 1024**3} GiB that a worker decodes at once. Write it again with smaller "
            f"chunks, such as {'x'.join(['128'] * min(len(array.shape), 3))}."
        )


def _bounds(spec: SourceSpec, shape: tuple[int, ...], window: tuple[slice, ...]) -> dict[str, slice]:
    """Return the window by axis, checked; along c it counts the chosen channels."""
    order = axes_.canonical(spec.axes)
    sizes = dict(zip(spec.axes, shape, strict=True))
    if spec.channels is not None or "c" not in sizes:
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


def _refuse_empty_shards(spec: SourceSpec, look: witness.Look) -> None:
    """Refuse shards of zero length, what a power cut can leave: Zarr would read them as fill value."""
    for key, found in look.chunks.items():
        if found is not None and found[0] == 0:
            raise DataError(
                f"The shard {key!r} of the array {Location(spec.url).describe(spec.key)} has zero length: "
                f"its writing was cut short. Write it again."
            )


def _refuse_read(spec: SourceSpec, parts: dict[str, slice], error: BaseException) -> NoReturn:
    location = Location(spec.url)
    if remote.is_unreachable(error):
        location.refuse(error)
    cause = "a chunk is damaged or cut short"
    if opened(spec).shards is not None and not remote.is_local(spec.url):
        cause += ", or the service ignores byte ranges"
    order = axes_.canonical(spec.axes)
    shown = " ".join(f"{axis} {parts[axis].start}:{parts[axis].stop}" for axis in order)
    remote.wrap(
        error,
        f"Cannot decode the window {shown} of the array {location.describe(spec.key)}: {cause} "
        f"({type(error).__name__}: {remote.one_line(error)}). Restore the chunk from a copy.",
        DataError,
    )
