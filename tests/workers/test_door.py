"""What a run's own cluster listens to, and where its key is."""

from __future__ import annotations

import os
import ssl
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask
import psutil
import pytest
from distributed import Client

from unet_dask.workers import door
from unet_dask.workers.cluster import local_cluster

if TYPE_CHECKING:
    from collections.abc import Iterator

    from distributed.security import Security

    from unet_dask.workers.cluster import Cluster


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Cluster, Security]]:
    """Return a run's own cluster, started by a user whose Dask settings are for another one, and its key."""
    made: list[Security] = []
    whole = door.new_key

    def new_key() -> Security:
        made.append(whole())
        return made[-1]

    theirs = {
        "distributed.comm.tls.ciphers": "NULL",
        "distributed.comm.tls.max-version": 1.2,
        "distributed.comm.default-scheme": "tcp",
        "temporary-directory": str(tmp_path_factory.mktemp("theirs")),
    }
    with pytest.MonkeyPatch.context() as patch, dask.config.set(theirs):
        patch.setattr(door, "new_key", new_key)
        with local_cluster(workers=2, threads=1, limit=2 << 30, device="cpu") as cluster:
            cluster.client.wait_for_workers(2, timeout=120)
            yield cluster, made[0]


def processes() -> list[psutil.Process]:
    return [psutil.Process(), *psutil.Process().children(recursive=True)]


def test_all_that_is_reached_speaks_tls_of_the_run(closed: tuple[Cluster, Security]) -> None:
    cluster, _ = closed
    info = cluster.client.scheduler_info(n_workers=-1)
    addresses = [info["address"], *info["workers"], *(each["nanny"] for each in info["workers"].values())]
    assert len(addresses) == 5
    assert all(each.startswith("tls://127.0.0.1:") for each in addresses)
    assert info["services"] == {}
    assert all(each["services"] == {} for each in info["workers"].values())
    assert cluster.client.submit(os.getpid).result(timeout=60) in {each.pid for each in processes()}


def test_workers_listen_to_nothing_else(closed: tuple[Cluster, Security]) -> None:
    def ports() -> int:
        listening = psutil.Process().net_connections("inet")
        return sum(place.status == psutil.CONN_LISTEN for place in listening)

    assert set(closed[0].client.run(ports).values()) == {1}


@pytest.mark.parametrize("scheme", ["tcp", "tls"])
def test_another_key_or_none_is_turned_away(closed: tuple[Cluster, Security], scheme: str) -> None:
    port = closed[0].client.scheduler.address.rpartition(":")[2]
    other: Any = door.new_key() if scheme == "tls" else None
    with pytest.raises((OSError, TypeError)):
        Client(f"{scheme}://127.0.0.1:{port}", security=other, timeout=3, set_as_default=False)


def test_key_is_in_no_argument_variable_or_file(closed: tuple[Cluster, Security]) -> None:
    cluster, key = closed
    secret = key.tls_worker_key.splitlines()[1]
    for process in processes():
        with suppress(psutil.NoSuchProcess):
            assert not any(secret in each or "PRIVATE" in each for each in process.cmdline())
            assert not any(secret in each for each in process.environ().values())
    places = {Path(each["local_directory"]) for each in cluster.client.scheduler_info()["workers"].values()}
    assert len({place.parent.parent for place in places}) == 1
    folder = places.pop().parent.parent
    assert folder.stat().st_mode & 0o777 == 0o700
    assert not any(secret.encode() in each.read_bytes() for each in folder.rglob("*") if each.is_file())


def test_nothing_is_imported_from_a_folder_that_is_gone() -> None:
    before = list(sys.path)
    with local_cluster(workers=1, threads=1, limit=2 << 30, device="cpu"):
        ours = [each for each in sys.path if each not in before]
        assert all("unet-dask-private-" in each for each in ours)
    assert sys.path == before


def test_every_run_has_a_key_of_its_own_on_tls_1_3() -> None:
    one, other = door.new_key(), door.new_key()
    assert one.require_encryption
    assert one.tls_worker_key != other.tls_worker_key
    arguments = one.get_connection_args("worker")
    assert arguments["ssl_context"].minimum_version == ssl.TLSVersion.TLSv1_3
    assert arguments["ssl_context"].verify_mode == ssl.CERT_REQUIRED
