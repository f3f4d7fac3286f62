"""Drivers that start in the same instant on one sink: one of them writes it, the others are refused in one line."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.conftest import save_source
from tests.torture.racer import SETTINGS
from tests.torture.tier import Tier, counted, tiers

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterator

    from tests.torture.bench import Bench

ROOT = Path(__file__).parents[2]
#: Seconds between the call to a race and its start.
NOTICE = 0.1


@pytest.fixture(scope="module")
def undisturbed(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    source = save_source(tmp_path_factory.mktemp("races") / "source.zarr", (96, 96))
    return replace(bench, source=source, settings=SETTINGS).undisturbed()


@contextmanager
def racers(bench: Bench, root: Path, count: int, *flags: str) -> Iterator[list[subprocess.Popen[str]]]:
    """Yield drivers that wait for a race."""
    started = [
        subprocess.Popen(
            [
                sys.executable,
                "-m",
                "tests.torture.racer",
                *map(str, (bench.source, bench.model, root)),
                *flags,
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        for _ in range(count)
    ]
    try:
        assert [_answer(each) for each in started] == ["ready"] * count
        yield started
    finally:
        for each in started:
            each.kill()
            each.communicate()


def _answer(racer: subprocess.Popen[str]) -> str:
    assert racer.stdout is not None
    return racer.stdout.readline().strip()


def race(started: list[subprocess.Popen[str]], name: str) -> list[str]:
    """Let drivers run at the same time on one sink, and return what they came to."""
    begin = time.time() + NOTICE
    for each in started:
        assert each.stdin is not None
        each.stdin.write(f"{name} {begin}\n")
        each.stdin.flush()
    return [_answer(each) for each in started]


def judged(bench: Bench, sink: Path, answers: list[str], counts: Counter[str]) -> list[str]:
    """Return what is wrong with a race."""
    counts["races"] += 1
    words = [answer.partition(" ")[0] for answer in answers]
    counts.update(words)
    findings = [answer for answer in answers if answer.startswith("broken")]
    if words.count("won") != 1:
        findings.append(f"{words.count('won')} winners: {answers}")
    return findings + bench.wrong(sink)


@tiers
def test_of_drivers_that_start_together_one_writes(tier: Tier, undisturbed: Bench, tmp_path: Path) -> None:
    with counted("A7 races for one sink", tier) as counts, racers(undisturbed, tmp_path, 2) as started:
        for number in range(tier.count(5, 50)):
            answers = race(started, f"{number}.zarr")
            assert judged(undisturbed, tmp_path / f"{number}.zarr", answers, counts) == []


def test_control_missing_lock_is_found(undisturbed: Bench, tmp_path: Path) -> None:
    with counted("control", Tier("small")) as counts, racers(undisturbed, tmp_path, 2, "no-lock") as started:
        assert any(
            judged(undisturbed, tmp_path / f"{number}.zarr", race(started, f"{number}.zarr"), counts)
            for number in range(50)
        )
