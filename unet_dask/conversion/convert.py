"""The verb: an image is written beside its place, shard by shard, read again, and then put there whole.

What is read of the source is digested, and so is what is read again of the copy: a bit that was lost on the way is
found before anybody trusts the copy. Until then it lies in a folder of another name, so there is never half an image.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np
import zarr
from zarr.codecs import ZstdCodec

from unet_dask import durable
from unet_dask.axes import times
from unet_dask.conversion import journal as journals
from unet_dask.conversion.layout import described, layout_of
from unet_dask.conversion.place import MARK, partial_of, prepared, required
from unet_dask.errors import DataError, InputError
from unet_dask.io.remote import shorten
from unet_dask.io.source.volume import open_source
from unet_dask.io.source.window import read_window
from unet_dask.products.coarse import averaged

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path
    from typing import Unpack

    from numpy.typing import NDArray

    from unet_dask.conversion.journal import Journal, Place
    from unet_dask.conversion.layout import Layout
    from unet_dask.io.bounded import OpenedArray
    from unet_dask.io.source.volume import Source
    from unet_dask.tiling.box import Box

    #: Level, index there, and box of that level.
    Shard = tuple[int, tuple[int, ...], Box]
    #: Called with the shards that are done, and with all.
    OnShard = Callable[[int, int], object]


class Which(TypedDict, total=False):
    """Which image of a file, and what of it."""

    key: str | None
    axes: str | None
    level: int | None
    channels: Sequence[int | str] | None


@dataclass(frozen=True, slots=True)
class Converted:
    """What was written.

    Attributes
    ----------
    path : of the image
    axes, shape, dtype : of the finest level
    levels : of the pyramid
    shards : files that were written now, of all levels
    seconds : it took
    """

    path: Path
    axes: str
    shape: tuple[int, ...]
    dtype: str
    levels: int
    shards: int
    seconds: float

    def lines(self) -> list[tuple[str, str]]:
        """Return what people want to know."""
        return [
            ("image", f"{times(self.shape)} ({self.axes}), {self.dtype}, {self.levels} levels"),
            ("checked", f"every value, read again, is that of the source; {self.seconds:.1f} s"),
            ("written", str(self.path)),
        ]

    def to_json(self) -> dict[str, Any]:
        """Return the same for programs."""
        return {
            "path": str(self.path),
            "axes": self.axes,
            "shape": list(self.shape),
            "dtype": self.dtype,
            "levels": self.levels,
            "shards": self.shards,
            "seconds": round(self.seconds, 3),
        }


def convert(
    image: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    workers: int | None = None,
    resume: bool = False,
    overwrite: bool = False,
    on_shard: OnShard = lambda done, total: None,
    **which: Unpack[Which],
) -> Converted:
    """Write an image of any format as OME-Zarr 0.5, with a pyramid, in shards.

    Axes, size of a pixel, place and names of channels are kept; coarser levels are means. All of it is read again and
    compared before the image is put in its place.

    Parameters
    ----------
    image : path or URL of whatever `segment` reads
    output : path of the folder to write, such as ``slide.ome.zarr``
    workers : threads, each of which holds a few shards; by default one for each processor
    resume : go on with a conversion that was stopped
    overwrite : replace an image that was converted before, or begin a stopped conversion anew
    on_shard : called with the number of shards that are done, and of all
    which : `key`, `axes`, `level` and `channels` of the image, as for `segment`

    Raises
    ------
    InputError
        If there is no such image.
    SinkError
        If the place is taken, cannot be written, or is being written.
    MismatchError
        If the conversion to go on with was begun with another image, or otherwise.
    DataError
        If the image cannot be read, has changed meanwhile, or was not written as it was read.
    """
    began = time.perf_counter()
    source = open_source(image, **which)
    if source.dtype.kind not in "biuf":
        raise InputError(f"{source.name} holds values of type {source.dtype}, which are no grey values.")
    target = required(output, source.spec.url, resume=resume, overwrite=overwrite)
    layout, before = layout_of(source), source.identity()
    folder = prepared(target, overwrite=overwrite)
    with journals.opened(folder, {"source": before, "shards": list(layout.shards)}) as journal:
        copy = _Copy(source, layout, folder, journal, workers or os.cpu_count() or 1, on_shard)
        written = copy.write()
        if open_source(image, **which).identity() != before:
            raise DataError(
                f"{source.name} has changed while it was converted. Convert it again, with --overwrite."
            )
        copy.describe()
    _put_in_place(folder, target)
    finest = layout.levels[0]
    return Converted(
        target,
        layout.axes,
        finest.shape,
        source.dtype.name,
        len(layout.levels),
        written,
        time.perf_counter() - began,
    )


class _Copy:
    """An image that is being written."""

    def __init__(
        self, source: Source, layout: Layout, folder: Path, journal: Journal, workers: int, on_shard: OnShard
    ) -> None:
        self.source, self.layout, self.folder, self.journal = source, layout, folder, journal
        self.workers, self.on_shard = workers, on_shard
        self.done = 0
        self.places = [
            [(level, index, box) for index, box in layout.boxes(level)] for level in range(len(layout.levels))
        ]
        self.total = 2 * sum(map(len, self.places))
        self.arrays = [self._array(level) for level in range(len(layout.levels))]

    def write(self) -> int:
        """Write what is not written yet, level by level, and return how many shards that were.

        A level is read again before the next is made of it.

        Raises
        ------
        DataError
            If something is not what was written; it is written again by a conversion that goes on.
        """
        count = 0
        for places in self.places:
            missing = [each for each in places if each[:2] not in self.journal.digests]
            self._step(len(places) - len(missing))
            for place, digest in self._each(self._made, missing):
                self.journal.add(place, digest)
                count += 1
            self._check(places)
        return count

    def _check(self, places: Iterable[Shard]) -> None:
        """Read a level again."""
        found = self._each(self._found, places)
        wrong = [place for place, digest in found if digest != self.journal.digests[place]]
        for place in wrong:
            self.journal.forget(place)
        if wrong:
            raise DataError(
                f"{len(wrong)} parts of {shorten(str(self.folder))} do not hold what was written there: look after the "
                "disk, and go on with --resume."
            )

    def describe(self) -> None:
        """Say what the image is, and flush all of it."""
        coarsest = np.asarray(self.arrays[-1][...])
        group = zarr.open_group(self.folder, mode="r+")
        group.update_attributes(
            {"ome": described(self.source, self.layout, coarsest), MARK: self.source.name}
        )
        durable.sync_file(self.folder / "zarr.json")

    def _array(self, level: int) -> OpenedArray:
        """Open the array of a level, or create it."""
        with suppress(FileNotFoundError):
            return zarr.open_array(self.folder, path=str(level), mode="r+")
        array = zarr.create_array(
            self.folder,
            name=str(level),
            shape=self.layout.levels[level].shape,
            dtype=self.source.dtype,
            chunks=self.layout.chunks,
            shards=self.layout.shards,
            fill_value=0,
            compressors=ZstdCodec(level=3, checksum=True),
            dimension_names=list(self.layout.axes),
            config={"write_empty_chunks": True},
        )
        durable.sync_file(self.folder / str(level) / "zarr.json")
        return array

    def _made(self, level: int, index: tuple[int, ...], box: Box) -> str:
        """Make a shard of the source or of the finer level, write and flush it; return the digest of its values."""
        values = self._read(box) if level == 0 else self._coarser(level, box)
        file = self.folder.joinpath(str(level), "c", *map(str, index))
        file.unlink(missing_ok=True)  # Zarr would look what of a torn one lies beyond the image
        self.arrays[level][box.slices] = values
        durable.sync_file(file)
        durable.sync_folder(file.parent)
        return _digest(values)

    def _found(self, level: int, index: tuple[int, ...], box: Box) -> str:
        """Return the digest of what is stored of a shard."""
        del index
        try:
            return _digest(np.asarray(self.arrays[level][box.slices]))
        except Exception:  # whatever Zarr makes of damaged bytes
            return "damaged"

    def _read(self, box: Box) -> NDArray[np.generic]:
        """Return the values of the source."""
        spans = dict(zip(self.layout.axes, box.slices, strict=True))
        window = tuple(spans.get(axis, slice(0, 1)) for axis in self.source.axes)
        values = read_window(self.source.spec, window, run=f"convert {self.folder}")
        return values.reshape([stop - start for start, stop in box.spans])

    def _coarser(self, level: int, box: Box) -> NDArray[np.generic]:
        finer, step = self.layout.finer(level, box)
        return averaged(np.asarray(self.arrays[level - 1][finer.slices]), step)

    def _each(self, act: Callable[..., str], places: Iterable[Shard]) -> Iterable[tuple[Place, str]]:
        """Do something for each shard, a few at a time, and yield what comes of it."""
        stop = threading.Event()

        def unless_stopped(*place: Any) -> str:
            return "" if stop.is_set() else act(*place)

        left, running = iter(places), dict[Future[str], Any]()
        with ThreadPoolExecutor(self.workers) as pool:
            try:
                while True:
                    for place in left:
                        running[pool.submit(unless_stopped, *place)] = place[:2]
                        if len(running) > self.workers:
                            break
                    if not running:
                        return
                    ready, _ = wait(running, return_when=FIRST_COMPLETED)
                    for future in ready:
                        yield running.pop(future), future.result()
                        self._step(1)
            finally:
                stop.set()

    def _step(self, count: int) -> None:
        self.done += count
        self.on_shard(self.done, self.total)


def _digest(values: NDArray[np.generic]) -> str:
    little = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
    return hashlib.sha256(little.view(np.uint8).data).hexdigest()


def _put_in_place(folder: Path, target: Path) -> None:
    """Give the image its name; what was there is removed once it is."""
    (folder / journals.NAME).unlink()
    old = partial_of(target).with_suffix(".old")
    if target.exists():
        target.rename(old)
    folder.rename(target)
    durable.sync_folder(target.parent)
    shutil.rmtree(old, ignore_errors=True)
