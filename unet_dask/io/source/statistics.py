"""Mean and standard deviation of a whole volume, from one pass over it in blocks.

The partial results are merged in the order of the blocks, which depend on the source alone, so that the
constants are the same for any number of workers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from unet_dask.errors import DataError
from unet_dask.io.source.window import read_stamped, stamp_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from unet_dask.io.source.volume import Source, SourceSpec

#: Voxels read at once, about.
_BLOCK_VOXELS = 1 << 24
#: Voxels that are computed with at once.
_PIECE = 1 << 20
#: Copies of a piece at once: its values, those that are finite, and which they are.
_PIECE_COPIES = 3


@dataclass(frozen=True, slots=True)
class Moments:
    """Count, mean and sum of squared deviations of the finite values, per channel; stamp of the files they are of."""

    count: tuple[int, ...]
    mean: tuple[float, ...]
    squares: tuple[float, ...]
    stamp: str = ""


def windows(source: Source) -> Iterator[tuple[tuple[int, ...], tuple[slice, ...]]]:
    """Yield index and window of every block of the pass: whole chunks of the source."""
    side = _side(source)
    counts = [-(-size // each) for size, each in zip(source.shape, side, strict=True)]
    for index in product(*map(range, counts)):
        yield (
            index,
            tuple(
                slice(i * each, min((i + 1) * each, size))
                for i, each, size in zip(index, side, source.shape, strict=True)
            ),
        )


def block_bytes(source: Source) -> int:
    """Return the bytes that one block takes at most: its values, what decoding them takes, and a piece in float64."""
    values = math.prod(_side(source)) * source.dtype.itemsize
    return int(2 * values + source.decoding.beside(values)) + _PIECE_COPIES * 8 * _PIECE


def _side(source: Source) -> list[int]:
    """Return the size of a block."""
    side = [max(min(chunk, size), 1) for chunk, size in zip(source.chunks, source.shape, strict=True)]
    side[source.axes.index("c")] = source.shape[source.axes.index("c")]
    for axis in reversed(range(len(side))):
        room = max(_BLOCK_VOXELS // math.prod(side), 1)
        side[axis] = min(side[axis] * room, source.shape[axis])
    return side


def moments(spec: SourceSpec, window: tuple[slice, ...], channel: int) -> Moments:
    """Return the moments of one block; `channel` is the place of the channel axis."""
    values, stamp = read_stamped(spec, window)
    found = [_of_channel(each.reshape(-1)) for each in np.moveaxis(values, channel, 0)]
    count, mean, squares = zip(*found, strict=True)
    return Moments(count, mean, squares, stamp)


def still_there(spec: SourceSpec, window: tuple[slice, ...], found: Moments) -> bool:
    """Return whether the files of a block are those that its moments are of."""
    return stamp_of(spec, window) == found.stamp


def _of_channel(values: NDArray[np.generic]) -> tuple[int, float, float]:
    """Return count, mean and squared deviations of the finite values, a piece at a time: in float64 they are large."""
    count, mean, squares = 0, 0.0, 0.0
    for start in range(0, len(values), _PIECE):
        piece = values[start : start + _PIECE].astype(np.float64)
        piece = piece[np.isfinite(piece)]
        if not piece.size:
            continue
        own = float(piece.mean())
        piece -= own
        share, delta = piece.size / (count + piece.size), own - mean
        squares += float(piece @ piece) + delta**2 * count * share
        mean += delta * share
        count += piece.size
    return count, mean, squares


def merge(parts: Iterable[Moments]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation per channel, merging in the order given (Chan et al., 1979).

    Raises
    ------
    DataError
        If there is no finite value at all.
    """
    count, mean, squares = np.zeros(1), np.zeros(1), np.zeros(1)
    for part in parts:
        added = np.asarray(part.count, np.float64)
        total = count + added
        share = added / np.maximum(total, 1)
        delta = np.asarray(part.mean) - mean
        squares = squares + np.asarray(part.squares) + delta**2 * count * share
        mean = mean + delta * share
        count = total
    if not count.all():
        raise DataError("The source has a channel without any finite value, so it cannot be normalised.")
    std = np.sqrt(squares / count)
    # A constant image has no contrast to normalise: any scale gives the same zeros.
    return tuple(mean.tolist()), tuple(np.where(std > 0, std, 1.0).tolist())
