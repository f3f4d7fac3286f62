"""The command line: fast to ask, quiet on success, one line on failure, data on standard output."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import zarr

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from unet_dask.workers.cluster import Cluster

COMMANDS = ["segment", "train", "init", "evaluate", "verify", "info", "preview", "view", "demo"]


@pytest.mark.parametrize(
    "arguments", [["--help"], *([command, "--help"] for command in COMMANDS)], ids=" ".join
)
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys, os; os._exit = sys.exit\n"
        "from unet_dask_cli import main\n"
        f"try: main({arguments!r})\n"
        "except SystemExit as ended: assert not ended.code\n"
        "print(sorted({'torch', 'dask', 'distributed', 'zarr', 'scipy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert done.stderr == ""


def test_version(call_cli: Callable[..., Any]) -> None:
    outcome = call_cli("--version")
    assert outcome.code == 0
    assert "0.1" in outcome.stdout


@pytest.mark.parametrize(
    "arguments", [["segmnt"], ["segment"], ["segment", "--nope", "x"], ["info", "a", "b"]]
)
def test_misuse_is_one_line(arguments: list[str], call_cli: Callable[..., Any]) -> None:
    outcome = call_cli(*arguments)
    assert (outcome.code, len(outcome.lines)) == (2, 1), outcome.stderr
    assert "--help" in outcome.stderr


def test_dry_run_writes_nothing(
    source: Path,
    tiny_model: Path,
    tmp_path: Path,
    call_cli: Callable[..., Any],
    hash_tree: Callable[[Path], str],
) -> None:
    before = hash_tree(tmp_path)
    outcome = call_cli("segment", source, "-m", tiny_model, "--dry-run", "--json")
    plan = json.loads(outcome.stdout)
    assert (outcome.code, outcome.stderr) == (0, "")
    assert plan["shape"] == [1, 96, 96]
    assert plan["halo"] == [20, 20]
    assert hash_tree(tmp_path) == before


def test_quiet_success_says_nothing(
    source: Path, tiny_model: Path, tmp_path: Path, cluster: Cluster, call_cli: Callable[..., Any]
) -> None:
    scheduler = ["--scheduler", cluster.client.scheduler.address]
    outcome = call_cli("segment", source, "-m", tiny_model, "-q", *scheduler)
    assert (outcome.code, outcome.stdout, outcome.stderr) == (0, "", "")
    assert (tmp_path / "small.seg.zarr" / "classes").is_dir()


def test_outcome_as_json_is_alone_on_standard_output(
    source: Path, tiny_model: Path, tmp_path: Path, cluster: Cluster, call_cli: Callable[..., Any]
) -> None:
    scheduler = ["--scheduler", cluster.client.scheduler.address]
    outcome = call_cli("segment", source, "-o", tmp_path / "o.zarr", "-m", tiny_model, "--json", *scheduler)
    assert outcome.code == 0
    assert json.loads(outcome.stdout)["regions"] == 1


def test_settings_go_file_then_environment_then_flags(
    source: Path,
    tiny_model: Path,
    tmp_path: Path,
    call_cli: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "run.toml").write_text(
        'tile = [32, 32]\nroi = "0:64,0:64"\nchunks = [32, 32]\nregion = "64,64"'
    )
    monkeypatch.setenv("UNET_DASK_SEGMENT_TILE", "48,48")
    monkeypatch.setenv("UNET_DASK_SEGMENT_ROI", "0:80,0:80")
    outcome = call_cli(
        *("segment", source, "-m", tiny_model, "--dry-run", "--json", "--config", tmp_path / "run.toml"),
        *("--roi", "0:96,0:64"),
    )
    plan = json.loads(outcome.stdout)
    assert plan["region"][-2:] == [64, 64]
    assert plan["core"] == [48, 48]
    assert plan["roi"][-2:] == [[0, 96], [0, 64]]


def test_local_workers_from_the_installed_script(
    source: Path, tiny_model: Path, tmp_path: Path, run_cli: Callable[..., Any]
) -> None:
    outcome = run_cli("segment", source, "-o", tmp_path / "out.zarr", "-m", tiny_model, "--workers", "1")
    assert outcome.code == 0, outcome.stderr
    assert zarr.open_array(str(tmp_path / "out.zarr" / "classes" / "0")).shape == (96, 96)
    assert "Warning" not in outcome.stderr
