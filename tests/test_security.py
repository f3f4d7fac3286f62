"""Who can reach a run: nobody from outside, a secured scheduler with its keys, no worker of other versions."""

from __future__ import annotations

import subprocess
import time
from contextlib import suppress
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import pytest
import zarr

import unet_dask
from tests.conftest import SCRIPT, run_script, save_source
from unet_dask.errors import ClusterError
from unet_dask.workers import preflight

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from unet_dask.workers.cluster import Cluster

FLAGS = ("--precision", "float32", "--region", "32,32", "--tile", "32,32", "--chunks", "32,32")


def listening(process: subprocess.Popen[Any]) -> set[str]:
    """Return the addresses at which a process or a descendant listens now."""
    found: set[str] = set()
    with suppress(psutil.Error):
        root = psutil.Process(process.pid)
        for each in (root, *root.children(recursive=True)):
            with suppress(psutil.Error):
                found |= {
                    place.laddr.ip
                    for place in each.net_connections("inet")
                    if place.status == psutil.CONN_LISTEN
                }
    return found


def test_a_run_listens_on_the_loopback_interface_only(tiny_model: Path, tmp_path: Path) -> None:
    source = save_source(tmp_path / "source.zarr", (224, 224))
    heard: set[str] = set()
    arguments = [
        "segment",
        source,
        "-o",
        tmp_path / "out.zarr",
        "-m",
        tiny_model,
        "--workers",
        "2",
        "-q",
        *FLAGS,
    ]
    with subprocess.Popen([SCRIPT, *map(str, arguments)]) as process:
        while process.poll() is None:
            heard |= listening(process)
            time.sleep(0.3)
    assert process.returncode == 0
    assert heard == {"127.0.0.1"}


@pytest.mark.parametrize("package", preflight.PACKAGES)
def test_workers_of_another_version_are_refused(
    package: str,
    cluster: Cluster,
    tiny_model: Path,
    source: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(preflight, "version", lambda name: "0.0" if name == package else true_version(name))
    with pytest.raises(ClusterError, match=rf"has {package} .*, but the client has 0\.0"):
        unet_dask.segment_store(
            source, tmp_path / "out.zarr", tiny_model, client=cluster.client, precision="float32"
        )
    assert not (tmp_path / "out.zarr").exists()


def true_version(name: str) -> str:
    from importlib.metadata import version

    return version(name)


def test_workers_that_leave_while_they_are_asked_are_not_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "_PAUSE", 0.0)
    answers = iter([{"a": 1, "b": OSError("gone")}, {"a": 1, "c": 2}])
    client: Any = SimpleNamespace(run=lambda function, on_error: next(answers))
    assert preflight._asked(client, len) == {"a": 1, "c": 2}
    client.run = lambda function, on_error: {"a": OSError("gone")}
    with pytest.raises(ClusterError, match="have left before they could be asked"):
        preflight._asked(client, len)
    client.run = lambda function, on_error: {"a": ValueError("a mistake of ours")}
    with pytest.raises(ValueError, match="mistake"):
        preflight._asked(client, len)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return the files of a certificate and its key, as settings of distributed, in the environment."""
    from distributed.security import Security

    folder = tmp_path_factory.mktemp("keys")
    made = Security.temporary()
    (folder / "key.pem").write_text(made.tls_client_key)
    (folder / "cert.pem").write_text(made.tls_client_cert)
    key, certificate = str(folder / "key.pem"), str(folder / "cert.pem")
    roles = {
        f"DASK_DISTRIBUTED__COMM__TLS__{role}__{kind}": path
        for role in ("CLIENT", "SCHEDULER", "WORKER")
        for kind, path in (("KEY", key), ("CERT", certificate))
    }
    return {"DASK_DISTRIBUTED__COMM__TLS__CA_FILE": certificate} | roles


@pytest.fixture
def secured(keys: dict[str, str]) -> Iterator[str]:
    """Yield the address of a scheduler with a worker that speaks to nobody without the keys."""
    from distributed import Nanny, Scheduler, SpecCluster
    from distributed.security import Security

    files = {name.rpartition("TLS__")[2].replace("__", "_").lower(): path for name, path in keys.items()}
    security = Security(require_encryption=True, **{f"tls_{name}": path for name, path in files.items()})
    worker = {
        "nthreads": 1,
        "host": "127.0.0.1",
        "dashboard": False,
        "security": security,
        "protocol": "tls://",
        "env": {**keys},
    }
    scheduler = {
        "host": "127.0.0.1",
        "port": 0,
        "dashboard": False,
        "dashboard_address": "127.0.0.1:0",
        "security": security,
        "protocol": "tls://",
    }
    with SpecCluster(
        workers={0: {"cls": Nanny, "options": worker}},
        scheduler={"cls": Scheduler, "options": scheduler},
        security=security,
    ) as opened:
        yield str(opened.scheduler_address)


def test_run_on_a_secured_scheduler(
    secured: str, keys: dict[str, str], tiny_model: Path, source: Path, tmp_path: Path
) -> None:
    assert secured.startswith("tls://")
    arguments = ("segment", source, "-m", tiny_model, "-q", *FLAGS)
    outcome = run_script(*arguments, "-o", tmp_path / "a.zarr", "--scheduler", secured, env=keys)
    assert (outcome.code, outcome.stderr) == (0, "")
    assert run_script(*arguments, "-o", tmp_path / "b.zarr", "--workers", "1").code == 0
    results = [
        zarr.open_array(str(tmp_path / each / "classes" / "0"), mode="r") for each in ("a.zarr", "b.zarr")
    ]
    on_tls, local = (np.asarray(each[...]) for each in results)
    np.testing.assert_array_equal(on_tls, local)


def test_secured_scheduler_is_not_reached_without_its_keys(
    secured: str, tiny_model: Path, source: Path, tmp_path: Path
) -> None:
    sink = tmp_path / "out.zarr"
    outcome = run_script("segment", source, "-m", tiny_model, "-o", sink, "--scheduler", secured)
    assert (outcome.code, len(outcome.lines)) == (3, 1), outcome.stderr
    assert not sink.exists()
