"""Annotated images that are too large to hold: a Zarr array or a TIFF and that of its targets, read box by box.

`open_annotated` gives annotated images of either kind, in memory (`AnnotatedImage`) or where they lie
(`AnnotatedVolume`). Both offer the same: their shape, a part of themselves, and the values of a box.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from unet_dask.config import format_bytes
from unet_dask.errors import InputError
from unet_dask.io import remote
from unet_dask.io.images.annotated import (
    WORDS,
    AnnotatedImage,
    pixel_note,
    read_annotated,
    require_same_sizes,
    same_image,
)
from unet_dask.io.images.labels import Annotation, annotate
from unet_dask.io.images.pairing import is_zarr, its_own
from unet_dask.io.images.stack import axes_for, open_stack
from unet_dask.io.source import formats
from unet_dask.paths import is_local

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from unet_dask.io.images.stack import Stack
    from unet_dask.tiling.box import Window

#: Bytes per value of an image that is held: as stored and as float32. Of a target: target, known mask, class, weight.
_HELD_IMAGE, _HELD_TARGET = 4, 10


@dataclass(frozen=True, slots=True)
class AnnotatedVolume:
    """One image with its target, both read box by box where they lie.

    Attributes
    ----------
    name : for messages
    image, target : the arrays that it lies in
    index : which of the images in these arrays it is
    box : the part of that image that it is
    ignore : value of the target that means "nobody annotated"
    files : empty; the digest of an array is known once all of it was read, see `train.survey`
    notes : sizes of pixels that contradict each other
    """

    name: str
    image: Stack
    target: Stack
    index: int
    box: Window
    ignore: int | None
    files: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def spacing(self) -> tuple[float, ...] | None:
        """Pixel size in `unit` per spatial axis, if the store states it."""
        return self.image.spacing

    @property
    def unit(self) -> str | None:
        """Unit of the spacing."""
        return self.image.unit

    @property
    def shape(self) -> tuple[int, ...]:
        """Pixels per spatial axis."""
        return tuple(span.stop - span.start for span in self.box)

    @property
    def channels(self) -> int:
        """Channels of the image."""
        return self.image.layout.channels

    def within(self, box: Window, name: str) -> AnnotatedVolume:
        """Return a part of it, by another name; nothing is read."""
        return replace(self, name=name, box=self._stored(box))

    def read_image(self, box: Window) -> NDArray[np.generic]:
        """Return (c, *box) in the stored data type.

        Raises
        ------
        DataError
            If a chunk is damaged.
        """
        found: NDArray[np.generic] = self.image.read(range(self.index, self.index + 1), self._stored(box))[0]
        return found

    def read_annotation(self, box: Window) -> Annotation:
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

    def _stored(self, box: Window) -> Window:
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
    image_key: str | None = None,
    target_key: str | None = None,
    axes: str | None = None,
) -> Sequence[Annotated]:
    """Read images and their targets, or open them where they lie if they are too large to hold.

    Parameters
    ----------
    images, targets, dims, ignore, image_key, target_key, axes : see `read_annotated`
    memory : bytes that images, targets and weight maps may take; a pair of Zarr arrays or TIFFs that would take
        more is opened and not read

    Raises
    ------
    InputError, DataError
        As `read_annotated`; values of what is opened are looked at when they are read.
    """
    places = (os.fspath(images), image_key), (os.fspath(targets), target_key)
    said = axes, axes_for(*places[1], axes) if is_zarr(places[1][0]) else None
    stacks = [
        open_stack(place, key, dims=dims, axes=each) if _can_be_opened(place) else None
        for (place, key), each in zip(places, said, strict=True)
    ]
    stored = [each for each in stacks if each is not None]
    needed = sum(
        (each + stack.source.dtype.itemsize) * math.prod(stack.source.shape)
        for stack, each in zip(stacks, (_HELD_IMAGE, _HELD_TARGET), strict=True)
        if stack is not None
    )
    if needed <= memory:
        return read_annotated(
            images, targets, dims=dims, ignore=ignore, image_key=image_key, target_key=target_key, axes=axes
        )
    if len(stored) == 1:
        other = next(place for (place, _), stack in zip(places, stacks, strict=True) if stack is None)
        name = remote.redact_url(other).rstrip("/").rpartition("/")[2]
        raise InputError(
            f"{stored[0].name} would take {format_bytes(needed)} of memory, more than the {format_bytes(memory)} "
            f"granted, and cannot be read where it lies because {name} is neither a Zarr array nor a TIFF. Write "
            f"{name} as one, or grant more memory."
        )
    if same_image(places[0][0], places[1][0], image_key, target_key):
        raise its_own(stored[0].name, WORDS)
    return _opened(*stored, ignore=ignore)


def _can_be_opened(place: str) -> bool:
    """Tell whether a place is one that is read box by box: pictures are decoded whole, folders are pairs of files."""
    return is_zarr(place) or (is_local(place) and formats.format_of(place) == "tiff")


def _opened(image: Stack, target: Stack, *, ignore: int | None) -> list[AnnotatedVolume]:
    """Open an image and its target where they lie."""
    require_same_sizes(image.name, image.layout, target.name, target.layout)
    if image.layout.channels == 3 and _is_grey(image):
        image = replace(image, layout=replace(image.layout, channels=1))
    whole = tuple(slice(0, side) for side in image.layout.spatial)
    single, notes = image.layout.count == 1, pixel_note(image, target)
    return [
        AnnotatedVolume(
            image.name if single else f"{image.name}[{index}]",
            image,
            target,
            index,
            whole,
            ignore,
            notes=notes,
        )
        for index in range(image.layout.count)
    ]


def _is_grey(image: Stack) -> bool:
    """Whether all channels are the same; of a real colour image the first block tells that they are not."""
    blocks = (image.read(planes, box) for planes, box in image.blocks())
    return all(bool(np.all(values[:, :1] == values)) for values in blocks)
