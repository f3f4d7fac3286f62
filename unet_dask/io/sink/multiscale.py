"""OME-Zarr 0.5 metadata of our products, and how their pyramids are made.

Written by hand: the libraries that write it either mark labels in a way that their own validator refuses
or know no label images. The tests validate every product with ome-zarr-models.

Levels halve every axis of the plane, and the depth axis once it is as fine as the plane. The coordinates of
a level are those of its voxels' centres: averaging two voxels of size s moves the centre by s / 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations, product
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

How = Literal["vote", "mean", "first"]

_KIND = {"t": "time", "c": "channel", "z": "space", "y": "space", "x": "space"}
#: A pyramid ends when a plane fits a screen.
_COARSEST = 512
#: A depth axis is halved once its voxels are at most this much longer than those of the plane.
_ISOTROPY = 1.5
#: UDUNITS-2 names allowed by OME-Zarr 0.5; another unit would make viewers refuse the image.
_UNITS = frozenset(
    prefix + base
    for base in ("meter", "second")
    for prefix in (
        *("", "atto", "centi", "deci", "exa", "femto", "giga", "hecto", "kilo", "mega", "micro", "milli"),
        *("nano", "peta", "pico", "tera", "yocto", "yotta", "zepto", "zetta"),
    )
) | {"angstrom", "day", "foot", "hour", "inch", "mile", "minute", "parsec", "yard"}


@dataclass(frozen=True, slots=True)
class Level:
    """One level of a pyramid.

    Attributes
    ----------
    shape : in voxels
    factor : voxels of level 0 per voxel, per axis
    """

    shape: tuple[int, ...]
    factor: tuple[int, ...]

    def step_from(self, finer: Level) -> tuple[int, ...]:
        """Return the voxels of the next finer level per voxel of this one."""
        return tuple(a // b for a, b in zip(self.factor, finer.factor, strict=True))


def pyramid(axes: str, shape: Sequence[int], spacing: Mapping[str, float]) -> tuple[Level, ...]:
    """Return the levels of a pyramid, the finest first.

    Examples
    --------
    >>> [level.shape for level in pyramid("yx", (1500, 900), {})]
    [(1500, 900), (750, 450), (375, 225)]
    """
    levels = [Level(tuple(shape), (1,) * len(axes))]
    while max(size for axis, size in zip(axes, levels[-1].shape, strict=True) if axis in "yx") > _COARSEST:
        finer = levels[-1]
        size_of = {
            axis: spacing.get(axis, 1.0) * factor for axis, factor in zip(axes, finer.factor, strict=True)
        }
        halved = {"y", "x"}
        if "z" in axes and size_of["z"] <= _ISOTROPY * min(size_of["y"], size_of["x"]):
            halved.add("z")
        step = [2 if axis in halved and size > 1 else 1 for axis, size in zip(axes, finer.shape, strict=True)]
        levels.append(
            Level(
                tuple(-(-size // by) for size, by in zip(finer.shape, step, strict=True)),
                tuple(factor * by for factor, by in zip(finer.factor, step, strict=True)),
            )
        )
    return tuple(levels)


def image_metadata(
    axes: str,
    levels: Sequence[Level],
    *,
    name: str,
    spacing: Mapping[str, float],
    unit: Mapping[str, str | None],
    translation: Mapping[str, float],
) -> dict[str, Any]:
    """Return the `ome` attribute of a multiscale image.

    Parameters
    ----------
    axes : in OME order
    levels : of the pyramid
    name : of the image
    spacing, unit, translation : of level 0, per axis; an axis left out has spacing 1 and no unit
    """
    described = [
        {"name": axis, "type": _KIND[axis], "unit": unit.get(axis)}
        if unit.get(axis) in _UNITS
        else {"name": axis, "type": _KIND[axis]}
        for axis in axes
    ]
    datasets = []
    for number, level in enumerate(levels):
        size = [spacing.get(axis, 1.0) for axis in axes]
        centre = [
            translation.get(axis, 0.0) + length * (factor - 1) / 2
            for axis, length, factor in zip(axes, size, level.factor, strict=True)
        ]
        scale = [length * factor for length, factor in zip(size, level.factor, strict=True)]
        datasets.append(
            {
                "path": str(number),
                "coordinateTransformations": [
                    {"type": "scale", "scale": scale},
                    {"type": "translation", "translation": centre},
                ],
            }
        )
    return {"version": "0.5", "multiscales": [{"name": name, "axes": described, "datasets": datasets}]}


def label_metadata(class_names: Sequence[str]) -> dict[str, Any]:
    """Return the `image-label` attribute of a class map: a colour and a name per class."""
    return {
        "colors": [
            {"label-value": value, "rgba": list(class_colour(value))} for value in range(len(class_names))
        ],
        "properties": [{"label-value": value, "class": name} for value, name in enumerate(class_names)],
    }


def class_colour(value: int) -> tuple[int, int, int, int]:
    """Return a colour per class: background transparent, the others around the wheel by the golden angle."""
    if value == 0:
        return (0, 0, 0, 0)
    hue = (0.09 + value * 0.61803398875) % 1.0
    red, green, blue = (abs((hue * 6 + shift) % 6 - 3) - 1 for shift in (0, 4, 2))
    return (*(round(255 * min(max(part, 0), 1)) for part in (red, green, blue)), 255)  # type: ignore[return-value] # three and one


def coarser(block: NDArray[np.generic], step: Sequence[int], *, how: How) -> NDArray[np.generic]:
    """Return a block at the next coarser level.

    Parameters
    ----------
    block : of the finer level
    step : voxels per coarser voxel, per axis
    how : "vote" takes the most frequent value, of equal ones the lowest; "mean" their mean, "first" the first

    Returns
    -------
    array of ceil(size / step), the same type; a ragged end is repeated

    Examples
    --------
    >>> coarser(np.array([[1, 1, 2], [0, 1, 2]]), (2, 2), how="vote")
    array([[1, 2]])
    """
    if how == "first":
        return block[tuple(slice(None, None, by) for by in step)]
    pad = [(0, -size % by) for size, by in zip(block.shape, step, strict=True)]
    block = np.pad(block, pad, mode="edge") if any(after for _, after in pad) else block
    if how == "mean":
        split = [part for size, by in zip(block.shape, step, strict=True) for part in (size // by, by)]
        within = tuple(range(1, 2 * block.ndim, 2))
        mean: NDArray[np.float32] = block.reshape(split).mean(axis=within, dtype=np.float32)
        return (mean if block.dtype.kind == "f" else np.rint(mean)).astype(block.dtype)
    if block.size and (block == block.flat[0]).all():  # background, most of a slide
        return np.full([size // by for size, by in zip(block.shape, step, strict=True)], block.flat[0])
    voxels = [
        np.ascontiguousarray(block[tuple(slice(at, None, by) for at, by in zip(offset, step, strict=True))])
        for offset in product(*map(range, step))
    ]
    return _voted(voxels)


def _voted(candidates: Sequence[NDArray[np.generic]]) -> NDArray[np.generic]:
    """Return the most frequent of some arrays' values, voxel by voxel; of equally frequent ones the lowest.

    Each candidate counts who agrees with it, whatever the values are: two or two hundred classes cost the same.
    """
    votes = [np.zeros(each.shape, np.uint8) for each in candidates]
    for one, other in combinations(range(len(candidates)), 2):
        same = candidates[one] == candidates[other]
        votes[one] += same
        votes[other] += same
    best: Any = candidates[0]  # numbers, which have an order
    most = votes[0]
    for each, count in zip(candidates[1:], votes[1:], strict=True):
        best = np.where((count > most) | ((count == most) & (each < best)), each, best)
        most = np.maximum(most, count)
    voted: NDArray[np.generic] = best
    return voted
