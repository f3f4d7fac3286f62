"""The U-Net of 2015 as a list of steps, in two and three dimensions.

References
----------
.. [1] Ronneberger, Fischer, Brox: "U-Net: Convolutional Networks for Biomedical Image Segmentation",
   MICCAI 2015, section 2 and Fig. 1.
.. [2] Cicek, Abdulkadir, Lienkamp, Brox, Ronneberger: "3D U-Net", MICCAI 2016, for the third dimension.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from unet_dask.model.step import Kind, Step

if TYPE_CHECKING:
    from collections.abc import Iterator

    from unet_dask.model.header import NetworkSpec


def unet(spec: NetworkSpec) -> Iterator[Step]:
    """Yield the steps of the network, in the order of a pass.

    Examples
    --------
    >>> from unet_dask.model.header import NetworkSpec
    >>> sum(step.has_filters for step in unet(NetworkSpec()))  # "In total the network has 23 convolutional layers."
    23
    """
    one, channels = (1,) * spec.dims, spec.channels
    for level in range(spec.depth + 1):  # contracting path: 64, 128, 256, 512, 1024 channels (N1)
        width = spec.width << level
        yield from _two_convolutions(channels, width, level, f"contracting.{level}", spec.dims)
        if level >= spec.depth - 1:  # section 3.1: "Drop-out layers at the end of the contracting path"
            yield Step(Kind.DROP, width, width, level, one, "dropout")
        if level < spec.depth:
            yield Step(Kind.KEEP, width, width, level, one)
            yield Step(Kind.POOL, width, width, level + 1, spec.poolings[level])
        channels = width
    for number, level in enumerate(reversed(range(spec.depth))):  # expansive path (N2)
        width = spec.width << level
        yield Step(Kind.UP, 2 * width, width, level, spec.poolings[level], f"up.{number}")
        yield Step(Kind.JOIN, width, 2 * width, level, one)
        yield from _two_convolutions(2 * width, width, level, f"expansive.{number}", spec.dims)
    yield Step(Kind.HEAD, spec.width, spec.classes, 0, one, "classify")  # (N3)


def _two_convolutions(channels: int, width: int, level: int, name: str, dims: int) -> Iterator[Step]:
    """Yield two unpadded convolutions 3 wide, each followed by a ReLU (N1)."""
    for incoming in (channels, width):
        yield Step(Kind.CONVOLVE, incoming, width, level, (3,) * dims, name)
