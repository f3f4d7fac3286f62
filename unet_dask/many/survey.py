"""What many images are, found out before anything runs: how large each is, and what the largest takes."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from unet_dask.errors import InputError, UnetDaskError
from unet_dask.many.outcome import FAILED
from unet_dask.run.prepare import open_inputs, prepare

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Sequence

    from unet_dask.many.one import Order
    from unet_dask.many.outcome import Row
    from unet_dask.planning.plan import Plan
    from unet_dask.run.prepare import Inputs, Machine

#: Shapes of images that are named to people.
_NAMED = 4


@dataclass(frozen=True, slots=True)
class Survey:
    """What is known of many images.

    Attributes
    ----------
    alone : those of one region each, or none, which a worker does by itself
    shared : larger ones, of which all workers do a part
    unreadable : rows of those that cannot be opened, or not be segmented by this model
    largest : plan of the image that takes the most memory
    flop : operations of the network over all images
    shapes : of images, each with how many there are
    """

    alone: Sequence[Order]
    shared: Sequence[Order]
    unreadable: Sequence[Row]
    largest: Plan
    flop: float
    shapes: Counter[str]

    def to_json(self) -> dict[str, object]:
        """Return what is known for programs."""
        return {
            "images": len(self.alone) + len(self.shared),
            "unreadable": [row.to_json() for row in self.unreadable],
            "shapes": dict(self.shapes),
            "flop": self.flop,
            "largest": self.largest.to_json(),
        }

    def describe(self) -> Iterator[tuple[str, str]]:
        """Yield what all runs have in common, for people."""
        count = len(self.alone) + len(self.shared)
        most = ", ".join(f"{number} of {shape}" for shape, number in self.shapes.most_common(_NAMED))
        others = sum(self.shapes.values()) - sum(number for _, number in self.shapes.most_common(_NAMED))
        yield "images", f"{count}: {most}" + f", {others} of other sizes" * bool(others)
        if self.unreadable:
            yield "unreadable", f"{len(self.unreadable)} more, which are named in the end"
        shown = dict(self.largest.describe())
        for name in ("network", "memory", "objects", "precision"):
            if name in shown:
                yield name, shown[name] + " for the largest image" * (name == "memory")
        yield "work", f"{self.flop / 1e12:.2f} TFLOP"


def survey(orders: Sequence[Order], machine: Machine) -> Survey:
    """Look at every image; those of one kind are planned once.

    Parameters
    ----------
    orders : for the images
    machine : of whoever computes

    Raises
    ------
    InputError
        If not one of them can be segmented.
    """
    plans: dict[Hashable, Plan] = {}
    alone: list[Order] = []
    shared: list[Order] = []
    unreadable: list[Row] = []
    largest, flop, shapes = None, 0.0, Counter[str]()
    for order in orders:
        try:
            plan = _plan(order, machine, plans)
        except UnetDaskError as error:
            unreadable.append(order.row(FAILED, reason=str(error)))
            continue
        (alone if len(plan.grid) <= 1 else shared).append(order)
        flop += plan.flop
        shapes[_shape(plan)] += 1
        if largest is None or plan.memory.total > largest.memory.total:
            largest = plan
    if largest is None:
        first = unreadable[0]
        raise InputError(
            f"None of {len(unreadable)} images can be segmented. The first, {first.image}: {first.reason}"
        )
    return Survey(alone, shared, unreadable, largest, flop, shapes)


def _plan(order: Order, machine: Machine, plans: dict[Hashable, Plan]) -> Plan:
    """Return the plan of an image, or that of an earlier one which differs in what it shows alone."""
    inputs = open_inputs(order.image.source, order.model, order.own)
    kind = _kind(inputs)
    if kind not in plans:
        plan = prepare(inputs, machine, None).plan
        if inputs.mask is not None:  # what it leaves out is its own
            return plan
        plans[kind] = plan
    return plans[kind]


def _kind(inputs: Inputs) -> Hashable:
    """Return all of an image that a plan depends on."""
    source = inputs.source
    return (
        *(source.axes, source.shape, source.dtype.str, source.chunks, source.decoding, source.level),
        *(tuple(source.spacing.items()), tuple(source.unit.items()), source.spec.format, inputs.mask is None),
    )


def _shape(plan: Plan) -> str:
    """Return how large an image is, for people."""
    source = plan.source
    sizes = [f"{size}" for axis, size in source.sizes.items() if size > 1 or axis in "yx"]
    return f"{' x '.join(sizes) or math.prod(source.shape)} {source.dtype.name}"
