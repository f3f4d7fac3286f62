"""Annotated images for training, as people have them: TIFF stacks, folders of images, Zarr arrays.

Everything comes out in one form: images of (c, *spatial) in their own data type, targets of
(*spatial) in integers, one mask of the pixels that somebody annotated. What the integers mean, classes
or instances, is decided later and explicitly, in `train/target.py`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np

from unet_dask.errors import DataError, InputError
from unet_dask.io import remote
from unet_dask.io.images.labels import Annotation, annotate
from unet_dask.io.images.pairing import is_folder, is_zarr, its_own, pair_folders, same_file
from unet_dask.io.images.picture import read_picture
from unet_dask.io.images.stack import axes_for
from unet_dask.io.source import not_zarr, resolve
from unet_dask.paths import is_local, local_path
from unet_dask.spacing import contradiction, shown

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from unet_dask.io.images.picture import Picture
    from unet_dask.io.images.stack import Layout
    from unet_dask.tiling.box import Window

WORDS = ("image", "target")


@dataclass(frozen=True, slots=True)
class AnnotatedImage:
    """One image with its target.

    Attributes
    ----------
    name : of the image, for messages: the file's name, with [n] for the n-th of a stack
    image : (c, *spatial), of the source's data type
    target : (*spatial) integers, 0 where `known` is False
    known : (*spatial), False where nobody annotated
    spacing : pixel size in `unit` per spatial axis, if the file states it
    unit : of the spacing
    files : (base name, SHA-256) of the image's and of the target's file
    notes : how images and targets were paired, and sizes of pixels that contradict each other
    """

    name: str
    image: NDArray[np.generic]
    target: NDArray[np.integer]
    known: NDArray[np.bool_]
    spacing: tuple[float, ...] | None
    unit: str | None
    files: tuple[tuple[str, str], ...]
    notes: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """Pixels per spatial axis."""
        return self.target.shape

    @property
    def channels(self) -> int:
        """Channels of the image."""
        return len(self.image)

    def within(self, box: Window, name: str) -> AnnotatedImage:
        """Return a part of it, by another name; nothing is copied."""
        image, target, known = self.image[(slice(None), *box)], self.target[box], self.known[box]
        return replace(self, name=name, image=image, target=target, known=known)

    def read_image(self, box: Window) -> NDArray[np.generic]:
        """Return (c, *box) in the stored data type."""
        return self.image[(slice(None), *box)]

    def read_annotation(self, box: Window) -> Annotation:
        """Return target and known mask of a box."""
        return Annotation(self.name, self.target[box], self.known[box])


def read_annotated(
    images: str | os.PathLike[str],
    targets: str | os.PathLike[str],
    *,
    dims: int = 2,
    ignore: int | None = None,
    image_key: str | None = None,
    target_key: str | None = None,
    axes: str | None = None,
) -> list[AnnotatedImage]:
    """Read images and their targets.

    Parameters
    ----------
    images, targets : a TIFF or PNG file, a folder of them, or path or URL of a Zarr store. The files of two folders
        pair by equal names, by names but for a common prefix or suffix, or by the last number in the name
    dims : of the network. For 2, a stack (n, y, x) is n images; for 3 it is one volume. Channels are where the file
        says; in an array without names of its axes, a last axis of 3 or 4 is colour
    ignore : value of unannotated pixels in the targets
    image_key, target_key : array inside of a Zarr group
    axes : of images in Zarr, and of targets that do not name theirs, where they fit

    Returns
    -------
    one entry per image or volume, in the order of the names. Colour images that are all grey come with
    one channel; alpha is dropped.

    Raises
    ------
    InputError
        If something cannot be read, does not pair, or differs in size; the message names it.
    DataError
        If an image has values that are not finite.
    """
    pairs, how = _pairs(os.fspath(images), os.fspath(targets), image_key, target_key)
    found: list[AnnotatedImage] = []
    for image_path, target_path in pairs:
        image = read_picture(image_path, image_key, dims=dims, axes=axes)
        fitting = axes_for(target_path, target_key, axes) if is_zarr(target_path) else None
        target = read_picture(target_path, target_key, dims=dims, axes=fitting)
        notes = (*how, *pixel_note(image, target))
        found += [
            replace(entry, notes=notes) for entry in _annotated(image, target, dims=dims, ignore=ignore)
        ]
    grey = all(_is_grey(entry.image) for entry in found)
    found = [replace(entry, image=entry.image[:1]) for entry in found] if grey else found
    counts = {entry.image.shape[0]: entry.name for entry in found}
    if len(counts) > 1:
        named = ", ".join(f"{name} has {count}" for count, name in sorted(counts.items()))
        raise InputError(f"The images differ in the number of channels: {named}. Convert them to one number.")
    return found


def _annotated(image: Picture, target: Picture, *, dims: int, ignore: int | None) -> list[AnnotatedImage]:
    """Split one pair of files into images of `dims` dimensions."""
    require_same_sizes(image.name, image.layout(dims), target.name, target.layout(dims))
    spatial_images, spatial_targets = image.images(dims), target.images(dims)
    require_grey_values(spatial_images, image.name)
    found: list[AnnotatedImage] = []
    single = len(spatial_images) == 1
    for number, (pixels, truth) in enumerate(zip(spatial_images, spatial_targets, strict=True)):
        annotation = annotate(truth, target.name, ignore=ignore)
        found.append(
            AnnotatedImage(
                name=image.name if single else f"{image.name}[{number}]",
                image=pixels,
                target=annotation.target,
                known=annotation.known,
                spacing=image.spacing[-dims:] if image.spacing and len(image.spacing) >= dims else None,
                unit=image.unit,
                files=((image.name, image.digest), (target.name, target.digest)),
            )
        )
    return found


class Sized(Protocol):
    """What says the size of its pixels."""

    @property
    def name(self) -> str:
        """For messages."""

    @property
    def spacing(self) -> tuple[float, ...] | None:
        """Pixel size per axis, if known."""

    @property
    def unit(self) -> str | None:
        """Unit of it."""


def pixel_note(one: Sized, other: Sized) -> tuple[str, ...]:
    """Say that the pixels of two images are not of one size, if they say so themselves."""
    ratio = contradiction(one.spacing, one.unit, other.spacing, other.unit)
    if ratio is None or not one.spacing or not other.spacing:
        return ()
    return (
        f"pixel size: {one.name} has {shown(one.spacing, one.unit)}, {other.name} {shown(other.spacing, other.unit)}",
    )


def require_grey_values(values: NDArray[np.generic], name: str) -> None:
    """Refuse values that are no grey values of a network, which computes in float32.

    Raises
    ------
    InputError
        If they are no numbers, or complex ones.
    DataError
        If some are not finite, or too large.
    """
    if not np.isdtype(values.dtype, ("bool", "integral", "real floating")):
        raise InputError(f"{name} holds {values.dtype} values, which are no grey values. Convert it first.")
    if not (np.isdtype(values.dtype, "real floating") and values.size):
        return
    if not np.isfinite(values).all():
        raise DataError(f"{name} has values that are not finite (NaN or infinite). Replace them first.")
    largest = max(abs(float(values.min())), abs(float(values.max())))
    if largest > np.finfo(np.float32).max:
        raise DataError(f"{name} has values up to {largest:.3g}, beyond those of float32. Scale them first.")


def require_same_sizes(image: str, layout: Layout, target: str, target_layout: Layout) -> None:
    """Refuse an image and a target of other planes or other sizes.

    Raises
    ------
    InputError
        If they differ; the message says both.
    """
    if layout.sides != target_layout.sides:
        raise InputError(
            f"{image} holds {layout}, but its target {target} holds {target_layout}. Each image needs a target of its "
            "own size."
        )


def _pairs(
    images: str, targets: str, image_key: str | None, target_key: str | None
) -> tuple[list[tuple[str, str]], tuple[str, ...]]:
    """Pair the files of two folders, or two single files; return a note how as well."""
    for place in (images, targets):
        if is_local(place) and not local_path(place).exists() and not is_zarr(os.path.dirname(place)):  # noqa: PTH120  # of a URL, too
            raise not_zarr.missing(local_path(place))
    if is_folder(images) != is_folder(targets):
        raise InputError(
            f"{remote.redact_url(images)} and {remote.redact_url(targets)} do not pair: one is a folder of images and "
            "the other a single file."
        )
    if not is_folder(images):
        if same_image(images, targets, image_key, target_key):
            raise its_own(remote.redact_url(images), WORDS)
        return [(images, targets)], ()
    paired = pair_folders(local_path(images), local_path(targets), words=WORDS)
    for one, other in paired.pairs:
        if same_file(one, other):
            raise its_own(one.name, WORDS)
    # In the order of the images' names, on which the choice of those that are held out depends.
    pairs = [(str(one), str(other)) for one, other in sorted(paired.pairs)]
    return pairs, (f"{len(pairs)} images were paired {paired.how}",)


def same_image(one: str, other: str, one_key: str | None, other_key: str | None) -> bool:
    """Tell whether two places are one file, or one array of one store, by whatever names.

    Raises
    ------
    InputError
        If one is a store without such an array.
    """
    zarrs = is_zarr(one), is_zarr(other)
    if zarrs == (False, False):
        return same_file(local_path(one), local_path(other))
    if zarrs != (True, True):
        return False
    nodes = [
        resolve.choose(*resolve.locate(*place), None).node for place in ((one, one_key), (other, other_key))
    ]
    places = [f"{remote.source_aliases(node.location.url)}/{node.key}".rstrip("/") for node in nodes]
    return remote.contains(*places) and remote.contains(*places[::-1])


def _is_grey(image: NDArray[np.generic]) -> bool:
    return image.shape[0] in (1, 3) and bool(np.all(image[:1] == image))
