"""Reading a source: find the array in a store, know its axes, read regions of it in canonical order.

Opening happens once, at planning, and looks at everything: the metadata, the choice of the array, the
axes. What travels to workers is a `SourceSpec`, a few strings, from which each process opens the array
once. A source is never written: every array is opened with ``mode="r"``.
"""

from __future__ import annotations

import itertools
import os
import posixpath
import warnings
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import zarr
from zarr.storage import FsspecStore, LocalStore

from unet_dask import axes as axes_
from unet_dask.errors import DataError, GeometryError, InputError
from unet_dask.io import choice, content, node, remote
from unet_dask.io.remote import Location

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from zarr.abc.store import Store

    from unet_dask.io.node import Node
    from unet_dask.io.ome import Level, Multiscale


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
    """

    url: str
    key: str
    axes: str
    channels: tuple[int, ...] | None
    zarr_format: int
    metadata: str

    def __repr__(self) -> str:
        return (
            f"SourceSpec(url={remote.redact(self.url)!r}, key={self.key!r}, axes={self.axes!r}, "
            f"channels={self.channels!r}, zarr_format={self.zarr_format!r}, metadata={self.metadata[:12]!r})"
        )


@dataclass(frozen=True, slots=True)
class Source:
    """An image that can be read region by region, in canonical axes.

    Attributes
    ----------
    spec : what a worker needs to read it
    axes : canonical, `c` always present
    shape : in `axes`, after the choice of channels
    dtype : in native byte order
    chunks : what is read as a whole: the stored chunk, in `axes`; of a sharded array, the shard
    spacing : physical size of a pixel per axis of space and time, 1.0 if unknown
    unit : of the spacing, None if unknown
    translation : physical position of the first pixel
    name : of the image, for people
    origin_of_axes : where the axes were learnt, for people
    level : of the pyramid, None if there is none
    """

    spec: SourceSpec
    axes: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    chunks: tuple[int, ...]
    spacing: dict[str, float]
    unit: dict[str, str | None]
    translation: dict[str, float]
    name: str
    origin_of_axes: str
    level: int | None

    def read(self, window: tuple[slice, ...]) -> NDArray[Any]:
        """Return the values of a window: canonical order, native byte order, contiguous.

        Parameters
        ----------
        window : one slice per axis of `axes`, inside `shape`, without a step

        Raises
        ------
        DataError
            If a chunk is damaged.
        UnreachableError
            If the store does not answer.
        """
        return read_window(self.spec, window)

    def identity(self) -> dict[str, str]:
        """Return what makes this source this source, for the fingerprint of a run.

        "source.content" covers, of a local store, the path, size and time of change (ns) of every file
        of the array, at most 200 000 of them, and the first 8 MiB of 16 evenly spread ones; of a remote
        store, the first 8 MiB of 4 chunks. A change that leaves all of these alone is not seen.

        Raises
        ------
        UnreachableError
            If the store does not answer.
        """
        spec = self.spec
        return {
            "source.url": remote.source_aliases(spec.url),
            "source.key": spec.key,
            "source.shape": ",".join(map(str, self.shape)),
            "source.dtype": self.dtype.name,
            "source.axes": spec.axes,
            "source.channels": "all" if spec.channels is None else ",".join(map(str, spec.channels)),
            "source.metadata": spec.metadata,
            "source.content": content.digest(Location(spec.url), spec.key, _array(spec)),
        }


def open_source(
    url: str | os.PathLike[str],
    *,
    key: str | None = None,
    axes: str | None = None,
    level: int | None = None,
    channels: Sequence[int] | None = None,
    dims: int | None = None,
    network_channels: int | None = None,
) -> Source:
    """Find the array that a path or URL means and learn all that planning needs of it.

    Parameters
    ----------
    url : of a store, or of a group or array in one
    key : path of a group or array below `url`
    axes : of the stored array, one letter per dimension; overrides what the store says
    level : of an OME-Zarr pyramid, the finest by default
    channels : numbers of the channels to read, all by default
    dims : spatial dimensions of the network, a hint for arrays that do not name their axes
    network_channels : channels of the network, a hint likewise

    Raises
    ------
    InputError
        If there is no such image, or not as described.
    """
    location, inner = choice.locate(os.fspath(url), key)
    chosen = choice.choose(location, inner, level)
    array = _open(chosen.node)
    stored, origin = choice.decide_axes(chosen, axes, dims=dims, network_channels=network_channels)
    picked = _picked(chosen.node, stored, channels)
    spec = SourceSpec(
        url=location.url,
        key=chosen.node.key,
        axes=stored,
        channels=picked,
        zarr_format=chosen.node.zarr_format,
        metadata=sha256(chosen.node.document).hexdigest(),
    )
    order = axes_.canonical(stored)
    sizes = dict(zip(stored, array.shape, strict=True))
    chunks = dict(zip(stored, array.shards or array.chunks, strict=True))
    if picked is not None:
        sizes["c"] = len(picked)
        chunks["c"] = min(chunks.get("c", 1), len(picked))
    physical = _physical(stored, chosen.image, chosen.level_of)
    return Source(
        spec=spec,
        axes=order,
        shape=tuple(sizes.get(axis, 1) for axis in order),
        dtype=np.dtype(array.dtype).newbyteorder("="),
        chunks=tuple(max(chunks.get(axis, 1), 1) for axis in order),
        spacing=physical[0],
        unit=physical[1],
        translation=physical[2],
        name=_name(location, chosen),
        origin_of_axes=origin,
        level=chosen.level,
    )


def read_window(spec: SourceSpec, window: tuple[slice, ...]) -> NDArray[Any]:
    """Return the values of a window, as `Source.read` does, in any process.

    The array is opened once per process and spec.

    Raises
    ------
    GeometryError
        If the window does not lie in the array.
    DataError
        If a chunk is damaged, or the array was replaced since it was opened.
    UnreachableError
        If the store does not answer.
    """
    array = _array(spec)
    selection = _selection(spec, array.shape, window)
    _refuse_empty_shards(spec, array, selection)
    try:
        stored = np.asarray(array.oindex[selection])
    except MemoryError:
        raise
    except (Exception, RecursionError) as error:
        _refuse_read(spec, window, error)
    ordered = axes_.to_canonical(stored, spec.axes)
    if "c" not in spec.axes:
        position = axes_.canonical(spec.axes).index("c")
        chosen = range(len(spec.channels) if spec.channels is not None else 1)[window[position]]
        if len(chosen) != 1:
            ordered = ordered.repeat(len(chosen), axis=position)
    return np.ascontiguousarray(ordered, dtype=ordered.dtype.newbyteorder("="))


@lru_cache(maxsize=32)
def _array(spec: SourceSpec) -> zarr.Array[Any]:
    location = Location(spec.url)
    found = node.read_node(location, spec.key)
    if found is None or found.kind != "array" or sha256(found.document).hexdigest() != spec.metadata:
        raise DataError(
            f"The array {location.describe(spec.key)} was replaced since it was opened. Open the source "
            f"again."
        )
    return _open(found)


def _open(found: Node) -> zarr.Array[Any]:
    """Open an array with Zarr, after our own checks of its document."""
    node.check_array(found)
    try:
        with warnings.catch_warnings():
            # An array that numcodecs wrote is ours to read, whatever the specification says of it.
            warnings.filterwarnings("ignore", message="Numcodecs codecs are not in", category=UserWarning)
            array = zarr.open_array(
                store=_store(found.location), path=found.key, mode="r", zarr_format=found.zarr_format
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
    return array


def _store(location: Location) -> Store:
    if remote.is_local(location.url):
        return LocalStore(remote.local_path(location.url), read_only=True)
    url, options = location.options()
    return FsspecStore.from_url(url, storage_options=options, read_only=True)


def _refuse_bomb(found: Node, array: zarr.Array[Any]) -> None:
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


def _picked(found: Node, stored: str, channels: Sequence[int] | None) -> tuple[int, ...] | None:
    if channels is None:
        return None
    count = found.shape[stored.index("c")] if "c" in stored else 1
    outside = [channel for channel in channels if not 0 <= channel < count]
    if outside or not channels:
        asked = ",".join(map(str, channels)) or "none"
        raise InputError(
            f"Channels {asked} were asked of {found.shown}, which has {count} ({stored}). Use --channels "
            f"with numbers from 0 to {count - 1}."
        )
    return tuple(int(channel) for channel in channels)


def _physical(
    stored: str, image: Multiscale | None, level: Level | None
) -> tuple[dict[str, float], dict[str, str | None], dict[str, float]]:
    """Return spacing, unit and translation of every axis but c, by position in the stored array."""
    spacing: dict[str, float] = {}
    unit: dict[str, str | None] = {}
    translation: dict[str, float] = {}
    known = level is not None and len(level.scale) == len(stored)
    for axis in axes_.canonical(stored).replace("c", ""):
        position = stored.index(axis)
        spacing[axis] = level.scale[position] if known and level else 1.0
        translation[axis] = level.translation[position] if known and level else 0.0
        unit[axis] = image.units[position] if known and image else None
    return spacing, unit, translation


def _name(location: Location, chosen: choice.Chosen) -> str:
    if chosen.image is not None and chosen.image.name.strip("/ "):
        return " ".join(chosen.image.name.split())
    root = posixpath.basename(location.shown.rstrip("/")) or "source"
    for suffix in (".zarr", ".ome"):
        root = root.removesuffix(suffix)
    return posixpath.join(root, chosen.node.key) if chosen.image is None and chosen.node.key else root


def _selection(
    spec: SourceSpec, shape: tuple[int, ...], window: tuple[slice, ...]
) -> tuple[slice | NDArray[np.intp], ...]:
    """Return the window in stored axes, with the chosen channels as numbers."""
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
    return tuple(
        np.asarray(spec.channels[parts["c"]], dtype=np.intp)
        if axis == "c" and spec.channels is not None
        else parts[axis]
        for axis in spec.axes
    )


def _refuse_empty_shards(
    spec: SourceSpec, array: zarr.Array[Any], selection: tuple[slice | NDArray[np.intp], ...]
) -> None:
    """Refuse shards of zero length, what a power cut can leave: Zarr would read them as fill value."""
    if array.shards is None or not remote.is_local(spec.url):
        return
    root = remote.local_path(spec.url) / spec.key
    touched = [
        sorted({int(i) // shard for i in (range(part.start, part.stop) if isinstance(part, slice) else part)})
        for part, shard in zip(selection, array.shards, strict=True)
    ]
    for position in itertools.product(*touched):
        name = array.metadata.encode_chunk_key(position)
        try:
            empty = (root / name).stat().st_size == 0
        except OSError:
            continue  # a shard that is not there is fill value, by the specification
        if empty:
            raise DataError(
                f"The shard {name!r} of the array {Location(spec.url).describe(spec.key)} has zero length: "
                f"its writing was cut short. Write it again."
            )


def _refuse_read(spec: SourceSpec, window: tuple[slice, ...], error: BaseException) -> NoReturn:
    location = Location(spec.url)
    if remote.is_unreachable(error):
        location.refuse(error)
    order = axes_.canonical(spec.axes)
    shown = " ".join(f"{axis} {part.start}:{part.stop}" for axis, part in zip(order, window, strict=True))
    remote.wrap(
        error,
        f"Cannot decode the window {shown} of the array {location.describe(spec.key)}: a chunk is damaged or "
        f"cut short ({type(error).__name__}: {remote.one_line(error)}). Restore the chunk from a copy.",
        DataError,
    )
