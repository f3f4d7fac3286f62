"""Formats of one file that holds images: all that they share, so that each says only what it holds and how it is read.

A format describes the image that is meant (`FileImage`) and reads a part of it from the file, which is opened by us and
must be the same before and after. Axes that nobody names are guessed as those of Zarr are.
"""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Protocol

from unet_dask import axes as axes_
from unet_dask.errors import DataError, InputError
from unet_dask.io.remote import Location, local_path, one_line, shorten
from unet_dask.io.source import content, node, pieces, resolve
from unet_dask.io.source.formats import split_file, stem
from unet_dask.io.source.pieces import Decoding
from unet_dask.io.source.protocol import Found
from unet_dask.io.source.single_file import SingleFile
from unet_dask.io.source.stamps import Look, file_at
from unet_dask.regular import IrregularError, open_regular

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from typing import BinaryIO

    import numpy as np
    from numpy.typing import NDArray

    from unet_dask.io.source.protocol import SourceSpec, Wanted


@dataclass(frozen=True)
class FileImage:
    """An image in a file.

    Attributes
    ----------
    key : of the image in the file, "" where there is but one
    shape, dtype : of the stored array, the type in native byte order
    chunk : values that are decoded together, along all axes
    kind : of the file, for people
    copies : of a chunk at once in memory
    place : where in the file the values lie, and how they are stored; anything that `repr` tells apart
    axes : one letter per axis; None if the file names none
    spacing : physical size of a pixel, by axis, or in the order of the last axes of space where none are named
    unit : of the spacing
    translation : position of the first pixel, by axis
    channel_names : of the channels, () if nobody named them
    level : of its pyramid, None if there is none
    levels : key and shape of every level, the finest first
    facts : to tell of it beside its chunks
    """

    key: str
    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]
    chunk: tuple[int, ...]
    kind: str
    copies: int = 2
    place: object = None
    axes: str | None = None
    spacing: Mapping[str, float] | Sequence[float] | None = None
    unit: str | None = None
    translation: Mapping[str, float] = field(default_factory=dict)
    channel_names: tuple[str, ...] = ()
    level: int | None = None
    levels: tuple[tuple[str, tuple[int, ...]], ...] = ()
    facts: Mapping[str, object] = field(default_factory=dict)

    @property
    def chunk_bytes(self) -> int:
        """Bytes of a chunk, decoded."""
        return math.prod(self.chunk) * self.dtype.itemsize


class Reader(Protocol):
    """What a format of one file defines."""

    def image(self, file: BinaryIO, path: Path, inner: str, level: int | None) -> FileImage:
        """Return the image that is meant by a key and a level, from a file that is open.

        Raises
        ------
        InputError
            If there is none, several and none is named, or it cannot be read.
        """

    def values(self, file: BinaryIO, image: FileImage, selection: tuple[slice, ...]) -> NDArray[np.generic]:
        """Return a part of the values, one slice without a step per axis."""


@dataclass(eq=False)
class FileArray(SingleFile):
    """An image in a file as an array.

    Attributes
    ----------
    path : of the file
    image : in it
    version : size and time of change (ns) of the file when it was found
    reader : of its format
    """

    path: Path
    image: FileImage
    version: tuple[int, int]
    reader: Reader

    @property
    def shape(self) -> tuple[int, ...]:
        """Stored shape."""
        return self.image.shape

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """Type of the values, in native byte order."""
        return self.image.dtype

    @property
    def unit(self) -> tuple[int, ...]:
        """What is decoded together."""
        return self.image.chunk

    @property
    def decoding(self) -> Decoding:
        """What reading takes beside what is read."""
        return Decoding(self.image.chunk, self.image.chunk_bytes, self.image.copies)

    @property
    def facts(self) -> Mapping[str, object]:
        """Kind of the file and chunks."""
        return {"chunks": list(self.unit), "shards": None, "format": self.image.kind} | dict(self.image.facts)

    def read(self, selection: tuple[slice, ...]) -> tuple[NDArray[np.generic], Look]:
        """Return a part of the values, and what the file was that it was read from."""
        pieces.require_room(
            math.prod(part.stop - part.start for part in selection) * self.image.dtype.itemsize
        )
        with (
            self.reopened() as (file, version),
            pieces.alone if self.image.chunk_bytes > pieces.LARGE else nullcontext(),
        ):
            values = self.reader.values(file, self.image, selection)
        return values, Look({self.path.name: version}, {})


@dataclass(frozen=True)
class FileFormat:
    """The functions of a `Format`, of one whose files a reader understands."""

    reader: Reader

    def find(self, place: str, wanted: Wanted) -> Found:
        """Return the image that is meant by a path and what was said of it.

        Raises
        ------
        InputError
            If there is no such image, or not as described.
        """
        path, inner = split_file(place, wanted.key)
        array = self._opened(path, inner, wanted.level)
        image, shown = array.image, shorten(str(path))
        shown_image = f"{shown}, {image.key!r}" if image.key else shown
        _require_image(image, shown_image)
        axes, origin = _axes(image, shown_image, wanted)
        spacing = _spacing(image, axes)
        return Found(
            url=str(path),
            key=image.key,
            zarr_format=0,
            metadata=_described(image),
            written=array.version[1],
            axes=axes,
            origin=origin,
            stored=array,
            name=f"{stem(path.name)}/{image.key}" if image.key else stem(path.name),
            shown=shown_image,
            spacing=[spacing.get(axis, 1.0) for axis in axes] if spacing else None,
            units=[image.unit if axis in spacing else None for axis in axes] if spacing else None,
            translation=[image.translation.get(axis, 0.0) for axis in axes] if image.translation else None,
            level=image.level,
            channel_names=image.channel_names if axes_.has_channel(axes) else (),
        )

    def opened(self, spec: SourceSpec, *, keep: bool) -> FileArray:
        """Return the array of a spec, in any process.

        Raises
        ------
        DataError
            If the file is gone or another one is in its place.
        """
        del keep  # a file is opened anew for every window
        try:
            array = self._opened(local_path(spec.url), spec.key, None)
        except InputError as error:
            raise DataError(f"The image {shorten(spec.url)} cannot be opened any more: {error}") from error
        changed = spec.written and array.version[1] != spec.written
        if changed or _described(array.image) != spec.metadata:
            raise DataError(
                f"The image {shorten(spec.url)} was replaced since it was opened. Open the source again."
            )
        return array

    def digest(self, spec: SourceSpec) -> str:
        """Return a digest of size and time of the file, and of samples of its bytes."""
        return content.file_digest(local_path(spec.url))

    def levels(self, spec: SourceSpec) -> list[dict[str, object]]:
        """Return path and shape of every level of the pyramid, the finest first."""
        found = self._opened(local_path(spec.url), spec.key, None).image.levels
        return [{"path": key, "shape": list(shape)} for key, shape in found]

    def _opened(self, path: Path, inner: str, level: int | None) -> FileArray:
        before = file_at(str(path))
        try:
            with open_regular(path) as file:
                image = self.reader.image(file, path, inner, level)
        except InputError:
            raise
        except IrregularError as error:
            raise InputError(f"{shorten(str(path))} is {error}, not a regular file.") from error
        except PermissionError as error:
            Location(str(path)).refuse(error)
        except Exception as error:  # whatever a library makes of a damaged file
            raise InputError(
                f"{shorten(str(path))} is damaged or of a kind that is not read: {one_line(error)} "
                f"({type(error).__name__}). Copy it again, or convert it to Zarr."
            ) from error
        return FileArray(path, image, (before or (0, 0))[:2], self.reader)


def no_level(path: Path, inner: str, level: int | None, what: str) -> None:
    """Refuse a key and a level where there is one image only.

    Raises
    ------
    InputError
        Saying which was asked.
    """
    if inner or level is not None:
        asked = f"--key {inner}" if inner else f"--level {level}"
        raise InputError(
            f"{asked} was asked of {shorten(str(path))}, which is a single {what}. Leave it out."
        )


def _require_image(image: FileImage, shown: str) -> None:
    """Refuse an array that no network can be run on, or whose chunks no worker can hold."""
    if image.dtype.kind not in "biuf" or image.dtype.itemsize > 8:
        raise InputError(f"{shown} holds {image.dtype} values, which are no image. Convert it first.")
    node.require_sizes(image.shape, shown)
    if image.chunk_bytes > node.CHUNK_LIMIT:
        raise InputError(
            f"One chunk of {shown} is {image.chunk_bytes / 1024**3:.1f} GiB in memory, more than the "
            f"{node.CHUNK_LIMIT // 1024**3} GiB that a worker decodes at once. Save it again in smaller chunks, or "
            "without compression."
        )


def _axes(image: FileImage, shown: str, wanted: Wanted) -> tuple[str, str]:
    """Return the axes of the stored array and where they were learnt."""
    count = len(image.shape)
    if wanted.axes is not None:
        given = axes_.validate(wanted.axes)
        if len(given) != count:
            raise InputError(
                f"--axes {wanted.axes} names {len(given)} axes, but {shown} has {count} dimensions, {image.shape}. "
                "Name each dimension once."
            )
        return given, "--axes"
    if image.axes is not None:
        return image.axes, image.kind
    guessed = resolve.guess(image.shape, shown, dims=wanted.dims, network_channels=wanted.network_channels)
    return guessed, f"guessed from {count} dimensions"


def _spacing(image: FileImage, axes: str) -> dict[str, float]:
    """Return the size of a pixel by axis, {} if nobody says a sensible one."""
    if image.spacing is None:
        return {}
    if hasattr(image.spacing, "items"):
        found = dict(image.spacing.items())
    else:
        space = [axis for axis in axes if axis in "zyx"]
        sizes = list(image.spacing)[-len(space) :]
        found = dict(zip(space[-len(sizes) :], sizes, strict=True))
    sound = all(0 < size < math.inf for size in found.values())
    return {axis: float(size) for axis, size in found.items()} if sound else {}


def _described(image: FileImage) -> str:
    """Return a digest of what a file says of an image, wherever it lies and whenever it was written."""
    said = (image.kind, image.shape, image.dtype.name, image.chunk, image.place)
    return sha256(repr(said).encode("utf-8", "surrogateescape")).hexdigest()
