"""What many tests share: tiny models, small sources, the command line run inside and outside of this process."""

from __future__ import annotations

import hashlib
import logging
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING

import dask
import numpy as np
import pytest
import zarr
from distributed import Client, LocalCluster

import unet_dask
from unet_dask.engine.slots import REGION_SLOTS
from unet_dask.model.header import NetworkSpec, Normalisation
from unet_dask.workers import cluster as clusters

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from unet_dask.workers.cluster import Cluster

#: oneDNN's own answer: it refuses to lay out weights in bfloat16 without AVX-512, emulated or not. It is asked when
#: such a test is about to run: torch takes a second to load, which tests that never run a network need not wait.
requires_onednn_bfloat16 = pytest.mark.skipif(
    "not __import__('torch').ops.mkldnn._is_mkldnn_bf16_supported()",
    reason="oneDNN has no bfloat16 on this processor",
)

#: The installed console script.
SCRIPT = str(Path(sys.executable).with_name("unet-dask"))


#: Files that take minutes, longest first. Each is done by one process, which would be alone with it in the end if it
#: were begun last; by itself pytest-xdist begins with those that have most tests.
LONGEST = (
    "test_secrets.py",
    "test_resume.py",
    "test_instances.py",
    "test_paper_examples.py",
    "test_changed_sources.py",
    "test_parts.py",
    "test_dispatch.py",
    "test_examples.py",
    "test_forged.py",
    "test_every_format.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest; the tests of a file stay together and in order."""
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


@dataclass(frozen=True)
class Outcome:
    """What a command line came to."""

    code: int
    stdout: str
    stderr: str

    @property
    def lines(self) -> list[str]:
        """Lines of standard error."""
        return self.stderr.splitlines()


def save_tiny_model(
    path: Path, *, dims: int = 2, channels: int = 1, classes: int = 2, seed: int = 0, kind: str = "constant"
) -> Path:
    """Write a model of depth 2 and width 4, whose halo is 20 and lattice 4."""
    constants = (127.5,) * channels, (64.0,) * channels
    model = unet_dask.new_model(
        NetworkSpec(dims=dims, width=4, depth=2, channels=channels, classes=classes),
        seed=seed,
        normalisation=Normalisation("constant", *constants)
        if kind == "constant"
        else Normalisation("volume"),
    )
    unet_dask.save_model(model, path)
    return path


def save_source(
    path: Path, shape: tuple[int, ...] = (96, 96), dtype: str = "uint8", *, axes: str = "yx", seed: int = 0
) -> Path:
    """Write a Zarr array of noise with named axes and chunks of 32."""
    values = np.random.default_rng(seed).integers(0, 256, shape).astype(dtype)
    chunks = tuple(min(32, size) or 1 for size in shape)
    array = zarr.create_array(str(path), shape=shape, dtype=dtype, chunks=chunks, dimension_names=list(axes))
    if values.size:
        array[...] = values
    return path


def say_of_bfloat16(answer: bool | None) -> None:
    """Let this process take its processor for one with bfloat16 or without; None for what it is."""
    from unet_dask.engine import device

    truth = vars(device).setdefault("_native_bfloat16", device.native_bfloat16)
    device.native_bfloat16 = truth if answer is None else lambda device="cpu": answer


@pytest.fixture
def emulation(cluster: Cluster) -> Iterator[None]:
    """Let processors without bfloat16 emulate it, here and on the workers: good enough for small tests."""
    say_of_bfloat16(True)
    cluster.client.run(say_of_bfloat16, True)
    yield
    say_of_bfloat16(None)
    cluster.client.run(say_of_bfloat16, None)


def tree_hash(root: Path) -> str:
    """Return a digest of the name and content of every file, and of every folder's name, below a path."""
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        digest.update(repr(str(path.relative_to(root))).encode())
        digest.update(path.read_bytes() if path.is_file() else b"/")
    return digest.hexdigest()


def run_script(*arguments: str | Path, env: dict[str, str] | None = None, timeout: float = 120) -> Outcome:
    """Run the installed console script."""
    done = subprocess.run(
        [SCRIPT, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        env=os.environ | (env or {}),
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="session", autouse=True)
def _interruptible() -> None:
    """Hear Ctrl-C and the end of a terminal: a shell or nohup has them ignored, and so would every child."""
    for ending, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(ending) is signal.SIG_IGN:
            signal.signal(ending, handler)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the path of a two-dimensional model for one channel and two classes."""
    return save_tiny_model(tmp_path_factory.mktemp("model") / "tiny.safetensors")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Return the path of a small source of its own for each test."""
    return save_source(tmp_path / "small.zarr")


@pytest.fixture(scope="session")
def make_model() -> Callable[..., Path]:
    """Return a function that writes a model of depth 2 and width 4."""
    return save_tiny_model


@pytest.fixture(scope="session")
def make_source() -> Callable[..., Path]:
    """Return a function that writes a Zarr array of noise."""
    return save_source


@pytest.fixture(scope="session")
def hash_tree() -> Callable[[Path], str]:
    """Return a function that digests names and contents of all files below a path."""
    return tree_hash


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Return two workers that many tests share: a user's own cluster, that her other processes reach too."""
    settings = clusters._local_settings(clusters.worker_environment(1), tmp_path_factory.mktemp("scratch"))
    with (
        dask.config.set(settings),
        clusters.quiet(),
        LocalCluster(
            n_workers=2,
            threads_per_worker=REGION_SLOTS,
            memory_limit=2 << 30,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            silence_logs=logging.CRITICAL,
            env=clusters.worker_environment(1),
        ) as opened,
        Client(opened, set_as_default=False) as client,
    ):
        yield clusters.Cluster(client, 2, 1, local=True)


@pytest.fixture
def run_cli() -> Callable[..., Outcome]:
    """Return a function that runs the installed console script in a process of its own."""
    return run_script


@pytest.fixture
def call_cli(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Return a function that calls the console script's entry point in this process."""
    (script,) = entry_points(group="console_scripts", name="unet-dask")
    main = script.load()
    monkeypatch.setenv("UNET_DASK_SLOW_EXIT", "1")

    def call(*arguments: str | Path) -> Outcome:
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        captured = capfd.readouterr()
        code = ended.value.code
        return Outcome(code if isinstance(code, int) else -1, captured.out, captured.err)

    return call
