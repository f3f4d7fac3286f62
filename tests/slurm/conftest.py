"""What the tests of Slurm share: a Slurm of one node. All of them are skipped where its daemons are not."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

EXAMPLE = Path(__file__).parents[2] / "examples" / "slurm" / "one_node.py"


def _example() -> Any:  # a module that mypy is not told of
    found = importlib.util.spec_from_file_location("one_node", EXAMPLE)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let what lies in this folder be of its tier."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.slurm)
            item.add_marker(pytest.mark.timeout(1800))


@pytest.fixture(scope="session")
def environment() -> Iterator[dict[str, str]]:
    """Return an environment whose commands find a Slurm that has this machine's cores twice."""
    example = _example()
    if lacking := example.missing():
        pytest.skip(f"there is no {', '.join(lacking)} here: make slurm, where Slurm is installed")
    with example.one_node(cpus=4, memory=6000) as found:
        folder = str(Path(sys.executable).parent)
        yield {**found, "PATH": f"{folder}{os.pathsep}{found['PATH']}"}


@pytest.fixture
def tell(environment: dict[str, str], tmp_path: Path) -> Callable[..., str]:
    """Return a function that runs a command of Slurm, or of this project, and returns what it prints."""

    def told(*command: str | Path, check: bool = True) -> str:
        words = [str(word) for word in command]
        done = subprocess.run(
            words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=1500
        )
        assert done.returncode == 0 or not check, done.stderr
        return done.stdout.strip()

    return told
