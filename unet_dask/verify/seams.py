"""A seam score: whether values change more across the faces between tiles than elsewhere.

Compared are the steps between neighbouring voxels across a face with those across parallel planes one period of the
pooling lattice away, where no tile ends. Not with the planes next to the face: up-convolutions of stride 2 make steps
that depend on the place in the period, faces always lie on the lattice, and so a seamless result would score up to
some tens of per cent above or below 1. Windows of a bounded number of faces are looked at, so the cost does not grow
with the volume.

The score is the ratio of the two sums, its uncertainty that of a ratio over independent windows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from unet_dask.verify.finding import Finding

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from unet_dask.io.sink.store import ArraySpec
    from unet_dask.tiling.region import AxisGrid
    from unet_dask.verify.stored import Box, Stored

#: Windows per axis, and their side along the face, in 2-D and 3-D.
_WINDOWS = 96
_SIDES = {2: 128, 3: 32}
#: Fewer windows in which anything changes say nothing.
_LEAST = 16
#: A score above this that is sure to three standard errors is a seam. Seamless results stay below 1.1 in the tests;
#: tiles that were padded instead of given their context score 1.5 and more.
_SEAM = 1.25
_SURE = 3.0


@dataclass(frozen=True, slots=True)
class Score:
    """Of the faces across one axis.

    Attributes
    ----------
    value : ratio of steps across faces and elsewhere
    error : standard error of it
    windows : that were looked at
    """

    value: float
    error: float
    windows: int

    @property
    def seam(self) -> bool:
        """Whether there is a seam beyond doubt."""
        return self.value - _SURE * self.error > _SEAM


def seam_scores(stored: Stored, random: np.random.Generator) -> tuple[dict[str, float], list[Finding]]:
    """Return the score of every axis that has enough faces, and the seams."""
    scores, findings = {}, []
    chosen = next(
        (each for name in ("probabilities", "classes") for each in stored.arrays if each.name == name), None
    )
    first = len(stored.grid.axes) - stored.dims
    for axis, grid in list(zip(stored.grid.axes, stored.grid.grids, strict=True))[first:]:
        score = None if chosen is None else _score(stored, chosen, axis, grid, random)
        if score is None:
            continue
        scores[axis] = score.value
        if score.seam:
            text = (
                f"values change {score.value:.2f} times as much across the faces between tiles along {axis} as "
                f"elsewhere ({score.windows} windows, standard error {score.error:.2g}). Tiles of this result do not "
                "fit together; recompute it with segment --overwrite"
            )
            findings.append(Finding("seam", text, chosen.name if chosen else "", 0))
    return scores, findings


def faces(grid: AxisGrid) -> NDArray[np.int64]:
    """Return the first voxels behind every inner face between tiles, from the beginning of the sink."""
    found: set[int] = set()
    for index in range(grid.count):
        start, stop = grid.write(index)
        starts = (start - grid.phase + origin for origin in grid.tiles(stop - start))
        found |= {start, *(each for each in starts if each > start)}
    return np.array(sorted(found - {grid.start}), np.int64) - grid.start


def _score(
    stored: Stored, array: ArraySpec, axis: str, grid: AxisGrid, random: np.random.Generator
) -> Score | None:
    stride = grid.context.stride
    every = faces(grid)
    # The window reaches one period to both sides of the face, and one voxel beyond.
    inside = every[(every > stride) & (every < grid.stop - grid.start - stride)]
    lonely = inside[~np.isin(inside - stride, every) & ~np.isin(inside + stride, every)]
    if not len(lonely):
        return None
    pairs = []
    for _ in range(_WINDOWS):
        face = int(random.choice(lonely))
        box = _window(stored, array, axis, (face - stride - 1, face + stride + 1), random)
        try:
            values = stored.read(array.name, 0, box)
        except Exception:  # noqa: S112 # the checksums have said so
            continue
        steps = _steps(values, array.axes.index(axis), classes=array.name == "classes")
        pairs.append((steps[stride], (steps[0] + steps[2 * stride]) / 2))
    return _ratio(np.array(pairs, np.float64))


def _window(
    stored: Stored, array: ArraySpec, axis: str, along: tuple[int, int], random: np.random.Generator
) -> Box:
    """Return a random window of a face, as thick as `along`."""
    looked = stored.grid.axes[-stored.dims :]
    box = []
    for name, size in zip(array.axes, array.levels[0].shape, strict=True):
        if name == axis:
            box.append(along)
            continue
        side = size if name == "c" else min(_SIDES[stored.dims] if name in looked else 1, size)
        start = int(random.integers(size - side + 1))
        box.append((start, start + side))
    return tuple(box)


def _steps(values: NDArray[Any], axis: int, *, classes: bool) -> NDArray[np.float64]:
    """Return the mean absolute step between neighbouring planes; of classes, the share that changes."""
    planes = np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1)
    steps = planes[1:] != planes[:-1] if classes else np.abs(np.diff(planes.astype(np.float64), axis=0))
    return np.asarray(steps.mean(axis=1, dtype=np.float64))


def _ratio(pairs: NDArray[np.float64]) -> Score | None:
    """Return the ratio of the sums of pairs (at faces, elsewhere), None if there are too few.

    Its standard error is that of a ratio estimate: the residuals of the pairs about the ratio, over the sum of the
    denominators (Cochran, "Sampling Techniques", 1977, section 6.4).
    """
    pairs = pairs[np.isfinite(pairs).all(axis=1)] if len(pairs) else pairs
    if np.count_nonzero(pairs.any(axis=1) if len(pairs) else pairs) < _LEAST or not pairs[:, 1].sum():
        return None
    at_faces, elsewhere = pairs.T
    value = at_faces.sum() / elsewhere.sum()
    residuals = at_faces - value * elsewhere
    error = np.sqrt((residuals**2).sum()) / elsewhere.sum()
    return Score(float(value), float(error), len(pairs))
