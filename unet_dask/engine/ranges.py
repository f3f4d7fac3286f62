"""How far the feature maps of a network reach: the smallest and the largest value of each, on given images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Iterable

    from unet_dask.model.header import NetworkSpec
    from unet_dask.model.unet import UNet

#: Smallest and largest value of each feature map, in the order in which a pass makes them: after each ReLU and each
#: up-convolution.
Ranges = tuple[tuple[float, float], ...]


class BeyondRangesError(Exception):
    """A feature map reaches beyond the ranges with which a network of bytes was made: it would be cut off."""


def feature_ranges(network: UNet, image: Tensor) -> Ranges:
    """Return the ranges of one pass.

    Parameters
    ----------
    network : in evaluation mode
    image : (b, channels, *space), normalised
    """
    found: list[tuple[float, float]] = []

    def look(_: nn.Module, __: tuple[Tensor, ...], made: Tensor) -> None:
        low, high = made.aminmax()
        found.append((float(low), float(high)))

    watched = (nn.ReLU, nn.ConvTranspose2d, nn.ConvTranspose3d)
    hooks = [each.register_forward_hook(look) for each in network.modules() if isinstance(each, watched)]
    try:
        network(image)
    finally:
        for hook in hooks:
            hook.remove()
    return tuple(found)


def widest(several: Iterable[Ranges]) -> Ranges:
    """Return the ranges that hold all of several.

    Examples
    --------
    >>> widest([((0.0, 2.0), (-1.0, 1.0)), ((0.0, 1.0), (-3.0, 0.0))])
    ((0.0, 2.0), (-3.0, 1.0))
    """
    spans = zip(*several, strict=True)
    return tuple((min(low for low, _ in each), max(high for _, high in each)) for each in spans)


def count(spec: NetworkSpec) -> int:
    """Return the feature maps whose range is measured: two of each double convolution, one of each up-convolution.

    Examples
    --------
    >>> from unet_dask.model.header import NetworkSpec
    >>> count(NetworkSpec(depth=4))
    22
    """
    return 2 * (2 * spec.depth + 1) + spec.depth
