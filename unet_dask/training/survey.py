"""What must be known of all data before the first patch: the values, mean and deviation, digests.

Images in memory are looked at whole. Zarr arrays that are too large to hold are read once, in blocks of whole
chunks, two at a time; what is kept of a block is a few numbers. They are added up in the order of the blocks, which
depends on the array alone, so that the same data give the same network.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import TYPE_CHECKING, Self, TypeVar

import numpy as np

from unet_dask.ahead import in_order
from unet_dask.io.images.annotated import require_grey_values
from unet_dask.io.images.annotated_volume import AnnotatedVolume
from unet_dask.tiling.box import overlap, shifted, whole

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from unet_dask.io.images.annotated import AnnotatedImage
    from unet_dask.io.images.annotated_volume import Annotated
    from unet_dask.io.images.labels import Annotation
    from unet_dask.io.images.stack import Stack
    from unet_dask.tiling.box import Window

#: Values that are converted to float64 at once: their copies stay in the cache of the processor.
PORTION = 1 << 20
#: Blocks that are read at the same time: while one is decoded, another is added up.
_THREADS = 2
#: Values below this are counted one by one: classes fit into a byte.
COUNTED = 256


@dataclass(frozen=True, slots=True)
class Moments:
    """Grey values in three numbers per channel, which can be added up (Chan et al., 1979).

    Attributes
    ----------
    count : of pixels
    mean : (c,)
    squares : (c,) sum of the squared deviations from the mean
    """

    count: int
    mean: NDArray[np.float64]
    squares: NDArray[np.float64]

    def __add__(self, other: Self) -> Moments:
        count = self.count + other.count
        share, delta = other.count / count, other.mean - self.mean
        squares = self.squares + other.squares + np.square(delta) * (self.count * share)
        return Moments(count, self.mean + delta * share, squares)

    @property
    def deviation(self) -> NDArray[np.float64]:
        """Standard deviation per channel; 1 for a constant one, which has no contrast to normalise."""
        found = np.sqrt(self.squares / self.count)
        return np.where(found > 0, found, 1.0)


@dataclass(frozen=True, slots=True)
class Values:
    """Annotated values of a target.

    Attributes
    ----------
    counts : (257,) pixels of the values 0 to 255; the last counts all above
    largest : value, 0 if nothing is annotated
    foreground : pixels of the value that the recipe calls foreground
    """

    counts: NDArray[np.int64]
    largest: int
    foreground: int

    def __add__(self, other: Self) -> Values:
        largest = max(self.largest, other.largest)
        return Values(self.counts + other.counts, largest, self.foreground + other.foreground)

    def found(self, foreground: int | None) -> set[int]:
        """Return the values that occur: all below 256, the largest, and the foreground value."""
        below = set(np.flatnonzero(self.counts[:COUNTED]).tolist())
        above = {self.largest} if self.counts[COUNTED] else set()
        return below | above | ({foreground} if foreground is not None and self.foreground else set())


@dataclass(frozen=True, slots=True)
class Survey:
    """What was found in one image and its target."""

    moments: Moments
    values: Values


_T = TypeVar("_T", Moments, Values)


def moments_of(image: NDArray[np.generic]) -> Moments:
    """Return the moments of (c, *spatial).

    Examples
    --------
    >>> moments_of(np.array([[1.0, 3.0]])).deviation
    array([1.])
    """
    return reduce(add, map(_moments, _portions(image)))


def _moments(image: NDArray[np.generic]) -> Moments:
    flat = image.reshape(len(image), -1).astype(np.float64)
    mean = flat.mean(axis=1)
    flat -= mean[:, np.newaxis]
    return Moments(flat.shape[1], mean, np.square(flat, out=flat).sum(axis=1))


def values_of(annotation: Annotation | AnnotatedImage, *, foreground: int | None = None) -> Values:
    """Return the annotated values of a target; `foreground` is a value to count even if it is large."""
    known = annotation.target[annotation.known]
    small = known if known.dtype.itemsize == 1 else np.minimum(known, COUNTED)
    return Values(
        np.bincount(small.astype(np.intp), minlength=COUNTED + 1),
        int(known.max(initial=0)),
        0 if foreground is None else int(np.count_nonzero(known == foreground)),
    )


def survey(
    parts: Sequence[Annotated], *, foreground: int | None = None
) -> tuple[list[Survey], tuple[tuple[str, str], ...]]:
    """Look at all values once.

    Parameters
    ----------
    parts : images in memory, or parts of the images of one pair of Zarr arrays
    foreground : value of targets to count

    Returns
    -------
    what was found in each part, and (base name, SHA-256) of all that was read. Of an array that was read in
    blocks this is the SHA-256 of its type, its shape and the SHA-256 of each block

    Raises
    ------
    DataError
        If an image has values that are not finite.
    InputError
        If targets are not whole numbers.
    """
    volumes = [part for part in parts if isinstance(part, AnnotatedVolume)]
    if volumes:
        return _survey_of_volumes(volumes, foreground)
    found = [
        Survey(
            moments_of(part.read_image(whole(part.shape))),
            values_of(part.read_annotation(whole(part.shape)), foreground=foreground),
        )
        for part in parts
    ]
    return found, tuple(sorted({pair for part in parts for pair in part.files}))


def _survey_of_volumes(
    parts: Sequence[AnnotatedVolume], foreground: int | None
) -> tuple[list[Survey], tuple[tuple[str, str], ...]]:
    image, target = parts[0].image, parts[0].target

    def grey(_: AnnotatedVolume, values: NDArray[np.generic]) -> Moments:
        require_grey_values(values, image.name)
        return _moments(values)

    def annotated(part: AnnotatedVolume, values: NDArray[np.generic]) -> Values:
        return values_of(part.annotation_of(values), foreground=foreground)

    moments, image_digest = _read_once(image, parts, grey)
    values, target_digest = _read_once(target, parts, annotated)
    surveys = [Survey(*pair) for pair in zip(moments, values, strict=True)]
    return surveys, tuple(sorted({(image.name, image_digest), (target.name, target_digest)}))


def _read_once(
    stack: Stack, parts: Sequence[AnnotatedVolume], look: Callable[[AnnotatedVolume, NDArray[np.generic]], _T]
) -> tuple[list[_T], str]:
    """Read an array in blocks; return what was found per part, added up, and the digest of all."""
    of_image: dict[int, list[int]] = {}
    for number, part in enumerate(parts):
        of_image.setdefault(part.index, []).append(number)

    def work(block: tuple[range, Window]) -> tuple[bytes, list[tuple[int, _T]]]:
        planes, box = block
        values = stack.read(planes, box)
        found = [
            (number, reduce(add, (look(parts[number], portion) for portion in _portions(inside))))
            for plane, index in zip(values, planes, strict=True)
            for number in of_image.get(index, ())
            if (inside := _inside(plane, box, parts[number])).size
        ]
        return hashlib.sha256(np.ascontiguousarray(values).data).digest(), found

    total = hashlib.sha256(f"{stack.source.dtype.str} {stack.source.shape}".encode())
    sums: dict[int, _T] = {}
    for digest, found in in_order(work, stack.blocks(), threads=_THREADS, ahead=_THREADS):
        total.update(digest)
        for number, more in found:
            sums[number] = sums[number] + more if number in sums else more
    return [sums[number] for number in range(len(parts))], total.hexdigest()


def _inside(values: NDArray[np.generic], box: Window, part: AnnotatedVolume) -> NDArray[np.generic]:
    """Return what lies in a part, of values of (c, *box)."""
    common = overlap(box, part.box)
    return values[:, :0] if common is None else values[(slice(None), *shifted(common, box))]


def _portions(values: NDArray[np.generic]) -> Iterator[NDArray[np.generic]]:
    """Yield (c, *spatial) in slabs along the first axis of space."""
    rows = max(PORTION // max(values[:, :1].size, 1), 1)
    for start in range(0, values.shape[1], rows):
        yield values[:, start : start + rows]
