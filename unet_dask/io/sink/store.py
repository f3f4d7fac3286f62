"""The sink: a Zarr v3 group with one OME-Zarr image per product, and the run's manifest beside them.

``out.zarr/``

=====================  ============================================================================
``classes/``           OME-Zarr 0.5 multiscale with ``image-label``
``probabilities/``     OME-Zarr 0.5 multiscale with a channel axis
``instances/``         OME-Zarr 0.5 multiscale with ``image-label``
``_unet_dask/``        an empty array whose attributes are the manifest; in its folder lies the ledger
=====================  ============================================================================

The fill value of every array is a sentinel that no result has, so a hole never reads as background and
background is really written. Chunks carry a checksum. The manifest is written last: a sink without one was
never completely created. Its node is an array because readers of Zarr list what lies in a group, and complain
about files they do not know there, but never look into an array.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import fsspec
import numpy as np
import zarr
from fsspec.implementations.local import LocalFileSystem
from zarr.codecs import ZstdCodec
from zarr.core.metadata import ArrayV3Metadata
from zarr.storage import StoreLike, StorePath

from unet_dask.axes import by_axis
from unet_dask.durable import sync_file, sync_folder
from unet_dask.errors import SinkError, SinkLostError
from unet_dask.io.remote import redact_url
from unet_dask.io.sink import node, session
from unet_dask.io.sink.multiscale import Level, image_metadata
from unet_dask.io.sink.place import ASIDE, MARK, NUMBERS, RUN_FOLDER, locate, sealed
from unet_dask.products import product_of
from unet_dask.products.sentinel import is_sentinel

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray
    from zarr.abc.store import Store

    from unet_dask.io.bounded import OpenedArray
    from unet_dask.products import Product
    from unet_dask.tiling.box import Box

#: Above this many chunks, chunks are bundled into shards: file systems suffer before we do.
MANY_CHUNKS = 10_000


@dataclass(frozen=True, slots=True)
class ArraySpec:
    """One product's arrays.

    Attributes
    ----------
    name : of the product and its group
    axes : in OME order
    dtype : of the values
    chunks : per axis
    shards : per axis, or None if chunks are files of their own
    levels : of the pyramid
    """

    name: str
    axes: str
    dtype: str
    chunks: tuple[int, ...]
    shards: tuple[int, ...] | None
    levels: tuple[Level, ...]

    @property
    def product(self) -> Product:
        """What the values are."""
        return product_of(self.name, self.dtype)

    @property
    def unwritten(self) -> float:
        """Sentinel, the fill value."""
        return self.product.unwritten

    def box(self, part: Box) -> Box:
        """Return a part of the result as a box of level 0, with all channels that the product has."""
        channels = by_axis(self.axes, self.levels[0].shape).get("c", 1)
        return part.along("c", (0, channels)).over(self.axes)

    @property
    def write_unit(self) -> tuple[int, ...]:
        """What one task must write whole."""
        return self.shards or self.chunks


@dataclass(frozen=True, slots=True)
class Sink:
    """Where a run writes; small enough to travel in tasks.

    Attributes
    ----------
    url : path or URL of the group
    arrays : one per product
    session : of the driver whose workers write, see `io.sink.session`; "" for one who writes in place, unguarded
    attempt : at a piece of work, within the session; "" outside of one
    """

    url: str
    arrays: tuple[ArraySpec, ...]
    session: str = ""
    attempt: str = ""

    @property
    def run_folder(self) -> str:
        """Folder of manifest and ledger."""
        return f"{self.url.rstrip('/')}/{RUN_FOLDER}"

    @property
    def local(self) -> bool:
        """Whether the sink is on a file system of this machine."""
        return isinstance(fsspec.core.url_to_fs(self.url)[0], LocalFileSystem)

    @contextmanager
    def attempted(self) -> Iterator[Sink]:
        """Yield the sink as one attempt at a piece of work writes it; the driver must put in place what it stages.

        Raises
        ------
        SinkLostError
            If the session has ended: the work is nobody's any more.
        """
        if not self.session:
            yield self
            return
        with session.attempt(self.url, self.session) as made:
            yield replace(self, attempt=made)

    def write(self, name: str, level: int, start: Sequence[int], values: NDArray[np.generic]) -> str:
        """Write values at a place, flush them to disk, and return their checksum.

        Parameters
        ----------
        name : of a product, or one of `ASIDE` for objects that are not ready yet
        level : of its pyramid
        start : of the values in the level's array
        values : whole write units, but at the end of the array
        """
        window = tuple(slice(a, a + n) for a, n in zip(start, values.shape, strict=True))
        reason = ""
        try:
            self._writable(name, level)[window] = values
            if self.local and not self.attempt:
                self._flush(name, level, start, values.shape)
        except SinkError as error:
            raise type(error)(str(error)) from None  # as below
        except OSError as error:
            reason = str(error.strerror or error)
        if reason:  # raised out here: errors of Zarr and of cloud drivers, as a cause, cannot be unpickled
            raise SinkLostError(
                f"The sink {redact_url(self.url)} cannot be written: {' '.join(reason.split())}. What is done is "
                "kept; mend the cause and --resume."
            )
        return checksum(values, start)

    def read(self, name: str, level: int, window: tuple[slice, ...]) -> NDArray[np.generic]:
        """Return values of a product."""
        return np.asarray(self._array(name, level)[window])

    def read_written(self, name: str, level: int, window: tuple[slice, ...]) -> NDArray[np.generic]:
        """Return values of which every one has been written, for others to be made from.

        Raises
        ------
        SinkLostError
            If some are not there: a chunk that was away for a moment reads as the fill value.
        """
        values = self.read(name, level, window)
        if is_sentinel(values).any():
            raise SinkLostError(
                f"The sink {redact_url(self.url)} is not whole: chunks of {_path(name, level)} that were written are "
                "not there. Bring them back, if you know where they are; --resume makes again what is missing."
            )
        return values

    def _spec(self, name: str) -> ArraySpec:
        """Return the description of a product; what lies aside does so in an array like that of the objects."""
        return next(
            array for array in self.arrays if (array.product.joined if name in ASIDE else array.name == name)
        )

    def _array(self, name: str, level: int) -> OpenedArray:
        spec = self._spec(name)
        return _open_array(
            self.url, _path(name, level), spec.levels[level].shape, spec.chunks, spec.shards, spec.dtype
        )

    def _writable(self, name: str, level: int) -> OpenedArray:
        """Return an array as this attempt writes it: into files of its own, or object by object while it may."""
        array = self._array(name, level)
        if not self.session:
            return array
        if self.attempt:
            store: Store = session.StagedFiles(self.url, self.session, self.attempt)
        else:
            store = session.GuardedObjects(self.url, self.session)
        there = array.async_array
        assert isinstance(there.metadata, ArrayV3Metadata)
        return zarr.Array(zarr.AsyncArray(there.metadata, StorePath(store, there.path), there.config))

    def _flush(self, name: str, level: int, start: Sequence[int], shape: Sequence[int]) -> None:
        """Flush every file under the written window, then their folders, up to the array's own: any may be new."""
        root = Path(fsspec.core.url_to_fs(self.url)[1]) / _path(name, level) / "c"
        ranges = [
            range(a // unit, -(-(a + n) // unit))
            for a, n, unit in zip(start, shape, self._spec(name).write_unit, strict=True)
        ]
        folders: set[Path] = set()
        for index in np.ndindex(*(len(each) for each in ranges)):
            path = root.joinpath(*(str(each[i]) for each, i in zip(ranges, index, strict=True)))
            sync_file(path)
            folders.update(path.parents[: len(index) + 1])
        for folder in folders:
            sync_folder(folder)


def _path(name: str, level: int) -> str:
    return name if name in ASIDE else f"{name}/{level}"


def checksum(values: NDArray[np.generic], start: Sequence[int]) -> str:
    """Return a digest of values bound to their place, so that two swapped chunks do not pass."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(repr((tuple(map(int, start)), values.shape, str(values.dtype))).encode())
    digest.update(np.ascontiguousarray(values).view(np.uint8).data if values.size else b"")
    return digest.hexdigest()


def shards_for(shape: Sequence[int], chunks: Sequence[int], region: Sequence[int]) -> tuple[int, ...] | None:
    """Return shards for an array with very many chunks, else None.

    A shard is one task's to write, so it divides the region: the region itself where it is a multiple of
    the chunks.
    """
    count = np.prod([-(-size // chunk) for size, chunk in zip(shape, chunks, strict=True)], dtype=np.float64)
    if count <= MANY_CHUNKS or any(side % chunk for side, chunk in zip(region, chunks, strict=True)):
        return None
    return tuple(int(side) for side in region)


def create(
    sink: Sink,
    manifest: Mapping[str, object],
    *,
    class_names: Sequence[str],
    spacing: Mapping[str, float],
    unit: Mapping[str, str | None],
    translation: Mapping[str, float],
    name: str,
) -> None:
    """Create all groups and arrays, unwritten, and the manifest last.

    Raises
    ------
    SinkError
        If the place cannot be written.
    """
    _open_array.cache_clear()
    try:
        _sync_tree(sink)  # whatever is lost now, the run's folder is there, and the place is known as ours
        _sync_name(sink)
        root = zarr.create_group(sink.url, attributes={MARK: {"version": 1}}, overwrite=False)
        for spec in sink.arrays:
            attributes = image_metadata(
                spec.axes,
                spec.levels,
                name=f"{name} {spec.name}",
                spacing=spacing,
                unit=unit,
                translation=translation,
            )
            attributes |= spec.product.described(class_names)
            group = root.create_group(spec.name, attributes={"ome": attributes})
            for number in range(len(spec.levels)):
                new_array(group.store_path, spec, number, name=str(number))
        create_numbers(sink)
        _sync_tree(sink)
        paths = [f"{spec.name}/{number}" for spec in sink.arrays for number in range(len(spec.levels))]
        nodes = node.checksums(sink.url, ["", *(spec.name for spec in sink.arrays), *paths])
        complete = sealed({**manifest, "nodes": nodes})
        root.create_array(RUN_FOLDER, shape=(), dtype="uint8", attributes={MARK: complete})
        _sync_tree(sink, RUN_FOLDER)  # all else is there, and this makes it a result
    except OSError as error:
        raise SinkError(
            f"The sink {redact_url(sink.url)} cannot be created: {error.strerror or error}. Name a place that can be "
            "written with -o."
        ) from error


def create_numbers(sink: Sink, name: str = NUMBERS) -> None:
    """Create the array for objects that are not ready yet, unless it is there; no result ever holds them.

    Where regions keep numbers of their own, and where those of whole objects come, are different places: a worker that
    is late with the first can never write over the second.

    Parameters
    ----------
    sink : of the run
    name : one of `ASIDE`
    """
    for spec in sink.arrays:
        if spec.product.joined:
            fs, path = locate(sink.url)
            if not fs.exists(f"{path}/{name}/zarr.json"):
                # A store of its own: within that of the sink, Zarr would make a group of the folder above.
                new_array(f"{sink.url.rstrip('/')}/{name}", spec, 0)


def remove_numbers(sink: Sink) -> None:
    """Remove the numbers of objects that have all become those of the result."""
    fs, path = locate(sink.url)
    for name in ASIDE:
        if fs.exists(f"{path}/{name}"):
            fs.rm(f"{path}/{name}", recursive=True)


def new_array(
    place: StoreLike, spec: ArraySpec, level: int, *, name: str | None = None, shape: tuple[int, ...] = ()
) -> OpenedArray:
    """Create the array of a level, or one like it of another shape; Zarr chooses nothing by itself."""
    return zarr.create_array(
        place,
        name=name,
        shape=shape or spec.levels[level].shape,
        dtype=spec.dtype,
        chunks=spec.chunks,
        shards=spec.shards,
        fill_value=spec.unwritten,
        compressors=ZstdCodec(level=1, checksum=True),
        dimension_names=list(spec.axes),
        config={"write_empty_chunks": True},
    )


def restamp(sink: Sink, manifest: Mapping[str, object]) -> None:
    """Replace the manifest of a sink whose source was repaired."""
    zarr.open_array(sink.url, path=RUN_FOLDER, mode="r+").update_attributes({MARK: sealed(manifest)})
    _sync_tree(sink)


def _sync_tree(sink: Sink, within: str = "") -> None:
    """Flush the metadata of a new local sink, without which its chunks are nothing; all of it, or of a node in it."""
    if not sink.local:
        return
    for folder, _, names in os.walk(Path(fsspec.core.url_to_fs(sink.url)[1], within)):
        for name in names:
            sync_file(Path(folder) / name)
        sync_folder(folder)


def _sync_name(sink: Sink) -> None:
    """Flush the name of a new local sink, and those of the folders above it."""
    if not sink.local:
        return
    for above in Path(fsspec.core.url_to_fs(sink.url)[1]).parents:  # the run may have made them
        with suppress(OSError):  # nor need it be allowed to look into all of them
            sync_folder(above)


@lru_cache(maxsize=32)
def _open_array(
    url: str,
    path: str,
    shape: tuple[int, ...],
    chunks: tuple[int, ...],
    shards: tuple[int, ...] | None,
    dtype: str,
) -> OpenedArray:
    """Open an array of a sink for writing, once per process and layout.

    A worker outlives runs: a sink that was replaced since has other chunks under the same path, and writing by the
    old ones would scatter them. So the layout is part of the key, and compared with what stands there.
    """
    array = zarr.open_array(url, path=path, mode="r+", config={"write_empty_chunks": True})
    if (array.shape, array.chunks, array.shards, str(array.dtype)) != (shape, chunks, shards, dtype):
        raise SinkLostError(
            f"The sink {redact_url(url)} was replaced by another run while this one was writing."
        )
    return array
