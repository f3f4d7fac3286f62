"""Workers that finish nothing: who is started anew, who is left alone, and that a run survives them."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from unet_dask.errors import ClusterError
from unet_dask.workers.watchdog import Watchdog


@dataclass
class FakeClient:
    """A scheduler's view of workers, and what it was asked to restart."""

    processing: dict[str, list[str]] = field(default_factory=dict)
    results: dict[str, list[str]] = field(default_factory=dict)
    restarted: list[str] = field(default_factory=list)
    silent: bool = False

    @property
    def scheduler(self) -> Any:
        return SimpleNamespace(
            processing=lambda workers: self.processing,
            has_what=lambda workers: {each: self.results.get(each, []) for each in workers},
            identity=lambda n_workers: {
                "workers": {"a": {"nanny": "x"}, "b": {"nanny": "y"}, "c": {"nanny": None}}
            },
        )

    def restart_workers(self, workers: list[str], *, timeout: float, raise_for_error: bool) -> None:
        assert timeout > 0
        assert not raise_for_error
        self.restarted += workers

    def sync(self, handler: Any, *, callback_timeout: float, **arguments: Any) -> Any:
        assert callback_timeout > 0
        if self.silent:
            raise TimeoutError
        return handler(**arguments)


@dataclass
class Bench:
    """Watchdog of a client whose clock is ours."""

    client: FakeClient = field(default_factory=FakeClient)
    now: float = 0.0
    ours: tuple[str, ...] = ("a1", "a2", "a3", "b1")

    def __post_init__(self) -> None:
        self.watchdog = Watchdog(self.client, 120.0, lambda: self.now)

    def look(self, seconds: float) -> list[str]:
        """Let time pass, look every ten seconds, and return who was restarted."""
        before = len(self.client.restarted)
        for _ in range(round(seconds / 10)):
            self.now += 10
            self.watchdog.end(self.ours)
        return self.client.restarted[before:]


def test_worker_whose_tasks_do_not_end_is_started_anew_and_no_other() -> None:
    bench = Bench()
    bench.client.processing = {"a": ["a1", "a2"], "b": ["b1"], "c": []}
    assert bench.look(60) == []
    bench.client.processing = {"a": ["a1", "a2"], "b": [], "c": []}
    assert bench.look(80) == ["a"]
    assert bench.watchdog.blamed == {"a1", "a2"}
    bench.client.processing = {}
    assert bench.look(300) == []


def test_worker_that_ends_one_task_after_the_other_is_left_alone_however_many_come() -> None:
    bench = Bench(ours=tuple(f"a{number}" for number in range(20)))
    for first in range(10):
        bench.client.processing = {"a": [f"a{number}" for number in range(first, 10)]}
        assert bench.look(100) == []
    for last in range(1, 10):  # more work alone is no sign of life
        bench.client.processing = {"a": [f"a{number}" for number in range(9, 10 + last)]}
        restarted = bench.look(20)
        if restarted:
            break
    assert restarted == ["a"]


def test_worker_with_work_or_results_of_somebody_else_is_left_alone() -> None:
    bench = Bench()
    bench.client.processing = {"a": ["a1", "theirs"], "b": ["b1"]}
    bench.client.results = {"b": ["their result"]}
    assert bench.look(600) == []
    bench.client.results = {"b": ["a3"]}
    assert bench.look(20) == ["b"]


def test_worker_that_nobody_could_start_anew_ends_the_run_in_one_line() -> None:
    bench = Bench()
    bench.client.processing = {"c": ["a1"]}
    with pytest.raises(ClusterError, match="at c has finished nothing for 120 s, and has no nanny"):
        bench.look(200)


def test_scheduler_that_does_not_answer_is_not_our_matter() -> None:
    bench = Bench()
    bench.client.silent = True
    assert bench.look(600) == []


def test_restarts_are_not_repeated_before_the_worker_had_its_time() -> None:
    bench = Bench()
    bench.client.processing = {"a": ["a1"]}
    assert bench.look(140) == ["a"]
    assert bench.look(110) == []
    assert bench.look(60) == ["a"]
