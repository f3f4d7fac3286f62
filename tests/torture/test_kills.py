"""Killed at random, again and again, a run resumes to the same bytes and redoes only what was in flight."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

import pytest

from tests.killing import IN_FLIGHT, computed, entries, kill, victim, written
from tests.torture.bench import content
from tests.torture.tier import SEED, Tier, counted, full

if TYPE_CHECKING:
    from collections import Counter
    from pathlib import Path

    from tests.killing import Victim


def killed_until_done(victim: Victim, sink: Path, draw: random.Random, counts: Counter[str]) -> list[str]:
    """Kill a run at random instants of its life, resume it each time, and return what is wrong once it ends.

    A machine may be several times as busy as it was when the life of a run was measured; then none would ever come to
    work. So it is taken for longer whenever a kill came before anything was done.
    """
    done_before: set[object] = set()
    life = victim.seconds
    while True:
        process = victim.start(sink, *(["--resume"] if sink.exists() else []))
        ends, began = draw.uniform(0, life), time.monotonic()
        while process.poll() is None and time.monotonic() - began < ends:
            time.sleep(0.005)
        if process.poll() is not None:
            break
        kill(process)
        recorded = entries(sink)
        begun = max(written(sink) - sum(level == 0 for level, _ in recorded), 0)
        counts["kills"] += 1
        counts["begun_and_redone"] += begun
        counts["most_begun_and_redone"] = max(counts["most_begun_and_redone"], begun)
        counts["pieces_kept"] += len(recorded) - len(done_before)
        assert done_before <= recorded, "a kill lost what was done"
        assert begun <= IN_FLIGHT
        life *= 1.0 if len(recorded) > len(done_before) else 1.05
        done_before = recorded
    _, said = process.communicate()
    assert process.returncode == 0, said
    assert computed(said) == len(entries(sink)) - len(done_before)
    counts["runs"] += 1
    found = content(sink)
    return sorted(name for name in {*found, *victim.tree} if found.get(name) != victim.tree.get(name))


@pytest.mark.parametrize("tier", [pytest.param(Tier("full"), id="full", marks=full)])
def test_run_killed_at_random_times_resumes_to_the_same_bytes(
    tier: Tier, tiny_model: Path, tmp_path: Path
) -> None:
    draw, killed = random.Random(f"{SEED} kills"), victim(tmp_path, tiny_model, timed=True)
    with counted("A1 kills of the process group", tier) as counts:
        while counts["kills"] < tier.count(1, 200):
            assert killed_until_done(killed, tmp_path / f"{counts['runs']}.zarr", draw, counts) == []
