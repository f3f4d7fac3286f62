"""A password or a signature in the address of a source: it opens the source, and is found nowhere else (D4)."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

import unet_dask
from tests.conftest import SCRIPT, save_source
from tests.io.source.test_remote import CANARY, Server
from unet_dask.errors import IncompleteError
from unet_dask.io.source import content

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from unet_dask.workers.cluster import Cluster

FLAGS = ("--precision", "float32", "--region", "160,160", "--tile", "160,160", "--chunks", "160,160")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """Serve the folder, whose private part asks for the canary."""
    (tmp_path / "private").mkdir()
    save_source(tmp_path / "private" / "a.zarr", (320, 320))
    running = Server(tmp_path)
    yield running
    running.server.shutdown()
    running.server.server_close()


def address(server: Server) -> str:
    """Return the URL of the source, with a password and a signature."""
    return f"http://me:{CANARY}@{server.host}/private/a.zarr?sig={CANARY}"


def unseen_chunk() -> str:
    """Return the path of a chunk of the source that is read by workers only."""
    sampled = content._spread(100, content.REMOTE_SAMPLES)
    y, x = divmod(next(number for number in range(100) if number not in sampled), 10)
    return f"c/{y}/{x}"


def told(*arguments: object, code: int = 0) -> str:
    """Run a command whose libraries log all that they can; return everything that it prints."""
    levels = {"DASK_LOGGING__DISTRIBUTED": "debug", "DASK_DISTRIBUTED__LOGGING__DISTRIBUTED": "debug"}
    done = subprocess.run(
        [SCRIPT, *map(str, arguments)], capture_output=True, text=True, check=False, env=os.environ | levels
    )
    assert done.returncode == code, done.stderr[-2000:]
    return done.stdout + done.stderr


def files_with_canary(folder: Path) -> list[str]:
    """Return the files, by content or name, in which the secret stands."""
    return [
        str(path)
        for path in folder.rglob("*")
        if CANARY in path.name or (path.is_file() and CANARY.encode() in path.read_bytes())
    ]


def test_no_command_prints_or_keeps_a_secret(server: Server, tiny_model: Path, tmp_path: Path) -> None:
    made = tmp_path / "made"
    made.mkdir()
    sink, common = made / "out.zarr", ("-m", tiny_model, "--workers", "1", *FLAGS)
    printed = told("segment", address(server), "-o", sink, *common, "--report", made / "run.html")
    printed += told("segment", address(server), "-o", sink, *common, "--dry-run", "--overwrite")
    printed += told("segment", address(server), "-o", sink, *common, "--resume")
    printed += told("info", address(server)) + told("info", sink)
    printed += told("preview", sink, "-o", made / "look.png") + told("verify", sink)
    assert "distributed" in printed  # that their loggers were heard
    assert CANARY in "".join(server.asked)
    assert CANARY not in printed
    assert files_with_canary(made) == []


def test_no_failure_prints_or_keeps_a_secret(server: Server, tiny_model: Path, tmp_path: Path) -> None:
    made = tmp_path / "made"
    made.mkdir()
    server.broken.append(unseen_chunk())
    printed = told(
        "segment", address(server), "-o", made / "out.zarr", "-m", tiny_model, "--workers", "1", *FLAGS,
        "--report", made / "run.html", code=4,
    )  # fmt: skip
    server.broken.append("zarr.json")
    printed += told("segment", address(server), "-o", made / "other.zarr", "-m", tiny_model, code=2)
    assert "127.0.0.1" in printed
    assert CANARY not in printed
    assert files_with_canary(made) == []


def test_no_key_event_or_log_of_the_cluster_holds_a_secret(
    server: Server, cluster: Cluster, tiny_model: Path, tmp_path: Path
) -> None:
    cuts: dict[str, Any] = {
        "region": (160, 160),
        "tile": (160, 160),
        "chunks": (160, 160),
        "precision": "float32",
    }
    unet_dask.segment_store(address(server), tmp_path / "out.zarr", tiny_model, client=cluster.client, **cuts)
    server.broken.append(unseen_chunk())
    with pytest.raises(IncompleteError) as failed:
        unet_dask.segment_store(
            address(server), tmp_path / "other.zarr", tiny_model, client=cluster.client, **cuts
        )
    client = cluster.client
    keys = client.run_on_scheduler(lambda dask_scheduler: str(list(dask_scheduler.transition_log)))
    seen = f"{failed.value} {failed.value.__cause__} {client.get_worker_logs()} {client.get_scheduler_logs()}"
    assert "segment-" in keys
    assert "Compute Failed" in seen
    assert CANARY not in keys + seen + str(client.get_events())
