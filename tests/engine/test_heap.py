"""A heap that is kept is given back when it is asked to be: before a tile that the plan might have no room for."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from unet_dask.engine import heap
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


@pytest.mark.parametrize(
    ("resident", "alive", "given_back"),
    [
        (500, 1000, False),  # what the plan was made for: 1.7 times what is alive
        (500, 1001, True),
        (1700, 250, False),  # there is room for both
        (2100, 250, True),
        (2300, 0, True),  # more is kept than was planned, whatever comes
    ],
)
def test_heap_is_given_back_before_a_tile_that_might_find_no_room(
    resident: int, alive: int, *, given_back: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []
    monkeypatch.setattr(heap, "give_back", lambda: asked.append(True))
    monkeypatch.setattr(heap, "_resident", lambda: resident << 20)
    heap.Heap(limit=2200 << 20, item=4).make_room(alive << 20)
    assert bool(asked) is given_back
