"""Clusters that users bring along: asleep, empty, closed, of the wrong kind, or gone."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import dask
import pytest
from distributed import Client, LocalCluster

import unet_dask
from unet_dask.errors import ClusterError, OptionError, UnetDaskError
from unet_dask.workers import running
from unet_dask.workers.cluster import SETTINGS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

IN_THREADS: dict[str, Any] = {
    "processes": False,
    "threads_per_worker": 1,
    "dashboard_address": "127.0.0.1:0",
}


@contextmanager
def cluster_of(workers: int) -> Iterator[tuple[LocalCluster, Client]]:
    with (
        LocalCluster(n_workers=workers, **IN_THREADS) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield cluster, client


def refused(client: Any, kind: type[UnetDaskError] = OptionError) -> str:
    with pytest.raises(kind) as caught:
        running.require_usable(client)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


@pytest.mark.parametrize("client", ["tcp://127.0.0.1:8786", None, object(), {"n_workers": 2}, Client])
def test_what_is_no_client_is_refused_by_its_type(client: object) -> None:
    assert type(client).__name__ in refused(client)


def test_cluster_in_place_of_its_client_is_refused() -> None:
    with cluster_of(1) as (cluster, _):
        assert "LocalCluster, not a client" in refused(cluster)


@pytest.mark.parametrize("leave", ["close", "with", "twice"])
def test_closed_client_is_refused(leave: str) -> None:
    with cluster_of(1) as (cluster, _):
        client = Client(cluster, set_as_default=False)
        if leave == "with":
            with client:
                pass
        for _ in range({"close": 1, "with": 0, "twice": 2}[leave]):
            client.close()
        assert "The client is closed" in refused(client)


def test_asynchronous_client_is_refused_begun_or_not() -> None:
    async def ask(address: str) -> list[str]:
        begun = await Client(address, asynchronous=True, set_as_default=False)
        not_begun = Client(address, asynchronous=True, set_as_default=False)
        try:
            return [refused(begun), refused(not_begun)]
        finally:
            await begun.close()
            await not_begun.close()

    with cluster_of(1) as (cluster, _):
        for message in asyncio.run(ask(cluster.scheduler_address)):
            assert "asynchronous" in message


def test_client_whose_scheduler_has_gone_is_refused_and_loses_nothing(source: Path, tiny_model: Path) -> None:
    cluster = LocalCluster(n_workers=1, **IN_THREADS)
    with dask.config.set({"distributed.comm.timeouts.connect": "1s"}):
        client = Client(cluster, set_as_default=False, timeout="1s")
        cluster.close()
        deadline = time.monotonic() + 30
        while client.status == "running" and time.monotonic() < deadline:
            time.sleep(0.05)
        with pytest.raises((ClusterError, OptionError)) as caught:
            unet_dask.segment_store(source, source.parent / "out.zarr", tiny_model, client=client)
        client.close()
    assert len(str(caught.value).splitlines()) == 1
    assert not (source.parent / "out.zarr").exists()


@pytest.mark.parametrize("maximum", [1, 2])
def test_cluster_that_starts_workers_for_work_alone_is_woken(
    maximum: int, source: Path, tiny_model: Path
) -> None:
    sink = source.parent / "out.zarr"
    with cluster_of(0) as (cluster, client):
        cluster.adapt(minimum=0, maximum=maximum, interval="100ms")
        run = unet_dask.segment_store(source, sink, tiny_model, client=client, precision="float32")
        assert run.computed
    assert unet_dask.verify_store(sink, tiny_model).findings == ()


def test_adaptive_cluster_is_awaited_longer_and_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "_ADAPTIVE", 45.0)
    said: list[str] = []
    with cluster_of(0) as (cluster, client):
        cluster.adapt(minimum=0, maximum=1, interval="100ms")
        assert running.awake(client, said.append)
    assert said == ["the cluster has no workers; waiting up to 45 s for one"]


def test_worker_that_joins_an_empty_cluster_late_is_waited_for() -> None:
    said: list[str] = []
    with cluster_of(0) as (cluster, client):
        later = threading.Timer(1.0, cluster.scale, (1,))
        later.start()
        assert len(running.awake(client, said.append)) == 1
        later.join()
    assert len(said) == 1


def test_cluster_that_stays_empty_is_told_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "_STATIC", 0.5)
    with cluster_of(0) as (_, client), pytest.raises(ClusterError, match="has no workers"):
        running.awake(client)


def test_full_cluster_is_not_waited_for() -> None:
    said: list[str] = []
    with cluster_of(2) as (_, client):
        found = running.connected(client, say=said.append)
    assert (found.workers, found.threads, said) == (2, 1, [])


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"address": null}', '{"id": 1}', "\x00", '{"address": "tcp://127.0.0.1"}']
)
def test_file_that_is_no_schedulers_is_a_line(content: str, tmp_path: Path) -> None:
    file = tmp_path / "scheduler.json"
    file.write_text(content)
    with (
        pytest.raises((ClusterError, OptionError)) as caught,
        running.running_cluster(scheduler_file=str(file)),
    ):
        pass
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    "address", ["localhost", "http://127.0.0.1:1", "", "tcp://", "127.0.0.1:8786:1", "\n"]
)
def test_address_that_leads_nowhere_is_a_line(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SETTINGS, "distributed.comm.timeouts.connect", "1s")
    with pytest.raises((ClusterError, OptionError)) as caught, running.running_cluster(address=address):
        pass
    assert len(str(caught.value).splitlines()) == 1


def test_command_line_waits_for_a_scheduler_file_that_comes_late(
    source: Path, tiny_model: Path, run_cli: Callable[..., Any], tmp_path: Path
) -> None:
    file = tmp_path / "scheduler.json"
    with LocalCluster(n_workers=1, **{**IN_THREADS, "protocol": "tcp"}) as cluster:
        later = threading.Timer(3.0, lambda: file.write_text(f'{{"address": "{cluster.scheduler_address}"}}'))
        later.start()
        done = run_cli("segment", source, "-m", tiny_model, "--scheduler-file", file, "-q")
        later.join()
    assert done.code == 0, done.stderr
