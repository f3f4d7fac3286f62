"""Images read plane by plane, whatever they are stored in: a result, a Zarr array, a TIFF stack, a folder.

Scores are computed plane by plane, so nothing here reads more than a plane, or, of a Zarr array, the planes that
one chunk holds anyway.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from unet_dask.errors import InputError
from unet_dask.io import remote
from unet_dask.io.images.annotated import read_picture, split_planes
from unet_dask.io.images.pages import open_pages
from unet_dask.io.images.pairing import TIFF, is_folder, keyed, listed
from unet_dask.io.sink.place import result_manifest
from unet_dask.io.source import choice, foreign
from unet_dask.io.source.volume import open_source

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from unet_dask.io.images.pages import Pages
    from unet_dask.io.sink.manifest import Manifest
    from unet_dask.io.source.volume import Source

#: Bytes of the planes of one chunk that are kept, so that the chunk is decoded once.
_SLAB_BYTES = 128 << 20


@dataclass(frozen=True, slots=True)
class Planes:
    """An image as a sequence of planes.

    Attributes
    ----------
    name : for messages, without secrets
    names : of the planes, such as "z 3" or "man_seg002.tif"
    read : returns plane number i as (c, y, x)
    classes : names of the classes, of a result; empty otherwise
    """

    name: str
    names: tuple[str, ...]
    read: Callable[[int], NDArray[Any]]
    classes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.names)


def products_of(place: str | os.PathLike[str]) -> tuple[str, ...]:
    """Return the products of a result, empty if a place is no result of ours."""
    manifest = result_manifest(os.fspath(place))
    return tuple(str(entry["name"]) for entry in manifest["arrays"]) if manifest else ()


def open_planes(
    place: str | os.PathLike[str],
    *,
    key: str | None = None,
    axes: str | None = None,
    entry: str | None = None,
) -> Planes:
    """Open an image to be read plane by plane.

    Parameters
    ----------
    place : path of a TIFF or PNG file, of a folder of them, or path or URL of a Zarr store
    key : array in a Zarr group
    axes : of a Zarr array that does not name them; without, 3 dimensions are taken for planes (z, y, x)
    entry : product to read, of a result

    Raises
    ------
    InputError
        If there is nothing, or nothing that can be read.
    """
    url = os.fspath(place)
    if entry is not None:
        return _open_product(url, entry)
    path = remote.local_path(url) if remote.is_local(url) else None
    if path is not None and not path.exists() and not _inside_store(path):
        raise foreign.missing(path)
    if path is not None and is_folder(path) and not _inside_store(path):
        return _joined(path.name, [_open_file(each) for each in listed(path)])
    if path is not None and path.is_file() and path.suffix.lower() in TIFF | {".png"}:
        return _open_file(path)
    return _open_zarr(url, key=key, axes=axes)


def pair_planes(
    prediction: str | os.PathLike[str],
    truth: str | os.PathLike[str],
    *,
    key: str | None = None,
    truth_key: str | None = None,
    axes: str | None = None,
    entry: str | None = None,
) -> tuple[Planes, Planes]:
    """Open a prediction and its truth so that plane i of the one belongs to plane i of the other.

    The files of two folders pair by equal names, else by the last number in the name, else in order. Predictions
    without a truth are left out, since challenges annotate some frames only; the other way round is an error. Where a
    result covers a part of its source, a truth of the whole source is cut to that part.

    Raises
    ------
    InputError
        If they do not pair.
    """
    paths = [remote.local_path(os.fspath(each)) for each in (prediction, truth) if _is_folder_of_images(each)]
    by_key = keyed(*(listed(path) for path in paths)) if len(paths) == 2 and entry is None else None
    if by_key is not None:
        found, true = by_key
        alone = [path.name for key, path in true.items() if key not in found]
        if alone:
            raise InputError(
                f"{len(alone)} of {len(true)} truths in {paths[1]} have no prediction in {paths[0]}, the first is "
                f"{alone[0]}. Files pair by equal names, or by the last number in them. Add what is missing."
            )
        return (
            _joined(paths[0].name, [_open_file(found[key]) for key in true]),
            _joined(paths[1].name, [_open_file(path) for path in true.values()]),
        )
    predicted = open_planes(prediction, key=key, axes=axes, entry=entry)
    targets = open_planes(truth, key=truth_key)
    if entry is not None:
        manifest = result_manifest(os.fspath(prediction))
        targets = _of_region(targets, manifest) if manifest else targets
    if len(predicted) != len(targets):
        raise InputError(
            f"The prediction {predicted.name} has {len(predicted)} planes and the truth {targets.name} "
            f"{len(targets)}, so they do not pair. Give the truth of just what was predicted."
        )
    return predicted, targets


def _of_region(targets: Planes, manifest: Manifest) -> Planes:
    """Return the part of a truth that a result covers, if the truth is of the whole source."""
    axes, sizes = manifest["plan"]["axes"], manifest["plan"]["shape"]
    covered = {axis: range(*each) for axis, each in zip(axes, manifest["plan"]["roi"], strict=True)}
    size = dict(zip(axes, sizes, strict=True))
    stacked = [axis for axis in axes if axis in "tz"]
    places = list(product(*(range(size[axis]) for axis in stacked)))
    if len(targets) != len(places):
        return targets
    inside = [
        index
        for index, place in enumerate(places)
        if all(at in covered[axis] for axis, at in zip(stacked, place, strict=True))
    ]
    rows, columns = (slice(covered[axis].start, covered[axis].stop) for axis in "yx")

    def read(index: int) -> NDArray[Any]:
        values = targets.read(inside[index])
        return values[..., rows, columns] if values.shape[-2:] == (size["y"], size["x"]) else values

    return Planes(targets.name, tuple(targets.names[index] for index in inside), read)


def _is_folder_of_images(place: str | os.PathLike[str]) -> bool:
    url = os.fspath(place)
    if not remote.is_local(url):
        return False
    path = remote.local_path(url)
    return is_folder(path) and not _inside_store(path)


def _inside_store(path: Path) -> bool:
    """Tell whether a path is or lies in a Zarr store, where it may be a key without a document of its own."""
    return any(foreign.is_store(folder) for folder in (path, *path.absolute().parents) if folder.is_dir())


def _joined(name: str, parts: Sequence[Planes]) -> Planes:
    """Put the planes of several files one after the other."""
    which = [(part, number) for part in parts for number in range(len(part))]

    def read(index: int) -> NDArray[Any]:
        part, number = which[index]
        return part.read(number)

    return Planes(name, tuple(each for part in parts for each in part.names), read)


def _open_file(path: Path) -> Planes:
    if path.suffix.lower() in TIFF:
        pages = _pages(path)
        if pages is not None:
            return Planes(path.name, _numbered(path.name, len(pages.order)), _checked(path, pages.read))
        count = len(_whole(path))
    else:
        count = 1
    return Planes(path.name, _numbered(path.name, count), lambda index: _whole(path)[index])


def _whole(path: Path) -> NDArray[Any]:
    """Read a file whole, as (n, c, y, x)."""
    return split_planes(read_picture(path, None), 2)


def _numbered(name: str, count: int) -> tuple[str, ...]:
    return (name,) if count == 1 else tuple(f"{name}[{number}]" for number in range(count))


def _pages(path: Path) -> Pages | None:
    try:
        return open_pages(path)
    except Exception as error:  # decoders raise whatever they like
        raise _unreadable(path, error) from error


def _checked(path: Path, read: Callable[[int], NDArray[Any]]) -> Callable[[int], NDArray[Any]]:
    """Wrap the errors of a decoder."""

    def checked(index: int) -> NDArray[Any]:
        try:
            return read(index)
        except Exception as error:
            raise _unreadable(path, error) from error

    return checked


def _unreadable(path: Path, error: Exception) -> InputError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return InputError(f"{path} cannot be read: {reason}.")


def _open_product(url: str, name: str) -> Planes:
    manifest = result_manifest(url)
    entries = {str(each["name"]): each for each in manifest["arrays"]} if manifest else {}
    if manifest is None or name not in entries:
        has = f"it has {', '.join(entries)}" if entries else "it is no result of unet-dask"
        raise InputError(
            f"{remote.redact_url(url)} has no product {name!r}; {has}. Choose another --product."
        )
    source = open_source(url, key=f"{name}/0", axes=entries[name]["axes"])
    return _of_source(source, f"{remote.redact_url(url)}/{name}", tuple(map(str, manifest["classes"])))


def _open_zarr(url: str, *, key: str | None, axes: str | None) -> Planes:
    location, inner = choice.locate(url, key)
    if axes is None:
        chosen = choice.choose(location, inner, None)
        if chosen.image is None and chosen.node.dimension_names is None and len(chosen.node.shape) == 3:
            axes = "zyx"
    return _of_source(open_source(url, key=key, axes=axes), remote.redact_url(url), ())


def _of_source(source: Source, name: str, classes: tuple[str, ...]) -> Planes:
    size = dict(zip(source.axes, source.shape, strict=True))
    stacked = [axis for axis in source.axes if axis in "tz"]
    places = list(product(*(range(size[axis]) for axis in stacked)))
    slab = _Slab(source)

    def read(index: int) -> NDArray[Any]:
        return slab.plane(dict(zip(stacked, places[index], strict=True)))

    names = tuple(
        " ".join(f"{axis} {at}" for axis, at in zip(stacked, each, strict=True)) or "plane" for each in places
    )
    return Planes(name, names, read, classes)


@dataclass(slots=True)
class _Slab:
    """The planes of a source that its chunks hold together, read at once and kept until others are asked for."""

    source: Source
    _at: tuple[int, int] | None = field(default=None, init=False)
    _values: NDArray[Any] = field(default_factory=lambda: np.zeros(0), init=False)

    def plane(self, place: dict[str, int]) -> NDArray[Any]:
        """Return the plane (c, y, x) at positions along t and z."""
        axes, shape = self.source.axes, self.source.shape
        size = dict(zip(axes, shape, strict=True))
        z, depth = place.get("z", 0), self._depth(size)
        first = z - z % depth
        if self._at != (place.get("t", 0), first):
            self._values = np.zeros(0)  # the old slab goes before the new one comes
            window = {axis: slice(0, size[axis]) for axis in axes}
            if "t" in place:
                window["t"] = slice(place["t"], place["t"] + 1)
            if "z" in place:
                window["z"] = slice(first, min(first + depth, size["z"]))
            values = self.source.read(tuple(window[axis] for axis in axes))
            position = axes.index("z") if "z" in axes else None
            values = values[np.newaxis] if position is None else np.moveaxis(values, position, 0)
            self._values = values.reshape(values.shape[0], size["c"], size["y"], size["x"])
            self._at = (place.get("t", 0), first)
        plane: NDArray[Any] = self._values[z - first]
        return plane

    def _depth(self, size: dict[str, int]) -> int:
        if "z" not in size:
            return 1
        one = max(size["c"] * size["y"] * size["x"] * self.source.dtype.itemsize, 1)
        chunk = self.source.chunks[self.source.axes.index("z")]
        return max(min(chunk, _SLAB_BYTES // one), 1)
