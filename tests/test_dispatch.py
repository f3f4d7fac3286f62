"""Work that kills its worker, fails or is lost: named, and all other work is done."""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from unet_dask import graph
from unet_dask.dispatch import run_calls
from unet_dask.errors import ClusterError, DataError, SinkLostError
from unet_dask.io.remote import UnreachableError
from unet_dask.io.source.lazy_window import LazyWindow
from unet_dask.pipeline import plan_store
from unet_dask.workers import cluster as clusters
from unet_dask.workers import pending

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from distributed import Client, LocalCluster

    from unet_dask.workers.cluster import Cluster


@pytest.mark.timeout(300)
def test_work_that_kills_its_worker_is_named_and_all_other_work_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(clusters.SETTINGS, "distributed.scheduler.allowed-failures", 1)

    def poison(number: int) -> int:
        if number == 3:
            os._exit(9)
        return number

    with clusters.local_cluster(workers=2, threads=1, limit=2 << 30, device="cpu") as opened:
        calls = (((number,), (number,)) for number in range(24))
        outcomes = dict(run_calls(opened.client, poison, calls, in_flight=4))
    assert "killed every time" in outcomes.pop((3,))
    assert outcomes == {(number,): number for number in range(24) if number != 3}


@pytest.mark.timeout(300)
def test_harmless_work_beside_deadly_work_is_not_blamed(monkeypatch: pytest.MonkeyPatch) -> None:
    # Not one death is forgiven, so that whatever else the worker held is blamed at once.
    monkeypatch.setitem(clusters.SETTINGS, "distributed.scheduler.allowed-failures", 0)

    def poison(number: int) -> int:
        time.sleep(0.1)
        if number == 0:
            os._exit(9)
        return number

    with clusters.local_cluster(workers=1, threads=1, limit=2 << 30, device="cpu") as opened:
        calls = (((number,), (number,)) for number in range(8))
        outcomes = dict(run_calls(opened.client, poison, calls, in_flight=8))
    assert "killed every time" in outcomes.pop((0,))
    assert outcomes == {(number,): number for number in range(1, 8)}


def test_work_that_fails_is_named_and_all_other_work_done(cluster: Cluster) -> None:
    def fails(number: int) -> int:
        if number == 3:
            raise DataError("Cannot decode\nthis.")
        return number

    outcomes = dict(run_calls(cluster.client, fails, (((n,), (n,)) for n in range(8)), in_flight=2))
    assert outcomes.pop((3,)) == "Cannot decode this."
    assert outcomes == {(number,): number for number in range(8) if number != 3}


@contextmanager
def small_cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[LocalCluster, Client]]:
    """Return a cluster of one worker that may leave, and little patience for it."""
    from distributed import Client, LocalCluster

    monkeypatch.setattr(pending, "PATIENCE", 2.0)
    monkeypatch.setattr(pending, "_ASK_EVERY", 0.5)
    with (
        LocalCluster(
            n_workers=1, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0"
        ) as emptied,
        Client(emptied, set_as_default=False) as client,
    ):
        yield emptied, client


def test_a_cluster_whose_workers_have_all_left_is_not_waited_for_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with small_cluster(monkeypatch) as (emptied, client):
        outcomes = run_calls(client, abs, (((n,), (n,)) for n in range(8)), in_flight=1)
        assert next(outcomes)[1] in range(8)
        emptied.scale(0)
        with pytest.raises(ClusterError, match="no worker for 2 seconds"):
            list(outcomes)


def test_a_lost_scheduler_is_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(number: int) -> int:
        time.sleep(1)
        return number

    with small_cluster(monkeypatch) as (lost, client):
        outcomes = run_calls(client, slow, (((n,), (n,)) for n in range(8)), in_flight=4)
        assert next(outcomes)[1] in range(8)
        client.close()
        with pytest.raises(ClusterError, match=r"connection to the scheduler was lost.*--resume"):
            list(outcomes)
    assert lost.status.name == "closed"


def test_a_result_whose_worker_leaves_while_it_is_fetched_is_not_waited_for_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from distributed import Future

    fetch = Future.result
    with small_cluster(monkeypatch) as (emptied, client):

        def leave_first(future: Future, timeout: float | None = None) -> object:
            emptied.scale(0)
            while future.status == "finished":
                time.sleep(0.01)
            return fetch(future, timeout)

        monkeypatch.setattr(Future, "result", leave_first)
        with pytest.raises(ClusterError, match="no worker for 2 seconds"):
            list(run_calls(client, abs, (((n,), (n,)) for n in range(8)), in_flight=1))


def test_work_whose_source_did_not_answer_is_done_once_more(cluster: Cluster, tmp_path: Path) -> None:
    def reads(number: int) -> int:
        tried = tmp_path / f"tried-{number}"
        if number == 3 or (number == 5 and not tried.exists()):
            tried.touch()
            raise UnreachableError("The service does not answer.")
        return number

    outcomes = dict(run_calls(cluster.client, reads, (((n,), (n,)) for n in range(8)), in_flight=2))
    assert outcomes.pop((3,)) == "The service does not answer."
    assert outcomes == {(number,): number for number in range(8) if number != 3}


def test_a_source_that_is_gone_is_not_asked_for_ever(cluster: Cluster, tmp_path: Path) -> None:
    def reads(number: int) -> None:
        (tmp_path / f"{number}-{uuid4()}").touch()
        raise UnreachableError("The service does not answer.")

    outcomes = dict(run_calls(cluster.client, reads, (((n,), (n,)) for n in range(20)), in_flight=2))
    assert outcomes == {(number,): "The service does not answer." for number in range(20)}
    assert len(list(tmp_path.iterdir())) == 20 + 3


def test_lost_sink_ends_the_run(cluster: Cluster) -> None:
    def lost(number: int) -> int:
        raise SinkLostError("The sink cannot be written: No space left on device.")

    with pytest.raises(SinkLostError, match="No space left"):
        list(run_calls(cluster.client, lost, (((n,), (n,)) for n in range(8)), in_flight=2))


def test_no_more_is_submitted_than_may_be_in_flight(cluster: Cluster) -> None:
    taken = []

    def calls() -> Iterator[tuple[tuple[int], tuple[int]]]:
        for number in range(30):
            taken.append(number)
            yield (number,), (number,)

    ahead = [len(taken) - done for done, _ in enumerate(run_calls(cluster.client, abs, calls(), in_flight=3))]
    assert max(ahead) <= 5


def test_a_region_is_one_task_that_depends_on_nothing(tiny_model: Path, source: Path) -> None:
    plan = plan_store(source, tiny_model, tile=(32, 32), region=(32, 32), chunks=(32, 32))
    volume = LazyWindow(plan.source.spec, tuple((0, size) for size in plan.source.shape), plan.source.dtype)
    function = graph.WriteRegion(None, None)  # type: ignore[arg-type] # it is not called
    (wave,) = plan.grid.waves(16)
    tasks = graph.wave_tasks(volume, wave, function)
    assert set(tasks) == set(plan.grid.indices())
    for index, task in tasks.items():
        assert not task.dependencies
        assert task.key[2:] == index


def test_regions_read_exactly_their_context(tiny_model: Path, source: Path) -> None:
    plan = plan_store(source, tiny_model, tile=(32, 32), region=(32, 32), chunks=(32, 32))
    volume = LazyWindow(plan.source.spec, tuple((0, size) for size in plan.source.shape), plan.source.dtype)

    def ask(index: tuple[int, ...], block: LazyWindow) -> object:
        return index, block.window

    for regions in (1, 3, 9):
        for wave in plan.grid.waves(regions):
            for index, task in graph.wave_tasks(volume, wave, ask).items():  # type: ignore[arg-type]
                assert task() == (index, plan.grid.source_window(index))
