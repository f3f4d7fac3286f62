"""Draw training patches for a network of valid convolutions.

The network consumes a halo, so a patch is an input tile with the target of its central part only. Where a
patch reaches beyond the image, image, target and weight map are mirrored alike.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

from unet_dask.errors import InputError, OptionError
from unet_dask.tiling.valid import aligned
from unet_dask.training.augment import blurred, emptied, vary_grey, vary_objects
from unet_dask.training.box import enclosing, folded, origin
from unet_dask.training.elastic import affine, coordinates, displacements, look_up

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from unet_dask.tiling.box import Window
    from unet_dask.training.config import TrainConfig

#: Share of the core that a patch may lie beyond the image, so that pixels at its border are seen too.
_BEYOND = 0.25
#: Pixels around a box that decide its cubic interpolation: the prefilter forgets by 0.27 a pixel, 1e-9 over these.
_SPLINE = 16
#: Patches drawn in the hope of an annotated pixel, before giving up.
_ATTEMPTS = 100


class Drawable(Protocol):
    """An image that patches can be drawn from, box by box."""

    @property
    def name(self) -> str:
        """For messages."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Pixels per spatial axis."""

    @property
    def channels(self) -> int:
        """Channels of the image."""

    def grey(self, box: Window) -> NDArray[np.float32]:
        """Return the normalised image in a box: (c, *box)."""

    def truth(self, box: Window) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Return classes and weight map in a box."""


@dataclass(frozen=True, slots=True)
class TrainingImage:
    """One image in memory, ready to draw patches from.

    Attributes
    ----------
    name : for messages
    image : (c, *spatial) float32, normalised
    target : (*spatial) uint8 classes
    weight_map : (*spatial) float32, 0 where unknown
    objects : (*spatial) int32, numbers of annotated instances, 0 for none; None if targets are classes, or nobody asks
    """

    name: str
    image: NDArray[np.float32]
    target: NDArray[np.uint8]
    weight_map: NDArray[np.float32]
    objects: NDArray[np.int32] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Pixels per spatial axis."""
        return self.target.shape

    @property
    def channels(self) -> int:
        """Channels of the image."""
        return len(self.image)

    def grey(self, box: Window) -> NDArray[np.float32]:
        """Return the normalised image in a box: (c, *box)."""
        return self.image[(slice(None), *box)]

    def truth(self, box: Window) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Return classes and weight map in a box."""
        return self.target[box], self.weight_map[box]


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
    """Return the side of a patch's core per axis, a multiple of the network's stride.

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
    >>> from unet_dask.training.config import TrainConfig
    >>> tile_cores(TrainConfig(), [(512, 200)])
    (384, 208)
    """
    steps = config.network().stride
    if config.tile:
        cores = config.tile * config.dims if len(config.tile) == 1 else config.tile
        for core, step in zip(cores, steps, strict=True):
            if core < step or core % step:
                raise OptionError(
                    f"A training tile of {core} pixels is off the lattice of a network of depth "
                    f"{config.depth}. Use a multiple of {step}, such as {aligned(max(core, 1), step)}."
                )
        return cores
    usual = 384 if config.dims == 2 else 40
    largest = (max(sides) for sides in zip(*shapes, strict=True))
    return tuple(aligned(min(usual, side), step) for side, step in zip(largest, steps, strict=True))


def draw_patch(
    images: Sequence[Drawable], rng: np.random.Generator, *, cores: Sequence[int], config: TrainConfig
) -> Patch:
    """Draw one augmented patch that has at least one annotated pixel.

    Parameters
    ----------
    images : to draw from, each as likely as its size, or as all others if the recipe says so
    rng : source of randomness
    cores : side of the patch's core per axis, see :func:`tile_cores`
    config : augmentation

    Raises
    ------
    InputError
        If a hundred patches had no annotated pixel.
    """
    sizes = np.array([_likely(image.shape, config) for image in images], dtype=np.float64)
    for _ in range(_ATTEMPTS):
        image = images[int(rng.choice(len(images), p=sizes / sizes.sum()))]
        patch = _cut(image, rng, cores, config)
        if patch is not None:
            return patch
    raise InputError(
        f"{_ATTEMPTS} patches in a row had no annotated pixel. Annotate more, or use a larger tile."
    )


def _likely(shape: Sequence[int], config: TrainConfig) -> int:
    return math.prod(shape) if config.drawn_by == "pixels" else 1


def _cut(
    image: Drawable, rng: np.random.Generator, cores: Sequence[int], config: TrainConfig
) -> Patch | None:
    """Cut one patch at a random place and deform it; None if nothing in it is annotated."""
    contexts = config.network().contexts
    sizes = [context.input_size(core) for context, core in zip(contexts, cores, strict=True)]
    inner = tuple(
        slice(context.halo, size - context.halo) for context, size in zip(contexts, sizes, strict=True)
    )
    at = folded(
        coordinates(
            _centre(image.shape, cores, rng),
            affine(
                len(cores),
                np.deg2rad(rng.uniform(-config.rotation, config.rotation)),
                float(np.exp(rng.normal(0.0, config.scaling))),
            ),
            displacements(sizes, rng, sigma=config.elastic_sigma, grid=config.elastic_grid),
        ),
        image.shape,
    )
    # The target first: where nobody annotated, the image need not be read.
    target, weight_map = _true(image, at[(slice(None), *inner)])
    if not weight_map.any():
        return None
    grey = _grey(image, at)
    if config.object_gain:
        grey = vary_objects(grey, _true(image, at)[0], rng, deviation=config.object_gain)
    if config.blur and rng.random() < 0.5:
        grey = blurred(grey, float(rng.uniform(0, config.blur)))
    if config.emptied and rng.random() < config.emptied:
        classes = _true(image, at)[0]
        grey = emptied(grey, classes > 0, rng)
        weight_map = np.where(target == 0, weight_map, weight_map[target == 0].min(initial=1.0))
        target = np.zeros_like(target)
    grey = vary_grey(
        grey, rng, gain=config.gain, offset=config.offset, gamma=config.gamma, noise=config.noise
    )
    return Patch(grey, target, weight_map)


def _true(image: Drawable, at: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Look up classes and weights of the nearest pixels."""
    nearest = np.rint(at)
    box = enclosing(nearest, image.shape)
    classes, weight_map = image.truth(box)
    nearest -= origin(box, nearest.ndim - 1)
    return (
        look_up(classes, nearest, order=0).astype(np.int64),
        look_up(weight_map, nearest, order=0).astype(np.float32),
    )


def _grey(image: Drawable, at: NDArray[np.float32]) -> NDArray[np.float32]:
    # Cubic keeps the sharpness that the network will meet; in 3D its 64 neighbours cost too much.
    order: Literal[1, 3] = 3 if len(at) == 2 else 1
    box = enclosing(at, image.shape, margin=_SPLINE if order == 3 else 1)
    values = image.grey(box)
    at -= origin(box, at.ndim - 1)
    return np.stack([look_up(channel, at, order=order) for channel in values]).astype(np.float32, copy=False)


def _centre(shape: Sequence[int], cores: Sequence[int], rng: np.random.Generator) -> tuple[float, ...]:
    """Draw the middle of a patch whose core lies in the image but for a quarter of its side."""
    middles: list[float] = []
    for side, core in zip(shape, cores, strict=True):
        beyond = core * _BEYOND
        low, high = core / 2 - beyond, side - core / 2 + beyond
        middles.append(float(rng.uniform(min(low, high), max(low, high))))
    return tuple(middles)
