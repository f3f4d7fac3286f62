"""A run on the GPU that was killed resumes to the same bytes, though other processes load the kernels anew."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.conftest import save_source
from tests.killing import IN_FLIGHT, Victim, entries, killed_and_resumed
from tests.torture.bench import content

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

pytestmark = pytest.mark.gpu


class OnGpu(Victim):
    """A run whose two workers share the GPUs."""

    def start(self, sink: Path, *more: str) -> subprocess.Popen[str]:
        """Start a run in a process group of its own."""
        return super().start(sink, "--device", "cuda", "--precision", "float16", *more)


@pytest.mark.timeout(600)
def test_killed_run_resumes_to_the_same_bytes(tmp_path: Path, tiny_model: Path) -> None:
    bench = OnGpu(tmp_path, save_source(tmp_path / "big.zarr", (1024, 1024)), tiny_model, {}, 0.0)
    undisturbed = bench.start(tmp_path / "undisturbed.zarr")
    _, stderr = undisturbed.communicate(timeout=300)
    assert undisturbed.returncode == 0, stderr
    bench.tree = content(tmp_path / "undisturbed.zarr")
    sink = tmp_path / "out.zarr"
    figures = killed_and_resumed(bench, sink, lambda: sink.exists() and len(entries(sink)) >= 20)
    assert figures.computed == figures.total - figures.recorded
    assert figures.begun <= IN_FLIGHT
