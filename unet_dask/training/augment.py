"""Grey-value variation (paper, section 3.1), in float and after normalisation.

The paper names robustness to "gray value variations" and no numbers; ours are small, and fields of
`TrainConfig`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from numpy.typing import NDArray


def vary_grey(
    image: NDArray[np.float32],
    rng: np.random.Generator,
    *,
    gain: float = 0.1,
    offset: float = 0.1,
    gamma: float = 0.1,
    noise: float = 0.0,
) -> NDArray[np.float32]:
    """Vary contrast, brightness and tone of a normalised patch at random.

    Parameters
    ----------
    image : (c, *spatial), with a mean of about 0 and a standard deviation of about 1
    rng : source of randomness
    gain : standard deviation of the logarithm of the contrast
    offset : standard deviation of the brightness, in standard deviations of the image
    gamma : standard deviation of the logarithm of the exponent, which acts between the patch's
        darkest and brightest value
    noise : upper end of the deviation of added Gaussian noise, itself drawn uniformly

    Returns
    -------
    new array of the same shape

    Examples
    --------
    >>> patch = np.zeros((1, 4, 4), np.float32)
    >>> vary_grey(patch, np.random.default_rng(0), gain=0, offset=0, gamma=0).max()
    np.float32(0.0)
    """
    channels = (image.shape[0], *(1,) * (image.ndim - 1))
    exponent = np.exp(rng.normal(0.0, gamma))
    contrast = np.exp(rng.normal(0.0, gain, channels)).astype(np.float32)
    brightness = rng.normal(0.0, offset, channels).astype(np.float32)
    deviation = rng.uniform(0.0, noise)
    varied = image
    span = float(image.max() - image.min())
    if gamma and span > 0:
        lowest = image.min()
        varied = ((image - lowest) / np.float32(span)) ** np.float32(exponent) * np.float32(span) + lowest
    varied = varied * contrast + brightness
    if noise:
        varied = varied + rng.standard_normal(image.shape, dtype=np.float32) * np.float32(deviation)
    return varied.astype(np.float32, copy=False)


def blurred(image: NDArray[np.float32], deviation: float) -> NDArray[np.float32]:
    """Return a patch out of focus: under a Gaussian of so many pixels along every axis of space.

    Parameters
    ----------
    image : (c, *spatial)
    deviation : in pixels
    """
    return np.stack([ndimage.gaussian_filter(channel, deviation, mode="mirror") for channel in image])


def vary_objects(
    image: NDArray[np.float32], classes: NDArray[np.integer], rng: np.random.Generator, *, deviation: float
) -> NDArray[np.float32]:
    """Return a patch in which every object is brighter or darker than it was, each by a factor of its own.

    What is multiplied is the difference to the median of the background, so that no object gets an edge that it had
    not.

    Parameters
    ----------
    image : (c, *spatial)
    classes : (*spatial), 0 is background; pieces of the last class tell objects apart
    rng : source of randomness
    deviation : standard deviation of the logarithm of the factor

    Examples
    --------
    >>> row = np.array([[[0, 0, 2, 2, 0, 2, 2, 0, 0]]], np.float32)
    >>> varied = vary_objects(row, np.array([[0, 0, 1, 1, 0, 1, 1, 0, 0]]), np.random.default_rng(0), deviation=0.5)
    >>> bool((varied[row == 0] == 0).all() and varied[0, 0, 2] != varied[0, 0, 6])
    True
    """
    inside = classes > 0
    cores, count = ndimage.label(classes == classes.max()) if inside.any() else (classes, 0)
    if not count or inside.all():
        return image
    factor = np.exp(rng.normal(0.0, deviation, count + 1)).astype(np.float32)
    nearest = ndimage.distance_transform_edt(cores == 0, return_distances=False, return_indices=True)
    factors = np.where(inside, factor[cores[tuple(nearest)]], np.float32(1))
    factors = ndimage.gaussian_filter(factors, 1.0, mode="nearest")
    ground = np.median(image[:, ~inside], axis=1).reshape((-1,) + (1,) * classes.ndim)
    return (ground + (image - ground) * factors).astype(np.float32, copy=False)


#: Pixels around an object that its light reaches; they are painted over with it.
_GLOW = 4


def emptied(
    image: NDArray[np.float32], objects: NDArray[np.bool_], rng: np.random.Generator
) -> NDArray[np.float32]:
    """Return a patch without its objects, normalised by what is left.

    The grey values of background, drawn at random, take the place of an object and its glow. An empty field that is
    normalised by its own mean and deviation looks like that: noise of deviation 1.

    Parameters
    ----------
    image : (c, *spatial)
    objects : (*spatial), where they are
    rng : source of randomness

    Returns
    -------
    (c, *spatial) of mean 0 and standard deviation 1; the patch as it is if all of it is objects
    """
    covered = ndimage.binary_dilation(objects, iterations=_GLOW) if objects.any() else objects
    if covered.all():
        return image
    empty = image.copy()
    for channel in empty:
        background = channel[~covered]
        channel[covered] = rng.choice(background, int(covered.sum()))
        channel -= channel.mean()
        channel /= max(float(channel.std()), 1e-6)
    return empty
