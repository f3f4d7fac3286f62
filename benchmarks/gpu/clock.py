"""What the scripts beside this one share: which device, how it is timed, and what they print of it.

A GPU is timed by its own events, a CPU by the clock. On a CPU everything is tiny: that only shows that a script runs.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

#: torch's types of the precisions that are measured. "tf32" is float32 of which the units multiply 10 bits of mantissa.
DTYPES = {
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "tf32": torch.float32,
    "float32": torch.float32,
}
#: Calls that are not timed, and the fewest and most that are.
_WARM, _LEAST, _MOST = 2, 3, 50


def parser_of(text: str | None) -> argparse.ArgumentParser:
    """Return a parser with the option that all scripts have."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: tiny, to try it out")
    return parser


def parsed(parser: argparse.ArgumentParser, tiny: dict[str, object]) -> argparse.Namespace:
    """Return the options; where the device is a CPU, and nothing else was said, tiny ones.

    Parameters
    ----------
    parser : of `parser_of`
    tiny : defaults on a CPU, by name
    """
    device = parser.parse_args().device
    if device == "cuda" and not torch.cuda.is_available():
        parser.error(f"torch {torch.__version__} finds no CUDA device; --device cpu tries the script out")
    if device == "cpu":
        parser.set_defaults(**tiny)
    return parser.parse_args()


def numbers(text: str) -> list[int]:
    """Return the whole numbers of a text such as "16,32,64"."""
    return [int(part) for part in text.split(",")]


def words(text: str) -> list[str]:
    """Return the words of a text such as "eager,graph"."""
    return text.split(",")


def about(device: str) -> str:
    """Return in one line what is measured, and by what."""
    if device == "cpu":
        return f"CPU, {torch.get_num_threads()} threads, torch {torch.__version__}: tiny, the figures say nothing"
    gpu = torch.cuda.get_device_properties(0)
    return (
        f"{gpu.name}, {gpu.multi_processor_count} multiprocessors, {gpu.total_memory / 2**30:.0f} GiB, capability "
        f"{gpu.major}.{gpu.minor}; torch {torch.__version__}, CUDA {torch.version.cuda}, "
        f"cuDNN {torch.backends.cudnn.version()}"
    )


def seconds_of(function: Callable[[], object], device: str, *, at_least: float = 0.3) -> float:
    """Return the median seconds of a call that is made until so many seconds have passed."""
    for _ in range(_WARM):
        function()
    seconds: list[float] = []
    while len(seconds) < _LEAST or (sum(seconds) < at_least and len(seconds) < _MOST):
        seconds.append(_by_events(function) if device == "cuda" else _by_clock(function))
    return statistics.median(seconds)


def _by_clock(function: Callable[[], object]) -> float:
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def _by_events(function: Callable[[], object]) -> float:
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    first.record()
    function()
    last.record()
    last.synchronize()
    return first.elapsed_time(last) / 1e3


def reason(error: Exception) -> str:
    """Return in one line, and not a long one, why something failed."""
    if isinstance(error, torch.OutOfMemoryError):
        return "does not fit into the GPU's memory"
    return (str(error).strip().splitlines() or [""])[0][:90] or type(error).__name__
