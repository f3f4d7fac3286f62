"""TIFF and its relatives: OME-TIFF, BigTIFF, hyperstacks of ImageJ, pyramids, slides of Aperio.

A key names a series and a level in it, as bioformats2raw numbers them: ``0/2`` is level 2 of the first series. A file
that holds one image without levels needs none.
"""

from __future__ import annotations

import math
import posixpath
from hashlib import sha256
from typing import TYPE_CHECKING

from unet_dask import axes as axes_
from unet_dask.errors import DataError, InputError
from unet_dask.io.remote import Location, local_path, one_line, shorten
from unet_dask.io.source import content, node, slides
from unet_dask.io.source.formats import split_file, stem
from unet_dask.io.source.protocol import Found
from unet_dask.io.source.stamps import file_at
from unet_dask.io.source.tiff_array import TiffArray
from unet_dask.io.source.tiff_layout import channel_names_of, opened_tiff, samples, series_of, spacing_of
from unet_dask.kinds import BIG_TIFF, TIFF, kind_of
from unet_dask.regular import IrregularError, require_regular

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tifffile import TiffFile, TiffPageSeries

    from unet_dask.io.source.protocol import SourceSpec, Wanted

SUFFIXES = (
    *(".ome.tiff", ".ome.tif", ".ome.btf", ".tiff", ".tif", ".btf", ".tf8"),
    *(".svs", ".scn", ".ndpi", ".bif", ".qptiff"),
)
#: Letters of TIFF that mean one of our axes.
_LETTERS = {"T": "t", "C": "c", "S": "c", "Z": "z", "Y": "y", "X": "x"}


def holds(path: Path) -> bool:
    """Tell whether a file is a TIFF."""
    return path.is_file() and kind_of(path) in (TIFF, BIG_TIFF)


def find(place: str, wanted: Wanted) -> Found:
    """Return the image that is meant: of several equal ones all, of a slide the slide.

    Raises
    ------
    InputError
        If there is none, it cannot be read, or there are images of several kinds and none was named.
    """
    path, inner = split_file(place, wanted.key)
    try:
        array, key, level, levels = _open(path, inner, wanted.level)
        spacing, unit = _spacing(array, levels, level)
    except InputError:
        raise
    except Exception as error:  # whatever tifffile makes of a damaged file
        raise InputError(
            f"{shorten(str(path))} is damaged or of a kind of TIFF that is not read: {one_line(error)} "
            f"({type(error).__name__}). Copy it again, or convert it to Zarr."
        ) from error
    shown = shorten(str(path))
    _require_image(array, shown)
    stored, origin = _axes(array, shown, wanted)
    return Found(
        url=str(path),
        key=key,
        zarr_format=0,
        metadata=_described(array),
        written=array.version[1],
        axes=stored,
        origin=origin,
        stored=array,
        name=_name(path, key),
        shown=shown,
        spacing=None if spacing is None else [spacing.get(axis, 1.0) for axis in stored],
        units=[unit if spacing and axis in spacing else None for axis in stored],
        level=level if len(levels) > 1 else None,
        channel_names=_channel_names(array, levels, stored),
    )


def opened(spec: SourceSpec, *, keep: bool) -> TiffArray:
    """Return the array of a spec, in any process.

    Raises
    ------
    DataError
        If the file is gone or another one is in its place.
    """
    path = local_path(spec.url)
    try:
        array = _open(path, spec.key, None, keep=keep)[0]
        same = _described(array) == spec.metadata and (not spec.written or array.version[1] == spec.written)
    except Exception as error:
        raise DataError(
            f"The image {shorten(spec.url)} cannot be opened any more: {one_line(error)}. Open the source again."
        ) from error
    if not same:
        raise DataError(
            f"The image {shorten(spec.url)} was replaced since it was opened. Open the source again."
        )
    return array


def digest(spec: SourceSpec) -> str:
    """Return a digest of size and time of the file, and of samples of its bytes."""
    return content.file_digest(local_path(spec.url))


def levels(spec: SourceSpec) -> list[dict[str, object]]:
    """Return path and shape of every level of the pyramid, the finest first."""
    array, _, _, found = _open(local_path(spec.url), spec.key, None)
    above = posixpath.dirname(spec.key)
    assert array.images
    return [{"path": f"{above}/{number}", "shape": list(level.shape)} for number, level in enumerate(found)]


def _open(
    path: Path, inner: str, level: int | None, *, keep: bool = False
) -> tuple[TiffArray, str, int, list[TiffPageSeries]]:
    """Return an image of a file, its key, the number of its level, and all of its levels."""
    try:
        require_regular(path)
    except IrregularError as error:
        raise InputError(f"{shorten(str(path))} is {error}, not a regular file.") from error
    except OSError as error:
        Location(str(path)).refuse(error)
    before = file_at(str(path))
    with opened_tiff(path) as file:
        number, asked = _numbers(inner, path)
        chosen, number = _chosen(file, path, number)
        found = [
            each for each in chosen[0].levels if each.dtype == chosen[0].dtype and each.axes == chosen[0].axes
        ]
        picked = _level(path, asked if level is None else level, len(found), single=len(chosen) > 1)
        images = [series.levels[picked] for series in chosen] if len(chosen) == 1 else list(chosen)
        array = TiffArray(path, file, images, (before or (0, 0))[:2], samples(images[0]), keep=keep)
        _require_whole(array, (before or (0,))[0])
    named = number is not None and (len(file.series) > 1 or len(found) > 1)
    return array, f"{number}/{picked}" if named else "", picked, found if len(chosen) == 1 else found[:1]


def _numbers(inner: str, path: Path) -> tuple[int | None, int | None]:
    """Return the series and the level that a key names."""
    parts = inner.split("/") if inner else []
    if len(parts) > 2 or not all(part.isdecimal() and len(part) < 9 for part in parts):
        raise InputError(
            f"{inner!r} names nothing in {shorten(str(path))}. A TIFF has series and levels, such as --key 0 or "
            "--key 0/2."
        )
    numbers = [int(part) for part in parts]
    return (numbers[0] if numbers else None), (numbers[1] if len(numbers) > 1 else None)


def _chosen(file: TiffFile, path: Path, number: int | None) -> tuple[list[TiffPageSeries], int | None]:
    """Return the series that are meant and the number of it, None of several equal ones."""
    every = list(file.series)
    if not every:
        raise InputError(f"{shorten(str(path))} holds no image. Copy it again.")
    if number is not None:
        if number >= len(every):
            raise InputError(
                f"There is no series {number} in {shorten(str(path))}, which has {len(every)}. Use --key 0 to "
                f"{len(every) - 1}."
            )
        return [every[number]], number
    if (
        every[0].kind in slides.NAMES
    ):  # the largest series is the slide, the others are its label and overviews
        largest = max(every, key=lambda series: math.prod(series.shape))
        slides.require_stitched(largest, path)
        return [largest], every.index(largest)
    found = series_of(file, path)
    if len({(series.keyframe.chunks, series.keyframe.compression) for series in found}) > 1:
        raise InputError(
            f"{shorten(str(path))} holds {len(found)} images that are stored in different ways. Choose one with "
            f"--key 0 to {len(found) - 1}."
        )
    return found, every.index(found[0]) if len(found) == 1 else None


def _level(path: Path, level: int | None, count: int, *, single: bool) -> int:
    if level is None or (level == 0 and count > 0):
        return 0
    if single or count == 1:
        raise InputError(
            f"--level {level} was asked of {shorten(str(path))}, which is a single image without levels. Leave out "
            "--level."
        )
    if not 0 <= level < count:
        raise InputError(
            f"--level {level} was asked of {shorten(str(path))}, which has {count} levels. Use 0 (the finest) to "
            f"{count - 1}."
        )
    return level


def _require_whole(array: TiffArray, size: int) -> None:
    """Raise if the first or the last page lies beyond the end of the file."""
    for number in {0, math.prod(array.leading) - 1} if math.prod(array.shape) else set():
        page = array.page(number)
        if page.raw is not None:
            end = page.raw + math.prod(array.page_shape) * array.dtype.itemsize
        else:
            end = max((a + b for a, b in zip(page.offsets, page.counts, strict=False)), default=0)
        if end > size:
            raise InputError(
                f"{shorten(str(array.path))} is damaged or was cut off: it has {size} bytes, and its values reach "
                f"to {end}. Copy it again."
            )


def _require_image(array: TiffArray, shown: str) -> None:
    """Refuse an array that no network can be run on, or whose segments no worker can hold."""
    kind, size = array.dtype.kind, array.dtype.itemsize
    if kind not in "biuf" or size > 8:
        raise InputError(f"{shown} holds {array.dtype} values, which are no image. Convert it first.")
    node.require_sizes(array.shape, shown)
    if not array.raw and array.decoding.chunk_bytes > node.CHUNK_LIMIT:
        raise InputError(
            f"One segment of {shown} is {array.decoding.chunk_bytes / 1024**3:.1f} GiB in memory, more than the "
            f"{node.CHUNK_LIMIT // 1024**3} GiB that a worker decodes at once. Save it again in tiles of 512 x 512."
        )


def _axes(array: TiffArray, shown: str, wanted: Wanted) -> tuple[str, str]:
    """Return the axes of the stored array and where they were learnt."""
    letters, shape = array.letters, array.shape
    if wanted.axes is not None:
        given = axes_.validate(wanted.axes)
        if len(given) != len(shape):
            raise InputError(
                f"--axes {wanted.axes} names {len(given)} axes, but {shown} has {len(shape)} dimensions, {shape} "
                f"({letters}). Name each dimension once."
            )
        return given, "--axes"
    known = [_LETTERS.get(letter, "") for letter in letters]
    free = [axis for axis in "zt" if axis not in known]
    unknown = [at for at, axis in enumerate(known) if not axis]
    for at in reversed(unknown):  # planes that nobody named: nearest to the plane is depth
        if at == unknown[-1] and not axes_.has_channel(known) and _are_channels(shape[at], wanted):
            known[at] = "c"
        elif free:
            known[at] = free.pop(0)
    if not all(known) or not axes_.fit_an_image(known):
        raise InputError(
            f"{shown} has the axes {letters}, {shape}, which are not all of an image's t, c, z, y and x, each once. "
            "Say what they are with --axes, or save it with axes that are named."
        )
    return "".join(known), f"guessed from {letters}" if unknown else str(array.facts["format"])


def _channel_names(array: TiffArray, levels: Sequence[TiffPageSeries], stored: str) -> tuple[str, ...]:
    """Return the names of the channels, () if nobody named them all."""
    if not axes_.has_channel(stored):
        return ()
    count = array.shape[stored.index("c")]
    names = channel_names_of(array.file, count) or slides.channel_names_of(levels[0])
    return names if len(names) == count else ()


def _are_channels(size: int, wanted: Wanted) -> bool:
    """Tell whether planes of unknown meaning can only be the channels of a network of two dimensions."""
    return wanted.dims == 2 and (wanted.network_channels or 1) > 1 and size == wanted.network_channels


def _spacing(
    array: TiffArray, levels: Sequence[TiffPageSeries], level: int
) -> tuple[dict[str, float] | None, str | None]:
    """Return the size of a pixel per axis of space, at a level, and its unit; None if nobody says."""
    sizes, unit = spacing_of(array.file, levels[0])
    if sizes is None:
        return None, None
    letters, finest, coarse = str(levels[0].axes), levels[0].shape, levels[level].shape
    found = {}
    for axis, size in zip("ZYX"[-len(sizes) :], sizes, strict=True):
        at = letters.find(axis)
        found[axis.lower()] = size * (_factor(finest[at], coarse[at]) if at >= 0 else 1.0)
    return found, unit


def _factor(finest: int, coarse: int) -> float:
    """Return by how much a level is coarser: a whole number where the sizes are those of one, rounded.

    Examples
    --------
    >>> _factor(1001, 250), _factor(100, 40)
    (4.0, 2.5)
    """
    whole = round(finest / max(coarse, 1))
    return float(whole) if whole and abs(finest - whole * coarse) < whole else finest / max(coarse, 1)


def _described(array: TiffArray) -> str:
    """Return a digest of what the file says of the array, wherever it lies and whenever it was written."""
    page, first = array.keyframe, array.page(0) if math.prod(array.shape) else None
    said = (
        *(array.letters, array.shape, array.dtype.name, array.unit, array.file.byteorder, len(array.images)),
        *(int(page.compression), int(page.predictor), int(page.photometric)),
        (first.raw, first.offsets[:64], first.counts[:64]) if first else None,
        str(page.description)[: 1 << 16],
    )
    return sha256(repr(said).encode("utf-8", "surrogateescape")).hexdigest()


def _name(path: Path, key: str) -> str:
    return stem(path.name) if key in ("", "0/0") else posixpath.join(stem(path.name), key)
