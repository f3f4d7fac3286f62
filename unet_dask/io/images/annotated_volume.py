"""Annotated images that are too large to hold: a Zarr array and the array of its targets, read box by box.

`open_annotated` gives annotated images of either kind, in memory (`AnnotatedImage`) or where they lie
(`AnnotatedVolume`). Both offer the same: their shape, a part of themselves, and the values of a box.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from unet_dask.config import format_bytes
from unet_dask.errors import InputError
from unet_dask.io.images.annotated import AnnotatedImage, Annotation, annotate, open_zarr, read_annotated
from unet_dask.io.images.pairing import is_zarr
from unet_dask.io.images.stack import layout_of, open_stack

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from unet_dask.io.images.stack import Box, Layout, Stack

#: Bytes per value of an image that is held: as stored and as float32. Of a target: target, known mask, class, weight.
_HELD_IMAGE, _HELD_TARGET = 4, 10


@dataclass(frozen=True, slots=True)
class AnnotatedVolume:
    """One image with its target, both in Zarr and read box by box.

    Attributes
    ----------
    name : for messages
    image, target : the arrays that it lies in
    index : which of the images in these arrays it is
    box : the part of that image that it is
    ignore : value of the target that means "nobody annotated"
    files : empty; the digest of an array is known once all of it was read, see `train.survey`
    spacing, unit : unknown
    """

    name: str
    image: Stack
    target: Stack
    index: int
    box: Box
    ignore: int | None
    files: tuple[tuple[str, str], ...] = ()
    spacing: tuple[float, ...] | None = None
    unit: str | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Pixels per spatial axis."""
        return tuple(span.stop - span.start for span in self.box)

    @property
    def channels(self) -> int:
        """Channels of the image."""
        return self.image.layout.channels

    def within(self, box: Box, name: str) -> AnnotatedVolume:
        """Return a part of it, by another name; nothing is read."""
        return replace(self, name=name, box=self._stored(box))

    def read_image(self, box: Box) -> NDArray[np.generic]:
        """Return (c, *box) in the stored data type.

        Raises
        ------
        DataError
            If a chunk is damaged.
        """
        found: NDArray[np.generic] = self.image.read(range(self.index, self.index + 1), self._stored(box))[0]
        return found

    def read_annotation(self, box: Box) -> Annotation:
        """Return target and known mask of a box.

        Raises
        ------
        InputError
            If its values are not whole numbers from 0 on.
        """
        return self.annotation_of(self.target.read(range(self.index, self.index + 1), self._stored(box))[0])

    def annotation_of(self, values: NDArray[np.generic]) -> Annotation:
        """Return the annotation that stored values of (c, *spatial) mean."""
        return replace(annotate(values, self.target.name, ignore=self.ignore), name=self.name)

    def _stored(self, box: Box) -> Box:
        """Return a box of this part as a box of the whole image."""
        return tuple(
            slice(own.start + span.start, own.start + span.stop)
            for own, span in zip(self.box, box, strict=True)
        )


Annotated = AnnotatedImage | AnnotatedVolume


def open_annotated(
    images: str | os.PathLike[str],
    targets: str | os.PathLike[str],
    *,
    dims: int = 2,
    ignore: int | None = None,
    memory: int = 2 << 30,
) -> Sequence[Annotated]:
    """Read images and their targets, or open them where they lie if they are too large to hold.

    Parameters
    ----------
    images, targets, dims, ignore : see `read_annotated`
    memory : bytes that images, targets and weight maps may take; a pair of Zarr arrays that would take more is
        opened and not read

    Raises
    ------
    InputError, DataError
        As `read_annotated`; values of what is opened are looked at when they are read.
    """
    paths = Path(images), Path(targets)
    arrays = [
        _Stored.open(path, bytes_each, dims=dims)
        for path, bytes_each in zip(paths, (_HELD_IMAGE, _HELD_TARGET), strict=True)
        if path.is_dir() and is_zarr(path)
    ]
    needed = sum(each.needed for each in arrays)
    if needed <= memory or not all(path.exists() for path in paths):
        return read_annotated(images, targets, dims=dims, ignore=ignore)
    if len(arrays) == 1:
        other = next(path for path in paths if path != arrays[0].path)
        raise InputError(
            f"{arrays[0].path.name} would take {format_bytes(needed)} of memory, more than the {format_bytes(memory)} "
            f"granted, and cannot be read where it lies because {other.name} is not a Zarr array. Write "
            f"{other.name} as a Zarr array, or grant more memory."
        )
    return _opened(*arrays, ignore=ignore)


@dataclass(frozen=True, slots=True)
class _Stored:
    """A Zarr array that was looked at: where it is, what is what in it, bytes that holding it would take."""

    path: Path
    key: str
    layout: Layout
    needed: int

    @classmethod
    def open(cls, path: Path, bytes_each: int, *, dims: int) -> _Stored:
        try:
            array, key, axes = open_zarr(path, None)
        except InputError:
            raise
        except Exception as error:  # zarr raises whatever it likes
            reason = " ".join(str(error).split()) or type(error).__name__
            raise InputError(f"{path} cannot be read: {reason}.") from error
        needed = (bytes_each + np.dtype(array.dtype).itemsize) * math.prod(array.shape)
        return cls(path, key, layout_of(array.shape, axes, dims=dims, name=path.name), needed)


def _opened(*arrays: _Stored, ignore: int | None) -> list[AnnotatedVolume]:
    """Open an image and its target where they lie."""
    image, target = (open_stack(each.path, each.key, each.layout) for each in arrays)
    _require_same_sizes(image, target)
    if image.layout.channels == 3 and _is_grey(image):
        image = replace(image, layout=replace(image.layout, channels=1))
    whole = tuple(slice(0, side) for side in image.layout.spatial)
    single = image.layout.count == 1
    return [
        AnnotatedVolume(
            image.name if single else f"{image.name}[{index}]", image, target, index, whole, ignore
        )
        for index in range(image.layout.count)
    ]


def _require_same_sizes(image: Stack, target: Stack) -> None:
    one, other = image.layout, target.layout
    if (one.count, one.spatial) != (other.count, other.spatial):
        sizes = ["x".join(map(str, each.spatial)) for each in (one, other)]
        raise InputError(
            f"{image.name} holds {one.count} of {sizes[0]}, but its target {target.name} holds "
            f"{other.count} of {sizes[1]}. Each image needs a target of its own size."
        )


def _is_grey(image: Stack) -> bool:
    """Whether all channels are the same; of a real colour image the first block tells that they are not."""
    blocks = (image.read(planes, box) for planes, box in image.blocks())
    return all(bool(np.all(values[:, :1] == values)) for values in blocks)
