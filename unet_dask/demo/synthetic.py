"""Fluorescence images of nuclei with known truth, of any size, block by block.

Every nucleus belongs to a cell of a coarse grid and is drawn from a generator seeded by that cell, so that any
window of the image can be made on its own and all windows fit together. The sizes, the contrast and the noise
follow Hoechst-stained fields of the Broad Bioimage Benchmark Collection, set BBBC039.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Side in pixels of the grid cells, each of which holds one nucleus, a touching pair, or none.
_CELL = 58
#: Pixels around a window that are drawn with it: the light that spreads from a nucleus reaches no further.
_MARGIN = 48
#: Side in pixels of the blocks whose noise shares a generator.
_NOISE_BLOCK = 512


@dataclass(frozen=True, slots=True)
class _Nucleus:
    """One nucleus: where it is, how it is shaped, how it shines."""

    number: int
    centre: tuple[float, float]
    radii: tuple[float, float]
    angle: float
    wobble: tuple[float, float]
    brightness: float
    waves: NDArray[np.float64]  # (wave, 4): frequencies along y and x, phase, amplitude

    @property
    def reach(self) -> int:
        """Pixels from the centre beyond which there is nothing of it."""
        return int(1.3 * max(self.radii)) + 2


def nuclei(
    shape: tuple[int, int], *, seed: int, origin: tuple[int, int] = (0, 0)
) -> tuple[NDArray[np.uint16], NDArray[np.uint32]]:
    """Return a window of an endless image of nuclei and its truth.

    Parameters
    ----------
    shape : of the window, (y, x)
    seed : of the whole image
    origin : of the window in the image, multiples of 512 if several windows are to fit together

    Returns
    -------
    image (y, x) of grey values, and labels (y, x): 0 is background, each nucleus has a number of its own

    Examples
    --------
    >>> image, labels = nuclei((64, 64), seed=1)
    >>> image.dtype.name, labels.shape
    ('uint16', (64, 64))
    """
    start = (origin[0] - _MARGIN, origin[1] - _MARGIN)
    light, labels = _drawn(start, (shape[0] + 2 * _MARGIN, shape[1] + 2 * _MARGIN), seed)
    spread = ndimage.gaussian_filter(light, 1.3) + 0.06 * ndimage.gaussian_filter(light, 11.0)
    inner = (slice(_MARGIN, _MARGIN + shape[0]), slice(_MARGIN, _MARGIN + shape[1]))
    return _noisy(spread[inner] + _background(shape, origin), origin, seed), labels[inner]


def separated(labels: NDArray[np.uint32]) -> NDArray[np.uint8]:
    """Return classes for labels: 1 in a nucleus, 0 elsewhere and on a thin border between touching ones.

    Examples
    --------
    >>> separated(np.array([[1, 1, 1, 2, 2, 0]], np.uint32))
    array([[1, 1, 0, 0, 1, 0]], dtype=uint8)
    """
    cross = ndimage.generate_binary_structure(2, 1)
    highest = ndimage.maximum_filter(labels, footprint=cross)
    everything = np.iinfo(labels.dtype).max
    lowest = ndimage.minimum_filter(np.where(labels == 0, everything, labels), footprint=cross)
    alone: NDArray[np.bool_] = (labels > 0) & (highest == lowest)
    return alone.astype(np.uint8)


def _drawn(
    start: tuple[int, int], shape: tuple[int, int], seed: int
) -> tuple[NDArray[np.float64], NDArray[np.uint32]]:
    """Return the light of all nuclei in a window, and their labels."""
    light = np.zeros(shape)
    labels = np.zeros(shape, np.uint32)
    rows, columns = (
        range(max((a - _CELL) // _CELL, 0), (a + n + _CELL) // _CELL + 1)
        for a, n in zip(start, shape, strict=True)
    )
    for row in rows:
        for column in columns:
            for nucleus in _cell(row, column, seed):
                _draw(nucleus, start, light, labels)
    return light, labels


def _cell(row: int, column: int, seed: int) -> list[_Nucleus]:
    """Return the nuclei of one cell of the grid."""
    rng = np.random.default_rng([seed, row, column])
    # Dense and sparse parts, as where cells have grown in colonies.
    crowded = 0.72 + 0.25 * np.sin(row / 7.0 + seed) * np.cos(column / 9.0)
    if rng.random() > crowded:
        return []
    number = (row << 17) + (column << 1) + 1
    first = _random(
        rng, number, _CELL * (row + rng.uniform(0.05, 0.95)), _CELL * (column + rng.uniform(0.05, 0.95))
    )
    if rng.random() > 0.2:
        return [first]
    direction = rng.uniform(0, 2 * np.pi)
    apart = 0.97 * sum(first.radii)
    y, x = first.centre[0] + apart * np.sin(direction), first.centre[1] + apart * np.cos(direction)
    return [first, _random(rng, number + 1, y, x)]


def _random(rng: np.random.Generator, number: int, y: float, x: float) -> _Nucleus:
    """Return a nucleus of random shape and brightness at a place."""
    long = float(np.clip(rng.normal(14.5, 2.6), 7.0, 21.0))
    waves = np.stack(
        [
            rng.normal(0, 0.45, 6),
            rng.normal(0, 0.45, 6),
            rng.uniform(0, 2 * np.pi, 6),
            rng.uniform(0.02, 0.08, 6),
        ],
        axis=1,
    )
    return _Nucleus(
        number=number,
        centre=(y, x),
        radii=(long, long * rng.uniform(0.6, 0.95)),
        angle=rng.uniform(0, np.pi),
        wobble=(rng.uniform(0, 0.07), rng.uniform(0, 2 * np.pi)),
        brightness=float(480 * np.exp(rng.normal(0, 0.35))),
        waves=waves,
    )


def _draw(
    nucleus: _Nucleus, start: tuple[int, int], light: NDArray[np.float64], labels: NDArray[np.uint32]
) -> None:
    """Add one nucleus to a window; where two overlap the first keeps the label."""
    box = [
        (max(int(c) - nucleus.reach - a, 0), min(int(c) + nucleus.reach + 1 - a, n))
        for c, a, n in zip(nucleus.centre, start, light.shape, strict=True)
    ]
    if any(first >= last for first, last in box):
        return
    part = tuple(slice(first, last) for first, last in box)
    y, x = (
        np.arange(first, last) + a - c for (first, last), a, c in zip(box, start, nucleus.centre, strict=True)
    )
    down, along = y[:, np.newaxis], x[np.newaxis, :]
    cos, sin = np.cos(nucleus.angle), np.sin(nucleus.angle)
    u, v = (cos * down + sin * along) / nucleus.radii[0], (cos * along - sin * down) / nucleus.radii[1]
    amount, phase = nucleus.wobble
    distance = np.hypot(u, v) * (1 + amount * np.cos(3 * np.arctan2(v, u) + phase))
    inside = distance < 1
    texture = 1.06 - 0.16 * distance**2
    for wave_y, wave_x, shift, amplitude in nucleus.waves:
        texture += amplitude * np.cos(wave_y * down + wave_x * along + shift)
    light[part] = np.where(inside, np.maximum(light[part], nucleus.brightness * texture), light[part])
    labels[part] = np.where(inside & (labels[part] == 0), nucleus.number, labels[part])


def _background(shape: tuple[int, int], origin: tuple[int, int]) -> NDArray[np.float64]:
    """Return uneven illumination of the background, over thousands of pixels."""
    y, x = (np.arange(a, a + n) for a, n in zip(origin, shape, strict=True))
    return 150 + 25 * np.sin(y / 900)[:, np.newaxis] * np.cos(x / 1300)[np.newaxis, :]


def _noisy(expected: NDArray[np.float64], origin: tuple[int, int], seed: int) -> NDArray[np.uint16]:
    """Return counts for expected light: shot noise of 1 photon per 2 counts, and the camera's own."""
    noisy = np.empty(expected.shape, np.uint16)
    for row in range(0, expected.shape[0], _NOISE_BLOCK):
        for column in range(0, expected.shape[1], _NOISE_BLOCK):
            block = expected[row : row + _NOISE_BLOCK, column : column + _NOISE_BLOCK]
            rng = np.random.default_rng([seed, 1, origin[0] + row, origin[1] + column])
            counts = 2.0 * rng.poisson(block / 2) + rng.normal(0, 5, block.shape)
            noisy[row : row + _NOISE_BLOCK, column : column + _NOISE_BLOCK] = np.clip(counts, 0, 65535)
    return noisy
