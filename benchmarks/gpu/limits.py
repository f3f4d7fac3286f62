"""What the GPU can do at most: matrix products, copies to and from it, its own memory.

    python benchmarks/gpu/limits.py [--sizes 4096,8192,16384] [--mebibytes 64,1024]
    python benchmarks/gpu/limits.py --device cpu

The largest of the matrix products in bfloat16 is the peak that network.py and end_to_end.py quote shares of: what the
GPU does at its clock under load, not what its data sheet says. A copy between pageable memory and the GPU goes
through a buffer of the driver; from pinned memory it goes by itself. The GPU's memory is read and written at once by
a copy within it, and only written by a fill.
"""

from __future__ import annotations

import math
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch
from clock import DTYPES, about, numbers, parsed, parser_of, reason, seconds_of

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Sides of the square matrices, enough for any GPU to reach its peak at one of them.
SIZES = {"cuda": "4096,8192,16384", "cpu": "64,128"}


@contextmanager
def multiplied_as(precision: str) -> Iterator[None]:
    """Let float32 be multiplied in full, or by 10 bits of mantissa where "tf32" is asked for."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def matrix_rate(precision: str, size: int, device: str) -> float:
    """Return FLOP per second of the product of two square matrices of normally distributed numbers."""
    left, right = (torch.randn(size, size, device=device).to(DTYPES[precision]) for _ in range(2))
    into = torch.empty_like(left)
    with multiplied_as(precision):
        return 2 * size**3 / seconds_of(lambda: torch.mm(left, right, out=into), device)


def matrix_rates(precision: str, sizes: list[int], device: str) -> list[float]:
    """Return the rates of several sizes; NaN, and the reason in a line, where one does not work."""
    rates = []
    for size in sizes:
        try:
            rates.append(matrix_rate(precision, size, device))
        except (RuntimeError, NotImplementedError) as error:
            print(f"{precision:>16} | {size}: {reason(error)}")
            rates.append(math.nan)
    return rates


def peak(precision: str, device: str) -> float:
    """Return the largest rate of several sizes, and the GPU's memory."""
    rates = matrix_rates(precision, numbers(SIZES[device]), device)
    if device == "cuda":
        torch.cuda.empty_cache()
    return float(np.nanmax(rates))


def print_products(sizes: list[int], device: str) -> None:
    """Print a row for every precision."""
    print(f"{'matrix product':>16} | {' | '.join(f'{size:>7}' for size in sizes)} | largest, TFLOP/s")
    for precision in DTYPES:
        if precision == "tf32" and (device == "cpu" or torch.cuda.get_device_capability() < (8, 0)):
            continue  # it would be float32 once more
        rates = [rate / 1e12 for rate in matrix_rates(precision, sizes, device)]
        shown = " | ".join(f"{rate:7.1f}" for rate in rates)
        print(f"{precision:>16} | {shown} | {np.nanmax(rates):.1f}", flush=True)


def copy_rates(size: int, device: str, *, pinned: bool) -> tuple[float, float]:
    """Return bytes per second to the device and from it.

    Parameters
    ----------
    size : of the copy, in bytes
    device : "cuda" or "cpu"
    pinned : whether the host's memory is locked in its place
    """
    host = torch.ones(size, dtype=torch.uint8, pin_memory=pinned)
    there = torch.zeros(size, dtype=torch.uint8, device=device)
    to = seconds_of(lambda: there.copy_(host, non_blocking=pinned), device)
    back = seconds_of(lambda: host.copy_(there, non_blocking=pinned), device)
    return size / to, size / back


def print_copies(sizes: list[int], device: str) -> None:
    """Print a row for every size and kind of host memory."""
    print(f"{'copy, GB/s':>16} | {'MiB':>7} | {'to':>7} | {'from':>7}")
    for pinned in (False, True):
        if pinned and device == "cpu":
            continue  # there is nothing to be pinned for
        for size in sizes:
            to, back = copy_rates(size << 20, device, pinned=pinned)
            name = "pinned" if pinned else "pageable"
            print(f"{name:>16} | {size:7} | {to / 1e9:7.1f} | {back / 1e9:7.1f}", flush=True)


def print_memory(size: int, device: str) -> None:
    """Print the rates of a copy within the device's memory, read and written bytes together, and of a fill."""
    one, other = (torch.zeros(size << 20, dtype=torch.uint8, device=device) for _ in range(2))
    copied = seconds_of(lambda: other.copy_(one), device)
    filled = seconds_of(other.zero_, device)
    print(
        f"{'memory, GB/s':>16} | {size:7} | copy {2 * one.nbytes / copied / 1e9:.0f} (read + written)", end=""
    )
    print(f" | fill {one.nbytes / filled / 1e9:.0f}")


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--sizes", type=numbers, default=SIZES["cuda"], help="sides of the matrices")
    parser.add_argument("--mebibytes", type=numbers, default="64,1024", help="sizes of the copies")
    options = parsed(parser, {"sizes": SIZES["cpu"], "mebibytes": "1,4"})
    print(about(options.device))
    print_products(options.sizes, options.device)
    print_copies(options.mebibytes, options.device)
    print_memory(max(options.mebibytes), options.device)


if __name__ == "__main__":
    main()
