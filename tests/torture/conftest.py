"""What the harnesses share: workers that are threads of this process, and an undisturbed run."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.conftest import save_source
from tests.torture.bench import SHAPE, Bench

if TYPE_CHECKING:
    from collections.abc import Iterator

    from distributed import Client

collect_ignore_glob = [] if sys.platform == "linux" else ["test_*.py"]  # descriptors are looked up in /proc


@pytest.fixture(scope="session")
def threads() -> Iterator[Client]:
    """Return a cluster in this process, where what is patched or watched holds for the workers too."""
    from distributed import Client, LocalCluster

    with (
        LocalCluster(
            n_workers=1, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0"
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


@pytest.fixture
def ram(tmp_path: Path) -> Iterator[Path]:
    """Return a folder in memory where the machine has one: thousands of runs wait for no disk there."""
    memory = Path("/dev/shm")  # a name is drawn in it
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(prefix="unet-dask-torture-", dir=memory) as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def bench(threads: Client, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Return a small run with two products and a pyramid."""
    source = save_source(tmp_path_factory.mktemp("torture") / "source.zarr", SHAPE)
    return Bench(source, tiny_model, threads).undisturbed()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let what lies in this folder, tried on little work, be of the slow tier."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent) and not item.get_closest_marker("torture"):
            item.add_marker(pytest.mark.slow)
