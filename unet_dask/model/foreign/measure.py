"""A network of others, measured: what it looks at, what it takes, and the proof that tiles of it do not show.

First reach and lattice along each axis (`reach`). A margin is added, and then they are put to the test: images of
several kinds are run long and cut short on the lattice, and where the short one has its whole context the two must be
the same. What fails is refused. A second test, of the same kind, is made of the user's own data when a run begins
(`engine.dependence`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from unet_dask.errors import ModelError
from unet_dask.model.foreign import heads
from unet_dask.model.foreign.graph import Session, declared_sides, parsed, sized, usable
from unet_dask.model.foreign.prices import prices
from unet_dask.model.foreign.reach import Along, together
from unet_dask.model.foreign.sizes import Trial, sizes_along
from unet_dask.model.foreign.spec import TOLERANCE, MeasuredSpec
from unet_dask.model.foreign.twin import twin
from unet_dask.tiling.valid import aligned

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from unet_dask.model.foreign.prices import Prices
    from unet_dask.model.foreign.sizes import Sizes

#: Pixels that a halo has beyond the reach that was seen.
MARGIN = 2
#: Operations that take something of a whole image, named where one is refused.
_OF_WHOLE = (
    *("InstanceNormalization", "GroupNormalization", "LayerNormalization", "MeanVarianceNormalization"),
    *(
        "GlobalAveragePool",
        "GlobalMaxPool",
        "ReduceMean",
        "ReduceMax",
        "ReduceSum",
        "MatMul",
        "Einsum",
        "Attention",
    ),
)


def measured(data: bytes, *, head: str = "", declared: Sequence[int] = ()) -> tuple[bytes, MeasuredSpec]:
    """Return a graph whose sizes are free, and what was measured of it.

    Parameters
    ----------
    data : of the ONNX file
    head : "sigmoid" or "softmax" if its author says what makes probabilities of its output, "" if he does not
    declared : halo that its author declares, () if none

    Raises
    ------
    ModelError
        If it is no network that can be cut into tiles; the message says why.
    OptionError
        If what runs it is not installed.
    """
    graph, dims, channels = usable(data)
    network = Session(graph)
    trial = Trial(network, channels)
    first = trial.first(dims, declared_sides(data))
    sizes = [sizes_along(trial, first, axis) for axis in range(dims)]
    cost = _priced(graph, channels, sizes)
    found = _twin(graph, cost, channels, first)
    try:
        seen = [Along(network, found, channels, sizes, axis).measure() for axis in range(dims)]
    except ModelError as error:
        raise ModelError(f"{error}{_of_whole(graph)}. Use a network without such layers.") from error
    reach, stride = together(seen, sizes)
    slack = tuple(each.rest for each in sizes)
    offset = tuple(each.lost // 2 for each in sizes)
    halo = tuple(
        aligned(max(look, off, 0) + MARGIN, step)
        for look, off, step in zip(reach, offset, stride, strict=True)
    )
    said, classes = heads.found(_samples(network, channels, sizes), head)
    spec = MeasuredSpec(
        dims=dims,
        channels=channels,
        classes=classes,
        head=said,
        halo=halo,
        stride=stride,
        slack=slack,
        offset=offset,
        reach=reach,
        flop_per_pixel=cost.flop,
        alive_per_pixel=cost.alive,
        largest_per_pixel=cost.largest,
        parameters=cost.parameters,
        assumed=not head and said in heads.OF_LOGITS,
        declared=tuple(declared) if declared and tuple(declared) != halo else (),
    )
    for axis in range(dims):
        _prove(network, spec, sizes, axis)
    return graph, spec


def _priced(graph: bytes, channels: int, sizes: Sequence[Sizes]) -> Prices:
    small = [each.at_least(each.lost + 16) for each in sizes]
    # A whole number of any lattice further, so that all maps grow by whole pixels.
    large = [
        side + each.period * (64 if each.period % 3 else 48) // 2
        for side, each in zip(small, sizes, strict=True)
    ]
    return prices(graph, channels, small, large)


def _twin(graph: bytes, cost: Prices, channels: int, first: Sequence[int]) -> Session | None:
    """Return the positive twin; None if it does not run, because constants within it are sizes after all."""
    try:
        found = twin(graph, cost.images)
        found.run(sized(first, channels))
    except ModelError:
        return None
    return found


def _of_whole(graph: bytes) -> str:
    """Return which operations of a graph may be the reason, in brackets."""
    names = sorted({node.op_type for node in parsed(graph).graph.node} & set(_OF_WHOLE))
    return f" (it has {', '.join(names)})" if names else ""


def _samples(network: Session, channels: int, sizes: Sequence[Sizes]) -> Iterator[NDArray[np.float32]]:
    """Yield what the network makes of images of several kinds."""
    shape = [each.at_least(each.lost + 32) for each in sizes]
    for image in kinds(channels, shape):
        yield network.run(image)


def kinds(channels: int, shape: Sequence[int]) -> Iterator[NDArray[np.float32]]:
    """Yield images of several kinds: noise, grey values of a camera, one half bright, and sparse spots."""
    random = np.random.default_rng(1)
    noise = random.standard_normal((channels, *shape)).astype(np.float32)
    yield noise
    yield random.integers(0, 256, noise.shape).astype(np.float32)
    half = noise * np.float32(0.1)
    half[..., : shape[-1] // 2] += 5
    half[:, : shape[0] // 3] -= 3
    yield half
    yield np.where(noise > 2.5, 8 * noise, 0).astype(np.float32)


def _prove(network: Session, spec: MeasuredSpec, sizes: Sequence[Sizes], axis: int) -> None:
    """Raise unless images that are cut along an axis give the same.

    The others are thin, and the same in both.
    """
    step, halo = spec.stride[axis], spec.halo[axis]
    tile = aligned(max(step, 8), step) + 2 * halo + spec.slack[axis]
    more = aligned(max(halo, 16), step)
    shape = [each.at_least(each.lost + 8) for each in sizes]
    shape[axis] = sizes[axis].at_least(tile + 2 * more)
    for image in kinds(spec.channels, shape):
        whole = network.run(image)
        for start in (more, more + step):
            place = [slice(None)] * len(shape)
            place[axis] = slice(start, start + tile)
            part = network.run(image[(slice(None), *place)])
            off = difference(whole, part, spec, axis, start, tile)
            if not off <= TOLERANCE:
                raise ModelError(
                    f"It was measured to look {spec.reach[axis]} pixels far on a lattice of {step} along axis {axis}, "
                    f"but cut like that it gives other values, by {off:.1e} of the largest{_of_whole(network.data)}: "
                    "its tiles would show. Use a network without layers that look at the whole image."
                )


def difference(
    whole: NDArray[np.float32],
    part: NDArray[np.float32],
    spec: MeasuredSpec,
    axis: int,
    start: int,
    tile: int,
) -> float:
    """Return how far two outputs differ where both have their context, relative to the largest number.

    Parameters
    ----------
    whole : of a long image
    part : of its part from `start` on, `tile` long along the axis
    spec : measured
    axis : along which it was cut
    """
    first, count = spec.halo[axis] - spec.offset[axis], tile - 2 * spec.halo[axis]
    here = [slice(None)] * part.ndim
    there = list(here)
    here[axis + 1] = slice(first, first + count)
    there[axis + 1] = slice(start + first, start + first + count)
    one, other = whole[tuple(there)], part[tuple(here)]
    if one.shape != other.shape or not one.size:
        return float("inf")
    scale = max(1.0, float(np.abs(one).max()))
    return float(np.abs(one - other).max()) / scale
