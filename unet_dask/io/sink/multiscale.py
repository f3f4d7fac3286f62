"""OME-Zarr 0.5 metadata of multiscale images, and the levels of our pyramids.

Written by hand: the libraries that write it either mark labels in a way that their own validator refuses
or know no label images. The tests validate every product with ome-zarr-models.

Levels halve every axis of the plane, and the depth axis once it is as fine as the plane. The coordinates of
a level are those of its voxels' centres: averaging two voxels of size s moves the centre by s / 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from unet_dask.axes import has_depth, is_lateral

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

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
    while (
        max(size for axis, size in zip(axes, levels[-1].shape, strict=True) if is_lateral(axis)) > _COARSEST
    ):
        finer = levels[-1]
        size_of = {
            axis: spacing.get(axis, 1.0) * factor for axis, factor in zip(axes, finer.factor, strict=True)
        }
        halved = {"y", "x"}
        if has_depth(axes) and size_of["z"] <= _ISOTROPY * min(size_of["y"], size_of["x"]):
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
