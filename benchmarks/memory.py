"""Peak memory against the plan, for volumes of 1x, 8x and 64x (bar B2).

    python benchmarks/memory.py [FOLDER] [--dims 2] [--width 8] [--depth 2] [--factors 1,8,64] [--tile 256]

Every volume is segmented by the command line in a process of its own. Printed are the plan's figure for a worker,
the most resident memory of any worker, and that of the client, whose process is also the scheduler's.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import zarr

SIDE = 272  # 272^3 = 20 MB


def make_volume(path: Path, factor: int) -> None:
    """Write a cubic uint8 volume of about `factor` times 20 MB, chunk by chunk."""
    side = SIDE * round(factor ** (1 / 3))
    array = zarr.create_array(path, shape=(side,) * 3, chunks=(64, 128, 128), dtype="uint8", overwrite=True)
    rng = np.random.default_rng(0)
    block = rng.integers(0, 256, (64, side, side)).astype(np.uint8)
    for start in range(0, side, 64):
        stop = min(start + 64, side)
        array[start:stop] = np.roll(block, start, axis=1)[: stop - start]


def run(command: list[str]) -> tuple[dict, int]:
    """Run a command; return its JSON and the peak bytes of its main process.

    Read from /proc while it runs: the figure of `wait4` also counts what this process held when it forked, and every
    child that the command waited for.
    """
    peak = 0
    with tempfile.TemporaryFile() as output, subprocess.Popen(command, stdout=output) as process:
        while process.poll() is None:
            peak = max(peak, high_water(process.pid))
            time.sleep(0.1)
        output.seek(0)
        content = output.read()
    if process.returncode:
        sys.exit(f"{' '.join(command)} ended with {process.returncode}")
    return json.loads(content), peak


def high_water(pid: int) -> int:
    """Return the most resident bytes that a process has had; 0 once it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM")), 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", default="out/memory", type=Path)
    parser.add_argument("--dims", type=int, default=2)
    parser.add_argument("--width", type=int, default=8)
    parser.add_argument("--depth", type=int, default=2)
    parser.add_argument("--memory", default="3GiB")
    parser.add_argument("--products", default="classes")
    parser.add_argument("--factors", default="1,8,64")
    parser.add_argument(
        "--tile", help="the same for all volumes; without it a larger plane gets a larger tile"
    )
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    tool = str(Path(sys.executable).with_name("unet-dask"))
    model = options.folder / "net.safetensors"
    shape = ["--dims", str(options.dims), "--width", str(options.width), "--depth", str(options.depth)]
    subprocess.run([tool, "init", *shape, "-o", str(model)], check=True, capture_output=True)
    print(
        f"{'volume':>8} {'regions':>8} {'plan':>9} {'worker':>9} {'ratio':>6} {'client':>9} {'seconds':>8}   MiB"
    )
    for factor in map(int, options.factors.split(",")):
        source, sink = options.folder / f"{factor}x.zarr", options.folder / "sink.zarr"
        make_volume(source, factor)
        outcome, client = run(
            [
                *(
                    tool,
                    "segment",
                    str(source),
                    "-o",
                    str(sink),
                    "-m",
                    str(model),
                    "--workers",
                    "2",
                    "--overwrite",
                ),
                *(("--tile", options.tile) if options.tile else ()),
                *("--memory", options.memory, "--products", options.products, "--json", "-q"),
            ]
        )
        plan, peak = outcome["plan"]["worker_bytes"], outcome["peak_bytes"]
        print(
            f"{factor:>7}x {outcome['regions']:>8} {plan / 2**20:>9.0f} {peak / 2**20:>9.0f} {peak / plan:>6.2f} "
            f"{client / 2**20:>9.0f} {outcome['seconds']:>8.0f}",
            flush=True,
        )
        shutil.rmtree(source)
        shutil.rmtree(sink)


if __name__ == "__main__":
    main()
