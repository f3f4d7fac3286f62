"""A network as a list of steps, from which everything else about it follows.

The image goes through the steps in order; what `keep` puts aside comes back in `join` or `add`, last in, first out.
Sizes, context, lattice, parameters, operations, memory, the torch module, streaming and eight-bit integers are folds
over the list: small functions that walk it once. Those of geometry are here, those of price in `model.cost`.

A new architecture is a function from a :class:`NetworkSpec` to its steps, and a line in :data:`ARCHITECTURES`. What the
strip engine does not know is run in whole tiles, with its memory planned all the same.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from unet_dask.errors import ModelError
from unet_dask.model.step import Kind
from unet_dask.model.unet import unet
from unet_dask.tiling.valid import Context

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from unet_dask.model.header import NetworkSpec
    from unet_dask.model.step import Step

#: Makes the steps of a network, by the name that a model file gives.
ARCHITECTURES: dict[str, Callable[[NetworkSpec], Iterable[Step]]] = {"unet": unet}


@lru_cache(maxsize=256)
def steps(spec: NetworkSpec) -> tuple[Step, ...]:
    """Return the steps of a network, in the order of a pass.

    Raises
    ------
    ModelError
        If its architecture yields steps that do not fit each other.
    """
    made = tuple(ARCHITECTURES[spec.architecture](spec))
    _require_fitting(made, spec)
    for axis in range(spec.dims):
        _context(made, axis)
        _margins(made, axis)
    return made


def parameter_count(spec: NetworkSpec) -> int:
    """Return the number of weights and biases, batch normalisation left out (it is folded).

    Examples
    --------
    >>> from unet_dask.model.header import NetworkSpec
    >>> parameter_count(NetworkSpec(channels=1, classes=2))
    31030658
    """
    return sum(step.filters + step.outgoing for step in steps(spec) if step.has_filters)


@lru_cache(maxsize=256)
def contexts(spec: NetworkSpec) -> tuple[Context, ...]:
    """Return what a network consumes along each spatial axis.

    Examples
    --------
    >>> from unet_dask.model.header import NetworkSpec
    >>> contexts(NetworkSpec(depth=4))[0]  # Fig. 1 of the paper: 572 - 388 = 2 * 92
    Context(halo=92, stride=16, slack=4)
    >>> contexts(NetworkSpec(dims=3, depth=2, factors=((1, 2, 2), (2, 2, 2))))[0]
    Context(halo=12, stride=2, slack=0)
    """
    return tuple(_context(steps(spec), axis) for axis in range(spec.dims))


def margins(spec: NetworkSpec) -> list[tuple[int, ...]]:
    """Return what is cropped at each end of what is kept (paper, N2), in the order in which it is kept.

    Returns
    -------
    per spatial axis, in pixels of the level

    Examples
    --------
    >>> from unet_dask.model.header import NetworkSpec
    >>> margins(NetworkSpec(depth=4))  # 568 -> 392, 280 -> 200, 136 -> 104, 64 -> 56 in Fig. 1
    [(88, 88), (40, 40), (16, 16), (4, 4)]
    """
    return list(zip(*(_margins(steps(spec), axis) for axis in range(spec.dims)), strict=True))


def _along(of: Iterable[Step], axis: int) -> Iterator[tuple[Step, int, int]]:
    """Yield every step with the scale of what it makes and what was shaved off each side so far, in image pixels.

    A convolution shaves half of its filter off each side, in pixels of its level.
    """
    scale, shaved = 1, 0
    for step in of:
        size = step.size[axis]
        if step.kind is Kind.CONVOLVE:
            shaved += scale * (size // 2)
        elif step.kind is Kind.POOL:
            scale *= size
        elif step.kind is Kind.UP:
            if scale % size:
                raise ModelError(f"There is no pooling to which {step} leads back.")
            scale //= size
        yield step, scale, shaved


def _context(of: Iterable[Step], axis: int) -> Context:
    """Return what the steps consume along an axis.

    Poolings must see whole windows (N4), which fixes the size of the input modulo the stride.
    """
    pooled, end, halo = [(1, 0)], 1, 0
    for step, scale, shaved in _along(of, axis):
        end, halo = scale, shaved
        if step.kind is Kind.POOL:
            pooled.append((scale, shaved))
    stride, before = max(pooled, key=lambda pooling: pooling[0])
    if end != 1 or any(2 * (before - shaved) % scale for scale, shaved in pooled):
        raise ModelError("The poolings of the architecture do not lead back to the size of the image.")
    return Context(halo, stride, 2 * (before - halo) % stride)


def _margins(of: Iterable[Step], axis: int) -> list[int]:
    waiting: list[tuple[int, int, int]] = []
    found: dict[int, int] = {}
    for number, (step, scale, shaved) in enumerate(_along(of, axis)):
        if step.kind is Kind.KEEP:
            waiting.append((number, scale, shaved))
        elif step.takes_back:
            when, of_kept, then = waiting.pop()
            if of_kept != scale:
                raise ModelError(f"What was kept has another level than {step}.")
            found[when] = (shaved - then) // scale
    return [found[number] for number in sorted(found)]


def _require_fitting(made: Iterable[Step], spec: NetworkSpec) -> None:
    """Raise unless the channels lead from the image to the output, and what is kept has those that are taken back."""
    channels, kept = spec.channels, list[int]()
    for step in made:
        fits = step.incoming == channels and len(step.size) == spec.dims
        if step.kind is Kind.CONVOLVE:
            fits &= all(size % 2 for size in step.size)
        elif step.kind is Kind.KEEP:
            kept.append(channels)
        elif step.takes_back:
            taken = step.outgoing - step.incoming if step.kind is Kind.JOIN else step.outgoing
            fits &= bool(kept) and kept.pop() == taken
        if not fits:
            raise ModelError(f"The architecture {spec.architecture} has a step that does not fit: {step}.")
        channels = step.outgoing
    if channels != spec.classes or kept:
        raise ModelError(f"The architecture {spec.architecture} does not end in {spec.classes} classes.")
