"""Who is given work: whoever has least left, among those who are there."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any

from unet_dask.workers import load
from unet_dask.workers.load import ANYWHERE, WorkerLoad, present
from unet_dask.workers.pending import PendingTasks, Piece

if TYPE_CHECKING:
    import pytest


def test_work_goes_to_whoever_has_least_until_all_have_enough() -> None:
    crew = WorkerLoad(lambda: ("a", "b"), low_water=1)
    given = []
    while (home := crew.least_loaded()) is not None:
        crew.give(home, 4)
        given.append(home)
    assert given == ["a", "b"]
    for _ in range(2):
        crew.take("b")
    assert crew.least_loaded() is None
    crew.take("b")
    assert crew.least_loaded() == "b"


def test_workers_that_come_and_go_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "_ASK_EVERY", -1.0)
    present = ["a", "c"]
    crew = WorkerLoad(lambda: present, low_water=1)
    crew.give("a", 8)
    crew.give("c", 8)
    assert crew.least_loaded() is None
    present.append("b")
    assert crew.least_loaded() == "b"
    present.remove("a")
    crew.give("b", 3)
    assert crew.least_loaded() is None


def test_without_workers_work_is_given_to_nobody_in_particular() -> None:
    crew = WorkerLoad(lambda: (), low_water=1)
    assert crew.least_loaded() == ANYWHERE
    crew.give(ANYWHERE, 2)
    assert crew.least_loaded() is None


def test_nothing_is_wished_for_the_only_worker() -> None:
    assert WorkerLoad(lambda: ("a",), low_water=1).least_loaded() == ANYWHERE


def test_work_whose_workers_all_left_at_once_is_done_by_those_that_come(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from distributed import Client, LocalCluster

    monkeypatch.setattr(load, "_ORPHANED_EVERY", 0.5)

    def work(number: int) -> int:
        time.sleep(0.1)
        return number

    def submit(number: int, home: str) -> dict[Any, Piece]:
        future = client.submit(work, number, pure=False, workers=home or None, allow_other_workers=bool(home))
        return {future: Piece((number,), partial(submit, number))}

    def batch(home: str) -> dict[Any, Piece]:
        return {future: piece for number in range(12) for future, piece in submit(number, home).items()}

    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0"
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        outcomes = PendingTasks(client, WorkerLoad.of(client), 900.0).outcomes(iter([batch, batch]))
        found = [next(outcomes)]
        cluster.scale(0)
        while present(client):
            time.sleep(0.01)
        cluster.scale(1)
        found += outcomes
    assert sorted(piece.index for piece, _ in found) == sorted([(number,) for number in range(12)] * 2)
    assert all((outcome,) == piece.index for piece, outcome in found)
