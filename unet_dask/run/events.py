"""What a run says on the way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unet_dask.dispatch import Failure
    from unet_dask.graph import Record
    from unet_dask.planning.plan import Plan


@dataclass(frozen=True, slots=True)
class Started:
    """The plan is made and the sink is there; work begins.

    Attributes
    ----------
    plan : of the run
    sink : path or URL
    done, total : pieces of work, regions and pyramid blocks together
    notes : what the user should know, one line each
    """

    plan: Plan
    sink: str
    done: int
    total: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Stage:
    """A part of the run begins, such as "statistics", "regions" or "pyramid"."""

    name: str


@dataclass(frozen=True, slots=True)
class Progress:
    """A piece of work is finished and in the ledger, or has failed."""

    outcome: Record | Failure
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Remark:
    """What the user should know, told once the work is done."""

    text: str


Event = Started | Stage | Progress | Remark
Listener = Callable[[Event], None]
