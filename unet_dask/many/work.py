"""Who does many images, and how: those of one region each as a task, larger ones by all workers."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from unet_dask.dispatch import run_calls
from unet_dask.engine.slots import REGION_SLOTS
from unet_dask.errors import ClusterError, SinkLostError, UnetDaskError
from unet_dask.many.one import segment_here, segment_one
from unet_dask.many.outcome import FAILED
from unet_dask.many.survey import survey
from unet_dask.run.prepare import checked_arithmetic, machine_of, open_inputs, prepare, this_machine
from unet_dask.run.staff import Staff, open_workers, require_here
from unet_dask.run.through import constants_of
from unet_dask.workers.preflight import check_workers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import ExitStack

    from distributed import Client

    from unet_dask.many.asked import Asked
    from unet_dask.many.one import Order
    from unet_dask.many.outcome import Row
    from unet_dask.many.survey import Survey
    from unet_dask.run.events import Remark

#: Images that wait at a worker for those that it has in hand.
_WAITING = 2
#: Images on which a precision that nobody asked for is compared with float32.
_COMPARED = 4


def staffed(
    opened: ExitStack,
    asked: Asked,
    orders: Sequence[Order],
    client: Client | None,
    on_event: Callable[[Remark], None],
) -> tuple[Staff, Survey, tuple[str, ...]]:
    """Return who computes, what the images are for them, and what the user should know.

    Parameters
    ----------
    opened : to which the workers are entered
    asked : what to do
    orders : for the images, at least one
    client : of a running cluster; None for what the configuration says
    on_event : is told what is waited for
    """
    config = asked.config
    elsewhere = client is not None or config.elsewhere
    machine = this_machine(config, config.device if elsewhere and config.device != "auto" else None)
    if not elsewhere:  # what no worker could do is refused before one is started
        found = survey(orders, machine)
        require_here(found.largest, None)
    workers = opened.enter_context(open_workers(config, machine, client, on_event))
    if elsewhere:
        check_workers(workers, orders[0].model, asked.output)
        machine = machine_of(workers, config)
        found = survey(orders, machine)
    staff = Staff(workers, machine)
    agrees, notes = _agreed(staff, [*found.alone, *found.shared])
    if not agrees:
        staff = replace(staff, machine=replace(machine, precision="float32"))
        found = survey(orders, staff.machine)
    return staff, found, notes


def rows(staff: Staff, found: Survey) -> Iterator[Row]:
    """Segment images, and yield the row of each when it is done, or has failed.

    Raises
    ------
    ClusterError, SinkLostError
        If nothing can be done any more.
    """
    workers = staff.workers
    calls = (((number,), (order, staff.machine, workers.threads)) for number, order in enumerate(found.alone))
    in_flight = workers.workers * (REGION_SLOTS + _WAITING)
    for (number,), outcome in run_calls(workers.client, segment_here, calls, in_flight=in_flight):
        failed = isinstance(outcome, str)
        yield found.alone[number].row(FAILED, reason=outcome) if failed else outcome
    for order in found.shared:
        try:
            yield segment_one(order, staff)
        except (ClusterError, SinkLostError):
            raise
        except UnetDaskError as error:
            yield order.row(FAILED, reason=str(error))


def _agreed(staff: Staff, orders: Sequence[Order]) -> tuple[bool, tuple[str, ...]]:
    """Return whether a precision that nobody asked for agrees with float32 on images from all over, and what to say.

    A single image is compared by itself. Here that would take longer than the images: of so many, a few are asked.
    """
    notes: tuple[str, ...] = ()
    for order in orders[:: max(-(-len(orders) // _COMPARED), 1)]:
        try:
            prepared = prepare(open_inputs(order.image.source, order.model, order.own), staff.machine, None)
            if prepared.config.precision != "auto" or prepared.plan.precision == "float32":
                return True, ()
            constants = constants_of(prepared, staff.workers, None, lambda event: None)
            then, said = checked_arithmetic(prepared, staff.workers, None, constants)
        except (ClusterError, SinkLostError):
            raise
        except UnetDaskError:  # its own run will tell
            continue
        notes = tuple(f"{order.image.name}: {each}" for each in said)
        if then.plan.precision != prepared.plan.precision:
            return False, notes
    return True, notes
