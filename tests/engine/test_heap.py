"""A heap that is kept is given back when it is asked to be, and between tiles of two shapes it is asked."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from unet_dask.workers.cluster import worker_environment

LEAVES_GAPS = """
import numpy as np, psutil
from unet_dask.engine.heap import give_back

mine = psutil.Process().memory_info
blocks = [np.ones(1 << 20) for _ in range(32)]
above = [np.ones(64) for _ in range(1000)]
del blocks
kept = mine().rss
give_back()
print((kept - mine().rss) >> 20)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other heaps give back by themselves")
def test_kept_heap_is_given_back() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LEAVES_GAPS],
        env={**os.environ, **worker_environment(1)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout) > 200
