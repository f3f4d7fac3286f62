"""What a job of an array asks for: cores or GPUs, memory and time, from the plan of its part.

The script of an array says outright what a run takes from the machine that it finds itself on, as its jobs may find
themselves on others: workers, threads, the memory of a worker and the device.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from unet_dask.config import format_bytes
from unet_dask.engine.device import choose_device
from unet_dask.errors import OptionError
from unet_dask.many.survey import survey
from unet_dask.model.file import model_file
from unet_dask.pipeline import worker_rate
from unet_dask.run.prepare import open_inputs, prepare, this_machine

if TYPE_CHECKING:
    from unet_dask.config import SegmentConfig
    from unet_dask.many.asked import Asked
    from unet_dask.planning.plan import Plan
    from unet_dask.run.prepare import Machine

#: Cores of a worker where nobody said it: on a GPU they read, decode and write.
_THREADS, _THREADS_WITH_GPU = 2, 4
#: Resident bytes of the driver, and of the process that workers are forked from, measured: 202 MiB and 251 MiB. The
#: pages that the latter shares with the workers are counted once more in them.
_DRIVER, _FORKED_FROM = 320 << 20, 320 << 20
#: Bytes that a driver holds of a piece of work in the ledger, measured: 170; pyramids have a seventh more of them.
_OF_A_PIECE = 200
#: Share that is asked for beyond what a worker is planned to use.
_BEYOND = 0.1
#: Times the predicted seconds that are asked for: another machine, others on it, a slow file system.
_TIMES = 3
#: Seconds until workers compute; and uncompressed bytes of a result that one worker joins and brings into levels in a
#: second, slowly, as the last part does for all.
_START, _FINISHED = 120.0, 20e6
#: Requests are rounded up to so many bytes and seconds.
_BYTES, _SECONDS = 64 << 20, 300


@dataclass(frozen=True, slots=True)
class Needs:
    """What one job asks for, and the settings of `segment` that hold it to that.

    Attributes
    ----------
    cores, gpus : of its machine; no GPU for a run on CPUs
    memory : bytes, of all its processes together
    seconds : of its part, alone on such a machine; the last part's work for all is in it
    workers, threads, limit, device : settings of the run
    """

    cores: int
    gpus: int
    memory: int
    seconds: int
    workers: int
    threads: int
    limit: int
    device: str

    @property
    def settings(self) -> dict[str, str]:
        """The settings as the command line takes them, by the names of the options."""
        return {
            "device": self.device,
            "workers": str(self.workers),
            "threads": str(self.threads),
            "memory": str(self.limit),
        }

    def to_json(self) -> dict[str, object]:
        """Return what a job asks for, for programs."""
        return asdict(self)

    def describe(self) -> str:
        """Return what a job asks for, for people."""
        cards = f"{self.gpus} GPU{'s' * (self.gpus > 1)}, " if self.gpus else ""
        return f"{cards}{self.cores} cores, {format_bytes(self.memory)}"


def needs_of_image(
    source: str, model: str, config: SegmentConfig, parts: int, seconds: int | None = None
) -> Needs:
    """Return what each job asks for that does a part of one image.

    Parameters
    ----------
    source : path or URL
    model : path or name
    config : of the run
    parts : number of jobs
    seconds : time that is asked for, None for what the plan says

    Raises
    ------
    UnetDaskError
        If the run cannot be planned; or not be timed on this machine, and nobody said how long it may take.
    """
    with model_file(model) as file:
        plan = prepare(open_inputs(source, file, config), _planned_for(config), None).plan
    share = -(-len(plan.grid) // parts) / max(len(plan.grid), 1)
    # What a mask leaves may lie in one part.
    flop = min(plan.flop, replace(plan, left=None).flop * share)
    return _needs(plan, model, config, flop, seconds)


def needs_of_images(asked: Asked, model: str, parts: int, seconds: int | None = None) -> Needs:
    """Return what each job asks for that does a part of many images; parameters as of one."""
    with model_file(model) as file:
        found = survey(asked.orders(file), _planned_for(asked.config))
    count = len(found.alone) + len(found.shared)
    flop = min(found.flop, max(found.largest.flop, found.flop / max(count, 1)) * -(-count // parts))
    return _needs(found.largest, model, asked.config, flop, seconds)


def _planned_for(config: SegmentConfig) -> Machine:
    """Return the machine of a plan: a device that is named is taken at its word, as jobs run elsewhere."""
    return this_machine(config, config.device if config.device != "auto" else None)


def _needs(plan: Plan, model: str, config: SegmentConfig, flop: float, seconds: int | None) -> Needs:
    """Return what a job asks for.

    Parameters
    ----------
    plan : of its image, or the largest of several
    model, config : of the run
    flop : of the part with most to do
    seconds : that were asked for
    """
    cuda = plan.device == "cuda"
    workers = config.workers or 1
    threads = config.threads or (_THREADS_WITH_GPU if cuda else _THREADS)
    # A table of objects takes what a worker is granted; all else takes what is predicted.
    worker = plan.limit if config.measure else min(plan.memory.total * (1 + _BEYOND), plan.limit)
    memory = _DRIVER + _OF_A_PIECE * len(plan.grid) + _FORKED_FROM * (not cuda) + workers * worker
    if seconds is None:
        _require_timed(plan.device)
        rate = worker_rate(plan, model, config, threads=threads) * workers
        taken = _START + flop / rate + plan.disk_bytes / (_FINISHED * workers)
        seconds = _up(_TIMES * taken, _SECONDS)
    return Needs(
        cores=workers * threads,
        gpus=workers if cuda else 0,
        memory=_up(memory, _BYTES),
        seconds=seconds,
        workers=workers,
        threads=threads,
        limit=plan.limit,
        device=plan.device,
    )


def _require_timed(device: str) -> None:
    """Refuse to guess how long a network takes on a device that is not here."""
    try:
        choose_device(device)
    except OptionError as error:
        raise OptionError(
            f"How long a part takes on {device} cannot be measured here, where torch finds none. Say how long it may "
            "take, such as --time 4:00:00, or write the script where the jobs run."
        ) from error


def _up(number: float, step: int) -> int:
    """Return a number rounded up to a multiple.

    Examples
    --------
    >>> _up(601.5, 300), _up(600, 300)
    (900, 600)
    """
    return int(-(-number // step) * step)
