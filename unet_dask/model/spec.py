"""What planning and running ask of a network, whoever made it.

A network of ours is a list of steps (`model.layers`), from which all of this follows; of one of others it was measured
(`model.foreign`). Nothing beyond `model` has to know which it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from unet_dask.model.step import Sides, Step
    from unet_dask.tiling.valid import Context


class Spec(Protocol):
    """A network without its weights."""

    @property
    def dims(self) -> int:
        """Spatial dimensions, 2 or 3."""
        ...

    @property
    def channels(self) -> int:
        """Channels of the image."""
        ...

    @property
    def classes(self) -> int:
        """Classes of the result, background included."""
        ...

    @property
    def head(self) -> str:
        """What it makes, by name, see `engine.infer.ACTIVATIONS`."""
        ...

    @property
    def contexts(self) -> tuple[Context, ...]:
        """What it consumes along each spatial axis."""
        ...

    @property
    def halo(self) -> tuple[int, ...]:
        """Context consumed per side and spatial axis, in pixels."""
        ...

    @property
    def stride(self) -> tuple[int, ...]:
        """Period of its lattice per spatial axis, in pixels."""
        ...

    @property
    def slack(self) -> tuple[int, ...]:
        """Pixels computed beyond a core on the lattice, per spatial axis."""
        ...

    @property
    def steps(self) -> tuple[Step, ...]:
        """What it does, in the order of a pass; () where that is not known."""
        ...

    @property
    def parameters(self) -> int:
        """Weights and biases."""
        ...

    @property
    def foreign(self) -> bool:
        """Whether it is a network of others, which ONNX Runtime runs, in float32 on a CPU."""
        ...

    @property
    def tells_lattice(self) -> bool:
        """Whether its halo tells its lattice."""
        ...

    @property
    def text(self) -> str:
        """What it is, for people."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know before she trusts a result."""
        ...

    def flop(self, sides: Sequence[Sides]) -> Sides:
        """Return the floating-point operations of one pass over a tile."""
        ...

    def alive(self, sides: Sequence[Sides]) -> Sides:
        """Return the most numbers that are alive at once during a pass."""
        ...

    def largest(self, sides: Sequence[Sides]) -> Sides:
        """Return the numbers of the largest array of a pass."""
        ...

    def record(self) -> dict[str, object]:
        """Return what a header says of it."""
        ...
