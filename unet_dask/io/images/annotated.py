"""Annotated images for training, as people have them: TIFF stacks, folders of images, Zarr arrays.

Everything comes out in one form: images of (c, *spatial) in their own data type, targets of
(*spatial) in integers, one mask of the pixels that somebody annotated. What the integers mean, classes
or instances, is decided later and explicitly, in `train/target.py`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from unet_dask.errors import DataError, InputError
from unet_dask.io.images.pairing import TIFF, is_folder, keyed, listed
from unet_dask.io.images.stack import layout_of
from unet_dask.regular import require_regular

if TYPE_CHECKING:
    import os

    import zarr
    from numpy.typing import NDArray

    from unet_dask.io.images.stack import Box


@dataclass(frozen=True, slots=True)
class Annotation:
    """The target of one image, or of a box of it.

    Attributes
    ----------
    name : of the image, for messages
    target : (*spatial) integers, 0 where `known` is False
    known : (*spatial), False where nobody annotated
    """

    name: str
    target: NDArray[np.integer]
    known: NDArray[np.bool_]


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
    """

    name: str
    image: NDArray[np.generic]
    target: NDArray[np.integer]
    known: NDArray[np.bool_]
    spacing: tuple[float, ...] | None
    unit: str | None
    files: tuple[tuple[str, str], ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Pixels per spatial axis."""
        return self.target.shape

    @property
    def channels(self) -> int:
        """Channels of the image."""
        return len(self.image)

    def within(self, box: Box, name: str) -> AnnotatedImage:
        """Return a part of it, by another name; nothing is copied."""
        image, target, known = self.image[(slice(None), *box)], self.target[box], self.known[box]
        return replace(self, name=name, image=image, target=target, known=known)

    def read_image(self, box: Box) -> NDArray[np.generic]:
        """Return (c, *box) in the stored data type."""
        return self.image[(slice(None), *box)]

    def read_annotation(self, box: Box) -> Annotation:
        """Return target and known mask of a box."""
        return Annotation(self.name, self.target[box], self.known[box])


@dataclass(frozen=True, slots=True)
class Picture:
    """An array as it was stored, with the letters of its axes where the file names them."""

    name: str
    array: NDArray[np.generic]
    axes: str | None
    spacing: tuple[float, ...] | None
    unit: str | None
    digest: str


def read_annotated(
    images: str | os.PathLike[str],
    targets: str | os.PathLike[str],
    *,
    dims: int = 2,
    ignore: int | None = None,
    image_key: str | None = None,
    target_key: str | None = None,
) -> list[AnnotatedImage]:
    """Read images and their targets.

    Parameters
    ----------
    images, targets : a TIFF or PNG file, a folder of them, or a Zarr store. The files of two folders
        pair by equal names, else by the last number in the name, else in sorted order
    dims : of the network. For 2, a stack (n, y, x) is n images; for 3 it is one volume. Channels may
        come first or last where the file names its axes; without names, a last axis of 3 or 4 is colour
    ignore : value of unannotated pixels in the targets
    image_key, target_key : array inside of a Zarr group

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
    pairs = _pairs(Path(images), Path(targets))
    found: list[AnnotatedImage] = []
    for image_path, target_path in pairs:
        image = read_picture(image_path, image_key)
        target = read_picture(target_path, target_key)
        found += _annotated(image, target, dims=dims, ignore=ignore)
    grey = all(_is_grey(each.image) for each in found)
    found = [replace(each, image=each.image[:1]) for each in found] if grey else found
    counts = {each.image.shape[0]: each.name for each in found}
    if len(counts) > 1:
        named = ", ".join(f"{name} has {count}" for count, name in sorted(counts.items()))
        raise InputError(f"The images differ in the number of channels: {named}. Convert them to one number.")
    return found


def _annotated(image: Picture, target: Picture, *, dims: int, ignore: int | None) -> list[AnnotatedImage]:
    """Split one pair of files into images of `dims` dimensions."""
    spatial_images = split_planes(image, dims)
    spatial_targets = split_planes(target, dims)
    if spatial_images.shape[0] != spatial_targets.shape[0] or (
        spatial_images.shape[2:] != spatial_targets.shape[2:]
    ):
        raise InputError(
            f"{image.name} holds {_sizes(spatial_images)}, but its target {target.name} holds "
            f"{_sizes(spatial_targets)}. Each image needs a target of its own size."
        )
    if not np.isfinite(spatial_images).all():
        raise DataError(f"{image.name} has values that are not finite (NaN or infinite). Replace them first.")
    found: list[AnnotatedImage] = []
    single = len(spatial_images) == 1
    for number, (each, truth) in enumerate(zip(spatial_images, spatial_targets, strict=True)):
        annotation = annotate(truth, target.name, ignore=ignore)
        found.append(
            AnnotatedImage(
                name=image.name if single else f"{image.name}[{number}]",
                image=each,
                target=annotation.target,
                known=annotation.known,
                spacing=image.spacing if image.spacing and len(image.spacing) == dims else None,
                unit=image.unit,
                files=((image.name, image.digest), (target.name, target.digest)),
            )
        )
    return found


def annotate(target: NDArray[np.generic], name: str, *, ignore: int | None) -> Annotation:
    """Return a target of (c, *spatial) as integers and the mask of what somebody annotated.

    Raises
    ------
    InputError
        If its values are not whole numbers from 0 on.
    """
    whole = whole_numbers(target, name)
    known = np.ones(whole.shape, dtype=np.bool_) if ignore is None else whole != ignore
    return Annotation(name, np.where(known, whole, 0), known)


def _sizes(array: NDArray[np.generic]) -> str:
    """Describe (n, c, *spatial) for a message."""
    size = "x".join(str(side) for side in array.shape[2:])
    return f"{array.shape[0]} of {size}"


def _pairs(images: Path, targets: Path) -> list[tuple[Path, Path]]:
    """Pair the files of two folders, or two single files."""
    for path in (images, targets):
        if not path.exists():
            raise InputError(f"{path} does not exist.")
    if is_folder(images) != is_folder(targets):
        raise InputError(
            f"{images} and {targets} do not pair: one is a folder of images and the other a single file."
        )
    if not is_folder(images):
        return [(images, targets)]
    left, right = listed(images), listed(targets)
    by_key = keyed(left, right)
    if by_key is not None:
        keyed_left, keyed_right = by_key
        _require_partners(keyed_left, keyed_right, targets.name, "target")
        _require_partners(keyed_right, keyed_left, images.name, "image")
        return [(path, keyed_right[key]) for key, path in keyed_left.items()]
    if len(left) != len(right):
        raise InputError(
            f"{images} holds {len(left)} images and {targets} {len(right)} targets, and neither names nor "
            f"numbers pair them ({left[0].name}, {right[0].name}). Give pairs the same name."
        )
    return list(zip(left, right, strict=True))


def _require_partners(keyed: dict[str, Path], others: dict[str, Path], folder: str, what: str) -> None:
    alone = [path.name for key, path in keyed.items() if key not in others]
    if alone:
        more = f" and {len(alone) - 3} more" if len(alone) > 3 else ""
        raise InputError(
            f"{', '.join(alone[:3])}{more} in {keyed[next(iter(keyed))].parent.name} has no {what} in "
            f"{folder}. Files pair by equal names, or by the last number in them. Add the "
            "partner or move the file away."
        )


def read_picture(path: Path, key: str | None) -> Picture:
    """Read one file or Zarr array whole."""
    try:
        if path.is_dir():
            return _read_zarr(path, key)
        require_regular(path)
        if path.suffix.lower() in TIFF:
            return _read_tiff(path)
        if path.suffix.lower() == ".png":
            import imageio.v3

            array = np.asarray(imageio.v3.imread(path))
            return Picture(path.name, array, "YXS"[: array.ndim], None, None, _digest(path.read_bytes()))
    except InputError:
        raise
    except Exception as error:  # decoders raise whatever they like
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path} cannot be read: {reason}.") from error
    raise InputError(f"{path} is not a TIFF or PNG file, a folder of them, or a Zarr store.")


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _read_tiff(path: Path) -> Picture:
    import tifffile

    with tifffile.TiffFile(path) as opened:
        series = opened.series[0]
        array = np.asarray(series.asarray())
        axes = str(series.axes)
        if len(opened.series) > 1 and all(each.shape == series.shape for each in opened.series):
            array, axes = np.stack([each.asarray() for each in opened.series]), "I" + axes
        spacing, unit = _tiff_spacing(opened.imagej_metadata, opened.pages[0])
    return Picture(path.name, array, axes, spacing, unit, _digest(path.read_bytes()))


def _tiff_spacing(imagej: object, page: object) -> tuple[tuple[float, ...] | None, str | None]:
    """Return the pixel size that ImageJ wrote, z first if it has one.

    The resolution tags alone are not believed: most programs write 72 or 96 dots per inch there.
    """
    tags = getattr(page, "tags", {})
    if not isinstance(imagej, dict) or "unit" not in imagej or "XResolution" not in tags:
        return None, None
    unit = str(imagej["unit"])
    sides: list[float] = [float(imagej["spacing"])] if "spacing" in imagej else []
    for name in ("YResolution", "XResolution"):
        above, below = tags[name].value
        if not above or not below:
            return None, None
        sides.append(below / above)
    known = {"micron": "micrometer", "um": "micrometer", "\\u00b5m": "micrometer", "nm": "nanometer"}
    return (None, None) if unit in ("pixel", "inch") else (tuple(sides), known.get(unit, unit))


def _read_zarr(path: Path, key: str | None) -> Picture:
    array, _, axes = open_zarr(path, key)
    values = np.asarray(array[...])
    return Picture(path.name, values, axes, None, None, _digest(np.ascontiguousarray(values).tobytes()))


def open_zarr(path: Path, key: str | None) -> tuple[zarr.Array[Any], str, str | None]:
    """Return the array of a store, its key in it, and one letter per axis if it names them so.

    Raises
    ------
    InputError
        If the store is a group and nothing says which array is meant.
    """
    import zarr

    node, inner = zarr.open(path, mode="r"), ""
    if isinstance(node, zarr.Group):
        inner = key or _finest(node, path)
        node = node[inner]
    if isinstance(node, zarr.Group):
        raise InputError(f"{path}/{key} is a group, not an array. Name an array inside of it.")
    names = getattr(node.metadata, "dimension_names", None)
    axes = "".join(names).upper() if names and all(name and len(name) == 1 for name in names) else None
    return node, inner, axes


def _finest(group: object, path: Path) -> str:
    """Return the key of the finest level of an OME-Zarr image."""
    attributes = dict(getattr(group, "attrs", {}))
    multiscales = attributes.get("ome", attributes).get("multiscales")
    if not multiscales:
        raise InputError(f"{path} is a Zarr group without an OME image in it. Name the array to read.")
    return str(multiscales[0]["datasets"][0]["path"])


def split_planes(picture: Picture, dims: int) -> NDArray[np.generic]:
    """Return a stored array as (n, c, *spatial)."""
    layout = layout_of(picture.array.shape, picture.axes, dims=dims, name=picture.name)
    return layout.arranged(picture.array)


def _is_grey(image: NDArray[np.generic]) -> bool:
    return image.shape[0] in (1, 3) and bool(np.all(image[:1] == image))


def whole_numbers(target: NDArray[np.generic], name: str, *, what: str = "target") -> NDArray[np.integer]:
    """Return a target of (c, *spatial) as integers of (*spatial); `what` and `name` are for messages."""
    first, rest = target[0], target[1:]
    if not all(not channel.any() or np.array_equal(channel, first) for channel in rest):
        raise InputError(
            f"The {what} {name} is a colour image whose channels differ. Save classes or instances as "
            "numbers in a single channel."
        )
    if first.dtype == np.bool_:
        return np.asarray(first, dtype=np.uint8)
    if np.issubdtype(first.dtype, np.floating):
        if not np.array_equal(first, np.rint(cast("NDArray[np.float64]", first))):
            raise InputError(f"The {what} {name} has fractions; {what}s are whole numbers.")
        return np.asarray(first, dtype=np.int64)
    if first.dtype.kind not in "iu":
        raise InputError(f"The {what} {name} is of type {first.dtype}; {what}s are whole numbers.")
    whole = cast("NDArray[np.integer]", first)
    if whole.size and int(whole.min()) < 0:
        raise InputError(f"The {what} {name} has the negative value {int(whole.min())}; use 0 and above.")
    return whole
