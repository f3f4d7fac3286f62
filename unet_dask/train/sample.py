"""Draw training patches for a network of valid convolutions.

The network consumes a halo, so a patch is an input tile with the target of its central part only. Where a
patch reaches beyond the image, image, target and weight map are mirrored alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from unet_dask.errors import InputError, OptionError
from unet_dask.tiling import valid
from unet_dask.train.augment import vary_grey
from unet_dask.train.elastic import affine, coordinates, displacements, look_up

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from unet_dask.train.config import TrainConfig

#: Share of the core that a patch may lie beyond the image, so that pixels at its border are seen too.
_BEYOND = 0.25
#: Patches drawn in the hope of an annotated pixel, before giving up.
_ATTEMPTS = 100


@dataclass(frozen=True, slots=True)
class TrainingImage:
    """One image, ready to draw patches from.

    Attributes
    ----------
    name : for messages
    image : (c, *spatial) float32, normalised
    target : (*spatial) uint8 classes
    weight_map : (*spatial) float32, 0 where unknown
    """

    name: str
    image: NDArray[np.float32]
    target: NDArray[np.uint8]
    weight_map: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Patch:
    """Input of the network with the target of what comes out.

    Attributes
    ----------
    image : (c, *input size) float32
    target : (*output size) int64
    weight_map : (*output size) float32
    """

    image: NDArray[np.float32]
    target: NDArray[np.int64]
    weight_map: NDArray[np.float32]


def tile_cores(config: TrainConfig, shapes: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """Return the side of a patch's core per axis, a multiple of ``2**depth``.

    Parameters
    ----------
    config : its `tile`, or where that is empty 384 in 2D and 40 in 3D, the sizes of the two papers
    shapes : spatial shapes of the images; a default tile is not larger than the largest of them

    Raises
    ------
    OptionError
        If a tile is not on the lattice.

    Examples
    --------
    >>> from unet_dask.train.config import TrainConfig
    >>> tile_cores(TrainConfig(), [(512, 200)])
    (384, 208)
    """
    step = valid.stride(config.depth)
    if config.tile:
        cores = config.tile * config.dims if len(config.tile) == 1 else config.tile
        for core in cores:
            if core < step or core % step:
                raise OptionError(
                    f"A training tile of {core} pixels is off the lattice of a network of depth "
                    f"{config.depth}. Use a multiple of {step}, such as {valid.aligned(max(core, 1), step)}."
                )
        return cores
    usual = valid.aligned(384 if config.dims == 2 else 40, step)
    return tuple(min(usual, valid.aligned(max(sides), step)) for sides in zip(*shapes, strict=True))


def draw_patch(
    images: Sequence[TrainingImage],
    rng: np.random.Generator,
    *,
    cores: Sequence[int],
    config: TrainConfig,
) -> Patch:
    """Draw one augmented patch that has at least one annotated pixel.

    Parameters
    ----------
    images : to draw from, each as likely as its size
    rng : source of randomness
    cores : side of the patch's core per axis, see :func:`tile_cores`
    config : augmentation

    Raises
    ------
    InputError
        If a hundred patches had no annotated pixel.
    """
    sizes = np.array([image.target.size for image in images], dtype=np.float64)
    for _ in range(_ATTEMPTS):
        image = images[int(rng.choice(len(images), p=sizes / sizes.sum()))]
        patch = _cut(image, rng, cores, config)
        if patch.weight_map.any():
            return patch
    raise InputError(
        f"{_ATTEMPTS} patches in a row had no annotated pixel. Annotate more, or use a larger tile."
    )


def _cut(image: TrainingImage, rng: np.random.Generator, cores: Sequence[int], config: TrainConfig) -> Patch:
    """Cut one patch at a random place and deform it."""
    sizes = [valid.input_size(core, config.depth) for core in cores]
    inner = tuple(
        slice(halo, size - halo)
        for halo, size in zip([valid.halo(config.depth)] * len(cores), sizes, strict=True)
    )
    at = coordinates(
        _centre(image.target.shape, cores, rng),
        affine(
            len(cores),
            np.deg2rad(rng.uniform(-config.rotation, config.rotation)),
            float(np.exp(rng.normal(0.0, config.scaling))),
        ),
        displacements(sizes, rng, sigma=config.elastic_sigma, grid=config.elastic_grid),
    )
    # Cubic keeps the sharpness that the network will meet; in 3D its 64 neighbours cost too much.
    order: Literal[1, 3] = 3 if len(cores) == 2 else 1
    found = np.stack([look_up(channel, at, order=order) for channel in image.image])
    central = at[(slice(None), *inner)]
    return Patch(
        vary_grey(
            found.astype(np.float32),
            rng,
            gain=config.gain,
            offset=config.offset,
            gamma=config.gamma,
            noise=config.noise,
        ),
        look_up(image.target, central, order=0).astype(np.int64),
        look_up(image.weight_map, central, order=0).astype(np.float32),
    )


def _centre(shape: Sequence[int], cores: Sequence[int], rng: np.random.Generator) -> tuple[float, ...]:
    """Draw the middle of a patch whose core lies in the image but for a quarter of its side."""
    middles: list[float] = []
    for side, core in zip(shape, cores, strict=True):
        beyond = core * _BEYOND
        low, high = core / 2 - beyond, side - core / 2 + beyond
        middles.append(float(rng.uniform(min(low, high), max(low, high))))
    return tuple(middles)
