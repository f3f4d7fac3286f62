"""What is known of a network of others: all of it was measured, nothing was declared."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from unet_dask.errors import ModelError
from unet_dask.model.step import product
from unet_dask.tiling.valid import Context

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from unet_dask.model.step import Sides, Step

#: By which a header tells networks of others from ours.
ARCHITECTURE = "onnx"
#: What the output of a network of others is, by name.
SOFTMAX, SIGMOID, SHARES, INDEPENDENT = "softmax", "sigmoid", "shares", "independent"
#: Heads whose channels do not exclude each other: background is what none of them claims.
_OPEN = (SIGMOID, INDEPENDENT)
#: Most that two ways to cut an image may differ, relative to the largest number, or to 1: rounding.
TOLERANCE = 1e-5
#: Most pixels that a halo or a lattice may have; beyond, a network is taken to look at the whole image.
_MOST = 1 << 14


@dataclass(frozen=True, slots=True)
class MeasuredSpec:
    """A network whose inside is not known.

    Attributes
    ----------
    dims : spatial dimensions, 2 or 3
    channels : of the image
    classes : of the result, background included
    head : what its output is: "softmax" or "sigmoid", logits of classes that exclude each other or do not; "shares" or
        "independent", the probabilities of such
    halo : what is cropped of a tile at each end, per spatial axis: its reach and a margin, a multiple of the lattice
    stride : period of its lattice per spatial axis
    slack : what the size of a tile is more than a multiple of the lattice, per spatial axis
    offset : pixel of the tile that the first of the output lies on, per spatial axis; 0 if it pads
    reach : pixels on each side that the measurement saw it depend on, per spatial axis
    flop_per_pixel : floating-point operations per pixel of the tile
    alive_per_pixel : numbers that are alive at once
    largest_per_pixel : numbers of the largest feature map
    parameters : weights
    assumed : whether the head was not said by anybody, and is what such outputs usually are
    declared : halo that its author declares, if that is another
    """

    dims: int
    channels: int
    classes: int
    head: str
    halo: tuple[int, ...]
    stride: tuple[int, ...]
    slack: tuple[int, ...]
    offset: tuple[int, ...]
    reach: tuple[int, ...]
    flop_per_pixel: float
    alive_per_pixel: float
    largest_per_pixel: float
    parameters: int
    assumed: bool = False
    declared: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        whole = all(
            len(along) == self.dims and all(type(each) is int and abs(each) <= _MOST for each in along)
            for along in (self.halo, self.stride, self.slack, self.offset, self.reach)
        )
        sound = (
            whole
            and self.dims in (2, 3)
            and self.head in (SOFTMAX, SIGMOID, SHARES, INDEPENDENT)
            and 1 <= self.channels <= 512
            and 2 <= self.classes <= 255
            and min(self.flop_per_pixel, self.alive_per_pixel, self.largest_per_pixel) > 0
            and all(
                stride >= 1 and 0 <= slack < stride and halo >= max(reach, 0) and halo % stride == 0
                for halo, stride, slack, reach in zip(
                    self.halo, self.stride, self.slack, self.reach, strict=True
                )
            )
        )
        if not sound:
            raise ModelError(f"The record of a measured network is damaged: {self}. Measure it again.")

    @property
    def contexts(self) -> tuple[Context, ...]:
        """What the network consumes along each spatial axis."""
        return tuple(map(Context, self.halo, self.stride, self.slack))

    @property
    def steps(self) -> tuple[Step, ...]:
        """None: it is run as a whole."""
        return ()

    @property
    def tells_lattice(self) -> bool:
        """Whether its halo tells its lattice."""
        return False

    @property
    def foreign(self) -> bool:
        """Whether it is a network of others."""
        return True

    @property
    def padded(self) -> bool:
        """Whether it makes as many pixels as it is given, and so makes some up."""
        return min(self.offset) <= 0

    @property
    def open_ended(self) -> bool:
        """Whether its channels do not exclude each other."""
        return self.head in _OPEN

    @property
    def text(self) -> str:
        """What it is, for people."""
        size = "as large as" if self.padded else "smaller than"
        return (
            f"{self.dims}-D network of others (ONNX), {self.parameters:,} weights, {self.channels} in, "
            f"{self.classes} classes ({self.head}), output {size} its input; measured reach "
            f"{' x '.join(map(str, self.reach))}"
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know before she trusts a result."""
        found = []
        if self.padded:
            found.append(
                f"the network pads images itself, most often with zeros; here it sees their mirror images beyond the "
                f"border, so up to "
                f"{max(self.reach)} pixels from the border of the volume values differ from those of its author's "
                "program"
            )
        if self.declared:
            found.append(
                f"its author declares a halo of {' x '.join(map(str, self.declared))}; the measured one is used"
            )
        if self.assumed:
            kind = "a sigmoid" if self.open_ended else "a softmax"
            found.append(f"its output is not of probabilities, and is taken for what {kind} is made of")
        return tuple(found)

    def flop(self, sides: Sequence[Sides]) -> Sides:
        """Return the floating-point operations of one pass over a tile."""
        return _times(self.flop_per_pixel, sides)

    def alive(self, sides: Sequence[Sides]) -> Sides:
        """Return the most numbers that are alive at once during a pass."""
        return _times(self.alive_per_pixel, sides)

    def largest(self, sides: Sequence[Sides]) -> Sides:
        """Return the numbers of the largest array of a pass."""
        return _times(self.largest_per_pixel, sides)

    def record(self) -> dict[str, object]:
        """Return the fields that are written, by name."""
        return {
            "architecture": ARCHITECTURE,
            **{each.name: getattr(self, each.name) for each in fields(self)},
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> MeasuredSpec:
        """Read what :meth:`record` wrote.

        Raises
        ------
        ModelError
            If it is damaged.
        """
        known = {each.name for each in fields(cls)}
        if set(record) != known | {"architecture"}:
            raise ModelError("The record of a measured network is damaged or of another version.")
        values: dict[str, Any] = {
            name: tuple(record[name]) if isinstance(record[name], list) else record[name] for name in known
        }
        return cls(**values)


def _times(per_pixel: float, sides: Sequence[Sides]) -> Sides:
    """Return a figure of a tile, given that of a pixel."""
    of_tile: Sides = per_pixel * product(sides)  # type: ignore[assignment] # a float among arrays of them
    return of_tile
