"""Images read plane by plane, whatever they are stored in: a result, a Zarr array, a TIFF stack, a folder.

Scores are computed plane by plane, so nothing here reads more than a plane, or, of a Zarr array, the planes that
one chunk holds anyway.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from unet_dask.axes import by_axis, has_depth, has_time, stack_of
from unet_dask.errors import InputError
from unet_dask.io import remote
from unet_dask.io.images.annotated import same_image
from unet_dask.io.images.pairing import is_folder, is_zarr, pair_folders, same_file
from unet_dask.io.sink.place import result_manifest
from unet_dask.io.source import not_zarr
from unet_dask.io.source.numbered import SUFFIXES, in_order, listed
from unet_dask.io.source.volume import open_source
from unet_dask.spacing import known_spacing

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from unet_dask.io.sink.manifest import Manifest
    from unet_dask.io.source.volume import Source

#: Bytes of the planes of one chunk that are kept, so that the chunk is decoded once.
_SLAB_BYTES = 128 << 20
_WORDS = ("prediction", "truth")
_ITSELF = "prediction and truth are the same file, so the scores tell nothing of a prediction"


@dataclass(frozen=True, slots=True)
class Planes:
    """An image as a sequence of planes.

    Attributes
    ----------
    name : for messages, without secrets
    names : of the planes, such as "z 3" or "man_seg002.tif"
    read : returns plane number i as (c, y, x)
    classes : names of the classes, of a result; empty otherwise
    spacing : pixel size along y and x in `unit`, if known
    unit : of the spacing
    """

    name: str
    names: tuple[str, ...]
    read: Callable[[int], NDArray[np.generic]]
    classes: tuple[str, ...] = ()
    spacing: tuple[float, ...] | None = None
    unit: str | None = None

    def __len__(self) -> int:
        return len(self.names)


def products_of(place: str | os.PathLike[str]) -> tuple[str, ...]:
    """Return the products of a result, empty if a place is no result of ours."""
    manifest = result_manifest(os.fspath(place))
    return tuple(entry.name for entry in manifest.arrays) if manifest else ()


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
    axes : of a Zarr array that does not name them; without, 3 dimensions are taken for planes (z, y, x), unless the
        last may be colour
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
    if path is not None and is_folder(url):
        return _joined(path.name, [_open_file(file) for file in in_order(path)])
    if path is not None and path.is_file() and path.suffix.lower() in SUFFIXES:
        return _open_file(path)
    if path is not None and not path.exists() and not is_zarr(str(path.parent)):
        raise not_zarr.missing(path)
    return _of_source(open_source(url, key=key, axes=axes), remote.redact_url(url), ())


def pair_planes(
    prediction: str | os.PathLike[str],
    truth: str | os.PathLike[str],
    *,
    key: str | None = None,
    truth_key: str | None = None,
    axes: str | None = None,
    entry: str | None = None,
) -> tuple[Planes, Planes, str | None]:
    """Open a prediction and its truth so that plane i of the one belongs to plane i of the other.

    The files of two folders pair by equal names, by names but for a common prefix or suffix, or by the last number in
    the name. Predictions without a truth are left out, since challenges annotate some frames only; the other way round
    is an error. Where a result covers a part of its source, a truth of the whole source is cut to that part.

    Returns
    -------
    prediction and truth, and what is to be said of how they were paired

    Raises
    ------
    InputError
        If they do not pair.
    """
    places = os.fspath(prediction), os.fspath(truth)
    if all(map(is_folder, places)) and entry is None:
        return _pair_folders(*(remote.local_path(place) for place in places))
    itself = not any(map(is_folder, places)) and same_image(
        *places, f"{entry}/0" if entry else key, truth_key
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
    return predicted, targets, _ITSELF if itself else None


def _pair_folders(found: Path, true: Path) -> tuple[Planes, Planes, str]:
    """Open the files of two folders that belong together."""
    if same_file(found, true):
        pairs = tuple((name, name) for name in listed(found))
        how = _ITSELF
    else:
        paired = pair_folders(found, true, spare=True, words=_WORDS)
        pairs = paired.pairs
        how = f"{len(pairs)} files were paired {paired.how}"
        how = f"{how}; {_ITSELF}" if any(same_file(*pair) for pair in pairs) else how
    return (
        _joined(found.name, [_open_file(one) for one, _ in pairs]),
        _joined(true.name, [_open_file(other) for _, other in pairs]),
        how,
    )


def _of_region(targets: Planes, manifest: Manifest) -> Planes:
    """Return the part of a truth that a result covers, if the truth is of the whole source."""
    covered = {axis: range(*span) for axis, span in manifest.plan.extent.items()}
    size = by_axis(manifest.plan.axes, manifest.plan.shape)
    stacked = stack_of(size)
    places = list(product(*(range(size[axis]) for axis in stacked)))
    if len(targets) != len(places):
        return targets
    inside = [
        index
        for index, place in enumerate(places)
        if all(at in covered[axis] for axis, at in zip(stacked, place, strict=True))
    ]
    rows, columns = (slice(covered[axis].start, covered[axis].stop) for axis in "yx")

    def read(index: int) -> NDArray[np.generic]:
        values = targets.read(inside[index])
        return values[..., rows, columns] if values.shape[-2:] == (size["y"], size["x"]) else values

    return replace(targets, names=tuple(targets.names[index] for index in inside), read=read)


def _joined(name: str, parts: Sequence[Planes]) -> Planes:
    """Put the planes of several files one after the other."""
    which = [(part, number) for part in parts for number in range(len(part))]

    def read(index: int) -> NDArray[np.generic]:
        part, number = which[index]
        return part.read(number)

    spacings = {(part.spacing, part.unit) for part in parts}
    spacing, unit = spacings.pop() if len(spacings) == 1 else (None, None)
    return Planes(name, tuple(each for part in parts for each in part.names), read, (), spacing, unit)


def _open_file(path: Path) -> Planes:
    planes = _of_source(open_source(path), path.name, ())
    return replace(planes, names=_numbered(path.name, len(planes)))


def _numbered(name: str, count: int) -> tuple[str, ...]:
    return (name,) if count == 1 else tuple(f"{name}[{number}]" for number in range(count))


def _open_product(url: str, name: str) -> Planes:
    manifest = result_manifest(url)
    entries = {array.name: array for array in manifest.arrays} if manifest else {}
    if manifest is None or name not in entries:
        has = f"it has {', '.join(entries)}" if entries else "it is no result of unet-dask"
        raise InputError(
            f"{remote.redact_url(url)} has no product {name!r}; {has}. Choose another --product."
        )
    source = open_source(url, key=f"{name}/0", axes=entries[name].axes)
    return _of_source(source, f"{remote.redact_url(url)}/{name}", manifest.classes)


def _of_source(source: Source, name: str, classes: tuple[str, ...]) -> Planes:
    stacked = stack_of(source.axes)
    places = list(product(*(range(source.sizes[axis]) for axis in stacked)))
    slab = _Slab(source)

    def read(index: int) -> NDArray[np.generic]:
        return slab.plane(by_axis(stacked, places[index]))

    names = tuple(
        " ".join(f"{axis} {at}" for axis, at in zip(stacked, place, strict=True)) or "plane"
        for place in places
    )
    spacing, unit = known_spacing(source.spacing, source.unit, "yx")
    return Planes(name, names, read, classes, spacing, unit)


@dataclass(slots=True)
class _Slab:
    """The planes of a source that its chunks hold together, read at once and kept until others are asked for."""

    source: Source
    _at: tuple[int, int] | None = field(default=None, init=False)
    _values: NDArray[np.generic] = field(default_factory=lambda: np.zeros(0), init=False)

    def plane(self, place: dict[str, int]) -> NDArray[np.generic]:
        """Return the plane (c, y, x) at positions along t and z."""
        axes, size = self.source.axes, self.source.sizes
        z, depth = place.get("z", 0), self._depth(size)
        first = z - z % depth
        if self._at != (place.get("t", 0), first):
            self._values = np.zeros(0)  # the old slab goes before the new one comes
            window = {axis: slice(0, size[axis]) for axis in axes}
            if has_time(place):
                window["t"] = slice(place["t"], place["t"] + 1)
            if has_depth(place):
                window["z"] = slice(first, min(first + depth, size["z"]))
            values = self.source.read(tuple(window[axis] for axis in axes))
            position = axes.index("z") if has_depth(axes) else None
            values = values[np.newaxis] if position is None else np.moveaxis(values, position, 0)
            self._values = values.reshape(values.shape[0], size["c"], size["y"], size["x"])
            self._at = (place.get("t", 0), first)
        plane: NDArray[np.generic] = self._values[z - first]
        return plane

    def _depth(self, size: dict[str, int]) -> int:
        if not has_depth(size):
            return 1
        one = max(size["c"] * size["y"] * size["x"] * self.source.dtype.itemsize, 1)
        chunk = self.source.chunks[self.source.axes.index("z")]
        return max(min(chunk, _SLAB_BYTES // one), 1)
