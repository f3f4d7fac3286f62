"""The memory that a worker is granted when nobody said so, and what all of them together may be."""

from __future__ import annotations

from unet_dask.config import format_bytes
from unet_dask.errors import OptionError

#: Share of the machine's memory that workers are granted together.
_GRANTED = 0.8
#: The most that one is granted. On a CPU larger tiles gain little beyond. A GPU has done with a region in no time, and
#: regions of a second of its work are large.
_MOST, _MOST_WITH_GPU = 4 << 30, 32 << 30


def default_limit(cores: int, memory: int, workers: int, *, gpus: int = 0) -> int:
    """Return the bytes a worker is granted when nobody said so.

    A fair share of the machine, and no more than it makes use of. The share is that of one worker per two cores, or per
    GPU, so that the plan stays the same for any smaller number of workers.

    Parameters
    ----------
    cores, memory : of the machine
    workers : that will share it
    gpus : of the machine, if they run the network
    """
    usual, most = (gpus, _MOST_WITH_GPU) if gpus else (cores // 2, _MOST)
    return int(min(_GRANTED * memory / max(usual, workers, 1), most))


def require(*, workers: int, limit: int, memory: int) -> None:
    """Raise if the workers together were granted more than the machine has."""
    if workers * limit > memory:
        raise OptionError(
            f"{workers} workers of {format_bytes(limit)} need {format_bytes(workers * limit)}, but this machine has "
            f"{format_bytes(memory)}. Use fewer --workers or a smaller --memory."
        )
