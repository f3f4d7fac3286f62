"""One of several drivers that start a run on one sink in the same instant, again and again.

Started as ``python -m tests.torture.racer SOURCE MODEL ROOT RACES [no-lock]``. For each line on standard input it
runs once, and answers with "won" or with what it was refused with.
"""

from __future__ import annotations

import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import unet_dask
from unet_dask.errors import UnetDaskError
from unet_dask.io.sink import lock as locks

#: Three by three regions of one chunk each.
SETTINGS: dict[str, Any] = {"region": (32, 32), "tile": (32, 32), "chunks": (32, 32), "precision": "float32"}


def main(source: str, model: str, root: str, *flags: str) -> None:
    """Race whenever told to, on workers in threads of this process."""
    from distributed import Client, LocalCluster

    if "no-lock" in flags:
        locks.locked = lambda *_: nullcontext()  # type: ignore[assignment] # that is the bug
    with (
        LocalCluster(
            n_workers=1, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0"
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        unet_dask.segment_store(
            source, f"{root}/warm-{time.time_ns()}.zarr", model, client=client, **SETTINGS
        )
        print("ready", flush=True)  # noqa: T201 # that is how it speaks
        for line in sys.stdin:
            name, start = line.split()
            while time.time() < float(start):
                pass
            try:
                unet_dask.segment_store(source, Path(root) / name, model, client=client, **SETTINGS)
                answer = "won"
            except UnetDaskError as error:
                answer = f"refused {' '.join(str(error).split())}"
            except Exception as error:  # whatever else it is, it is a finding
                answer = f"broken {type(error).__name__} {' '.join(str(error).split())}"
            print(answer, flush=True)  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:])
