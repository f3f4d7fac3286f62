"""A seam score: whether values change more across the faces between tiles than elsewhere.

The step between the voxels on both sides of a face is compared with the steps one voxel before and after, which see
the same image. That ratio is 1 for a smooth result, but not for every network: up-convolutions of stride 2 make steps
that depend on the place in the period of the pooling lattice, and faces always lie on the lattice. So it is divided by
the same ratio of the parallel planes one period away, where no tile ends.

Windows of a bounded number of faces are looked at, so the cost does not grow with the volume. The windows do not
overlap, and the uncertainty is that of the jackknife over them.

The edge of a mask is a step too, and often lies on faces. So of a masked result only those lines across a face are
looked at that are within the mask from end to end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from unet_dask.axes import has_channel, is_channel, without_channel
from unet_dask.tiling.box import Box
from unet_dask.verify.finding import Finding

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from unet_dask.io.sink.store import ArraySpec
    from unet_dask.io.source.mask import Mask
    from unet_dask.products import Product
    from unet_dask.tiling.region import AxisGrid
    from unet_dask.verify.stored import Stored

#: Windows per axis, those that are drawn to find as many within a mask, and their side along the face, for 2-D and
#: 3-D networks.
_WINDOWS = 64
_DRAWN = 1024
_SIDES = {2: 128, 3: 32}
#: Fewer windows in which anything changes say nothing.
_LEAST = 16
#: A score that is above this by three standard errors is a seam. Measured on discs with the bundled model, 7 faces of
#: 1024 pixels: 1.0 and 1.16 (error 0.05) without seams, 1.3 with tiles padded by zeros, which the score of the classes
#: shows better (2.6 and 3.4), 4.2 and 4.9 with tiles that were mirrored at their own faces.
_SEAM = 1.25
_SURE = 3.0


@dataclass(frozen=True, slots=True)
class Score:
    """Of the faces across one axis.

    Attributes
    ----------
    value : about 1 without seams
    error : its standard error
    windows : that were looked at
    """

    value: float
    error: float
    windows: int

    @property
    def seam(self) -> bool:
        """Whether there is a seam beyond doubt."""
        return self.value - _SURE * self.error > _SEAM


def seam_scores(
    stored: Stored, random: np.random.Generator, mask: Mask | None = None
) -> tuple[dict[str, float], list[Finding]]:
    """Return the score of every axis that has enough faces, and the seams.

    Parameters
    ----------
    stored : to look at
    random : draws what is looked at
    mask : of a masked result
    """
    scores, findings = {}, []
    # Of amounts, every face tells something; numbers of objects change wherever an object ends.
    fitting = [array for array in stored.arrays if not array.product.joined]
    array = max(fitting, key=lambda array: array.product.amounts, default=None)
    first = len(stored.grid.axes) - stored.dims
    for axis, grid in list(zip(stored.grid.axes, stored.grid.grids, strict=True))[first:]:
        score = None if array is None else _score(stored, array, axis, grid, random, mask)
        if array is None or score is None:
            continue
        scores[axis] = score.value
        if score.seam:
            text = (
                f"values change {score.value:.2f} times as much across the faces between tiles along {axis} as "
                f"elsewhere (standard error {score.error:.2g}, {score.windows} windows): tiles do not fit together. "
                "Recompute the result with segment --overwrite"
            )
            findings.append(Finding("seam", text, array.name, 0))
    return scores, findings


def faces(grid: AxisGrid, *, masked: bool) -> NDArray[np.int64]:
    """Return the first voxels behind every inner face between tiles, from the beginning of the sink.

    Tiles that are fitted to a mask lie anywhere; their faces are those between regions.
    """
    found: set[int] = set()
    for start, stop in grid.regions():
        starts = () if masked else (start - grid.phase + origin for origin in grid.tiles(stop - start))
        found |= {start, *(each for each in starts if each > start)}
    return np.array(sorted(found - {grid.start}), np.int64) - grid.start


def _score(
    stored: Stored,
    array: ArraySpec,
    axis: str,
    grid: AxisGrid,
    random: np.random.Generator,
    mask: Mask | None,
) -> Score | None:
    stride = grid.context.stride
    every = faces(grid, masked=mask is not None)
    inside = every[(every > stride + 1) & (every < grid.stop - grid.start - stride - 1)]
    lonely = inside[~np.isin(inside - stride, every) & ~np.isin(inside + stride, every)]
    steps: list[NDArray[np.float64]] = []
    for box in _windows(stored, array, axis, lonely, random, _DRAWN if mask else _WINDOWS):
        if len(steps) == _WINDOWS:
            break
        within = None if mask is None else _within(mask, stored, array, axis, box)
        if within is not None and not within.any():
            continue
        try:
            values = stored.read(array.name, 0, box)
        except Exception:  # noqa: S112 # the checksums have said so
            continue
        steps.append(_steps(array.product, values, array.axes.index(axis), within))
    return _jackknifed(np.array(steps), stride)


def _within(mask: Mask, stored: Stored, array: ArraySpec, axis: str, box: Box) -> NDArray[np.bool_]:
    """Return which lines across a face are within the mask from end to end, one value for every step of a plane."""
    place = {**stored.shown(0, box), "c": (0, 1)}
    inside = mask.inside([place[name] for name in stored.grid.axes])
    lines = inside.all(axis=without_channel(stored.grid.axes).index(axis), keepdims=True)
    if has_channel(array.axes):
        lines = np.expand_dims(lines, array.axes.index("c"))
    return np.broadcast_to(lines, box.along(axis, (0, 1)).shape).ravel()


def _windows(
    stored: Stored,
    array: ArraySpec,
    axis: str,
    lonely: NDArray[np.int64],
    random: np.random.Generator,
    most: int,
) -> list[Box]:
    """Return some windows of faces that do not overlap, each a period and two voxels thick to both sides."""
    looked = stored.grid.axes[-stored.dims :]
    shape = array.levels[0].shape
    sides = [
        size if is_channel(name) else min(_SIDES[stored.dims] if name in looked else 1, max(size, 1))
        for name, size in zip(array.axes, shape, strict=True)
    ]
    counts = [size // side if side else 0 for size, side in zip(shape, sides, strict=True)]
    along = array.axes.index(axis)
    counts[along] = len(lonely)
    total = int(np.prod(counts))
    boxes = []
    for number in random.choice(total, min(most, total), replace=False) if total else ():
        place = [int(each) for each in np.unravel_index(int(number), counts)]
        box = [(at * side, (at + 1) * side) for at, side in zip(place, sides, strict=True)]
        thick = stored.grid.grids[stored.grid.axes.index(axis)].context.stride + 2
        face = int(lonely[place[along]])
        box[along] = (face - thick, face + thick)
        boxes.append(Box(array.axes, tuple(box)))
    return boxes


def _steps(
    product: Product, values: NDArray[np.generic], axis: int, within: NDArray[np.bool_] | None
) -> NDArray[np.float64]:
    """Return the mean step between neighbouring planes, of some lines."""
    planes = np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1)
    steps = product.steps(planes)
    if within is not None:
        steps = steps * within
    return np.asarray(steps.mean(axis=1, dtype=np.float64))


def _jackknifed(steps: NDArray[np.float64], stride: int) -> Score | None:
    """Return the score of windows of (window, steps), the middle step that at the face; None if they say nothing."""
    if len(steps) < _LEAST:
        return None
    steps = steps[np.isfinite(steps).all(axis=1)]  # NaN was never written, which the checksums have said
    steps = steps[steps.any(axis=1)]
    if len(steps) < _LEAST:
        return None
    whole = steps.sum(axis=0)
    without = whole - steps
    values = _double_ratio(np.vstack([whole, without]), stride)
    if not np.isfinite(values).all():
        return None
    value, left = float(values[0]), values[1:]
    error = np.sqrt((len(left) - 1) * np.mean((left - left.mean()) ** 2))
    return Score(value, float(error), len(steps))


def _double_ratio(steps: NDArray[np.float64], stride: int) -> NDArray[np.float64]:
    """Return the ratio at the face over that at the planes one period away, of sums over windows."""

    def beside(*places: int) -> NDArray[np.float64]:
        at = sum(steps[:, place] for place in places)
        around = sum((steps[:, place - 1] + steps[:, place + 1]) / 2 for place in places)
        return np.asarray(at / around)

    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(beside(stride + 1) / beside(1, 2 * stride + 1))
