"""What a newcomer writes: another architecture, of residual blocks. A line in `layers.ARCHITECTURES` registers it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unet_dask.model.step import Kind, Step

if TYPE_CHECKING:
    from collections.abc import Iterator

    from unet_dask.model.header import NetworkSpec


def residual(spec: NetworkSpec) -> Iterator[Step]:
    """Yield the steps of a U-Net whose levels add what their first convolution made to what the others make of it."""
    channels, one = spec.channels, (1,) * spec.dims
    for level in range(spec.depth + 1):
        width = spec.width << level
        yield from _block(channels, width, level, f"down{level}", spec.dims)
        if level < spec.depth:
            yield Step(Kind.KEEP, width, width, level, one)
            yield Step(Kind.POOL, width, width, level + 1, spec.poolings[level])
        channels = width
    for level in reversed(range(spec.depth)):
        width = spec.width << level
        yield Step(Kind.UP, 2 * width, width, level, spec.poolings[level], f"up{level}")
        yield Step(Kind.JOIN, width, 2 * width, level, one)
        yield from _block(2 * width, width, level, f"back{level}", spec.dims)
    yield Step(Kind.HEAD, spec.width, spec.classes, 0, one, "classify")


def _block(channels: int, width: int, level: int, name: str, dims: int) -> Iterator[Step]:
    yield Step(Kind.CONVOLVE, channels, width, level, (3,) * dims, f"{name}_first")
    yield Step(Kind.KEEP, width, width, level, (1,) * dims)
    yield Step(Kind.CONVOLVE, width, width, level, (3,) * dims, name)
    yield Step(Kind.CONVOLVE, width, width, level, (1,) * dims, name)
    yield Step(Kind.ADD, width, width, level, (1,) * dims)
