"""The sink: a Zarr v3 group with one OME-Zarr image per product, and the run's manifest beside them.

``out.zarr/``

=====================  ============================================================================
``classes/``           OME-Zarr 0.5 multiscale with ``image-label``
``probabilities/``     OME-Zarr 0.5 multiscale with a channel axis
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
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fsspec
import numpy as np
import zarr
from fsspec.implementations.local import LocalFileSystem
from zarr.codecs import ZstdCodec

from unet_dask.errors import SinkError
from unet_dask.io.durable import sync_file, sync_folder
from unet_dask.io.multiscale import Level, image_metadata, label_metadata

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

RUN_FOLDER = "_unet_dask"
#: The manifest's place in the attributes of the run's group, and the mark of a sink of ours in the root's.
_MARK = "unet_dask"
#: Above this many chunks, chunks are bundled into shards: file systems suffer before we do.
_MANY_CHUNKS = 10_000


@dataclass(frozen=True, slots=True)
class ArraySpec:
    """One product's arrays.

    Attributes
    ----------
    name : of the product and its group
    axes : in OME order
    dtype : of the values
    unwritten : sentinel, the fill value
    chunks : per axis
    shards : per axis, or None if chunks are files of their own
    levels : of the pyramid
    """

    name: str
    axes: str
    dtype: str
    unwritten: float
    chunks: tuple[int, ...]
    shards: tuple[int, ...] | None
    levels: tuple[Level, ...]

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
    """

    url: str
    arrays: tuple[ArraySpec, ...]

    @property
    def run_folder(self) -> str:
        """Folder of manifest and ledger."""
        return f"{self.url.rstrip('/')}/{RUN_FOLDER}"

    @property
    def local(self) -> bool:
        """Whether the sink is on a file system of this machine."""
        return isinstance(fsspec.core.url_to_fs(self.url)[0], LocalFileSystem)

    def write(self, name: str, level: int, start: Sequence[int], values: NDArray[np.generic]) -> str:
        """Write values at a place, flush them to disk, and return their checksum."""
        array = _open_array(self.url, f"{name}/{level}")
        window = tuple(slice(a, a + n) for a, n in zip(start, values.shape, strict=True))
        try:
            array[window] = values
            if self.local:
                self._flush(name, level, start, values.shape)
        except OSError as error:
            raise SinkError(
                f"The sink {self.url} cannot be written: {error.strerror or error}. What is done is kept; mend "
                "the cause and --resume."
            ) from error
        return checksum(values, start)

    def read(self, name: str, level: int, window: tuple[slice, ...]) -> NDArray[np.generic]:
        """Return values of a product."""
        return np.asarray(_open_array(self.url, f"{name}/{level}")[window])

    def _flush(self, name: str, level: int, start: Sequence[int], shape: Sequence[int]) -> None:
        """Flush every file under the written window, then their folders."""
        spec = next(each for each in self.arrays if each.name == name)
        root = Path(fsspec.core.url_to_fs(self.url)[1]) / name / str(level) / "c"
        ranges = [
            range(a // unit, -(-(a + n) // unit))
            for a, n, unit in zip(start, shape, spec.write_unit, strict=True)
        ]
        folders = set()
        for index in np.ndindex(*(len(each) for each in ranges)):
            path = root.joinpath(*(str(each[i]) for each, i in zip(ranges, index, strict=True)))
            sync_file(path)
            folders.add(path.parent)
        for folder in folders:
            sync_folder(folder)


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
    if count <= _MANY_CHUNKS or any(side % chunk for side, chunk in zip(region, chunks, strict=True)):
        return None
    return tuple(int(side) for side in region)


def create(
    sink: Sink,
    manifest: Mapping[str, Any],
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
    try:
        root = zarr.create_group(sink.url, attributes={_MARK: {"version": 1}}, overwrite=False)
        for spec in sink.arrays:
            attributes = image_metadata(
                spec.axes,
                spec.levels,
                name=f"{name} {spec.name}",
                spacing=spacing,
                unit=unit,
                translation=translation,
            )
            if spec.name == "classes":
                attributes["image-label"] = label_metadata(class_names)
            group = root.create_group(spec.name, attributes={"ome": attributes})
            for number, level in enumerate(spec.levels):
                group.create_array(
                    str(number),
                    shape=level.shape,
                    dtype=spec.dtype,
                    chunks=spec.chunks,
                    shards=spec.shards,
                    fill_value=spec.unwritten,
                    compressors=ZstdCodec(level=1, checksum=True),
                    dimension_names=list(spec.axes),
                    config={"write_empty_chunks": True},
                )
        root.create_array(RUN_FOLDER, shape=(), dtype="uint8", attributes={_MARK: dict(manifest)})
    except OSError as error:
        raise SinkError(
            f"The sink {sink.url} cannot be created: {error.strerror or error}. Name a place that can be written "
            "with -o."
        ) from error


def read_manifest(url: str) -> dict[str, Any] | None:
    """Return the manifest of a sink, or None where there is none (yet).

    Raises
    ------
    SinkError
        If something that is no sink of ours stands there.
    """
    if not exists(url):
        return None
    try:
        root = zarr.open_group(url, mode="r", use_consolidated=False)
        mark = root.attrs.get(_MARK)
    except (OSError, ValueError, KeyError, TypeError):
        mark = None
    if mark is None:
        raise SinkError(
            f"{url} exists and is not a result of unet-dask, so it is neither resumed nor overwritten. Name another "
            "place with -o, or remove it yourself."
        )
    try:
        run = zarr.open_array(url, path=RUN_FOLDER, mode="r")
    except (OSError, ValueError, KeyError):
        return None
    manifest = run.attrs.get(_MARK)
    return dict(manifest) if isinstance(manifest, dict) else None


def exists(url: str) -> bool:
    """Return whether anything stands at the sink's place; an empty folder does not count."""
    fs, path = fsspec.core.url_to_fs(url)
    fs.invalidate_cache()
    if not fs.exists(path):
        return False
    return not fs.isdir(path) or bool(fs.ls(path, detail=False))


def remove(url: str) -> None:
    """Remove a sink of ours, complete or not; refuses anything else."""
    if exists(url):
        read_manifest(url)
        fs, path = fsspec.core.url_to_fs(url)
        try:
            fs.rm(path, recursive=True)
        except OSError as error:
            raise SinkError(f"The sink {url} cannot be removed: {error.strerror or error}.") from error
    _open_array.cache_clear()


def probe(url: str) -> str:
    """Return why a sink cannot be written from this process, "" if it can."""
    fs, path = fsspec.core.url_to_fs(url)
    trial = f"{path.rstrip('/')}.probe-{os.getpid()}"
    try:
        fs.pipe_file(trial, b"unet-dask")
        fs.rm_file(trial)
    except OSError as error:
        return str(error.strerror or error)
    return ""


def sweep(sink: Sink) -> None:
    """Remove what killed writers left behind: partial files that no reader looks at."""
    fs, path = fsspec.core.url_to_fs(sink.url)
    if isinstance(fs, LocalFileSystem):
        for stray in Path(path).rglob("*.partial"):
            stray.unlink(missing_ok=True)


@contextmanager
def locked(sink: Sink) -> Iterator[None]:
    """Hold the sink for one driver; the kernel lets go when the process ends, however it ends.

    Raises
    ------
    SinkError
        If another run is writing there.
    """
    if not sink.local or os.name != "posix":
        yield
        return
    import fcntl

    path = Path(fsspec.core.url_to_fs(sink.run_folder)[1]) / "lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = path.read_text(encoding="utf-8", errors="replace").strip() or "another process"
            raise SinkError(
                f"{sink.url} is being written by {owner}. Wait for it, or stop it first."
            ) from None
        os.truncate(descriptor, 0)
        os.write(descriptor, f"process {os.getpid()} on {os.uname().nodename}".encode())
        yield
        path.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


@lru_cache(maxsize=32)
def _open_array(url: str, path: str) -> zarr.Array[Any]:
    """Open an array of a sink for writing, once per process."""
    return zarr.open_array(url, path=path, mode="r+", config={"write_empty_chunks": True})
