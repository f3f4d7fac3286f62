"""Files for this user alone: who can read them, and when they go."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import dask.array as da
import numpy as np
import pytest

import unet_dask
from unet_dask import private
from unet_dask.engine import cache
from unet_dask.errors import OptionError
from unet_dask.model.file import model_file, new_model
from unet_dask.model.header import NetworkSpec
from unet_dask.workers.preflight import SentModel


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a temporary folder that all users share."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    folder.chmod(0o1777)
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(private, "_lasting", {})
    return folder


def modes(folder: Path) -> set[int]:
    return {path.stat().st_mode & 0o777 for path in folder.rglob("*")}


@pytest.mark.parametrize("mask", [0, 0o022, 0o077])
def test_nobody_else_reads_what_is_kept(shared: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        with private.folder() as folder:
            private.write(folder / "a", b"secret")
            assert modes(shared) == {0o700, 0o600}
            assert (folder / "a").read_bytes() == b"secret"
    finally:
        os.umask(before)
    assert not list(shared.iterdir())


def test_models_without_a_file_lie_where_nobody_else_looks(shared: Path) -> None:
    model = new_model(NetworkSpec(width=2, depth=1), seed=3)
    lazy = unet_dask.segment(da.zeros((24, 24), dtype=np.uint8), model)
    assert modes(shared) == {0o700, 0o600}
    (folder,) = shared.iterdir()
    assert model.checksum[:8] not in folder.name
    assert lazy.compute(scheduler="threads").shape == (24, 24)
    with model_file(model) as file:
        assert file.path.parent != folder
        assert modes(file.path.parent) == {0o600}
    assert list(shared.iterdir()) == [folder]


def test_models_that_are_sent_lie_where_nobody_else_looks(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "_SENT", {})
    with model_file(new_model(NetworkSpec(width=2, depth=1))) as file:
        content, checksum = file.path.read_bytes(), file.checksum
    for _ in range(2):
        SentModel(checksum, content).setup(SimpleNamespace())
    (path,) = cache._SENT.values()
    assert path.read_bytes() == content
    assert modes(shared) == {0o700, 0o600}


LASTING = """
import os, signal, sys, time
from unet_dask import private
private.write(private.lasting() / "kept", b"x")
print(private.lasting(), flush=True)
sys.stdin.read()
"""


def start() -> tuple[subprocess.Popen[str], Path]:
    """Start a process that keeps a file, and return where."""
    process = subprocess.Popen(
        [sys.executable, "-c", LASTING], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip()).resolve()


def aged(folder: Path) -> None:
    then = time.time() - 3600
    os.utime(folder, (then, then))


def test_what_is_kept_goes_with_its_process(shared: Path) -> None:
    process, folder = start()
    assert (folder / "kept").is_file()
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert not folder.exists()


@pytest.mark.skipif(os.name != "posix", reason="locks of the kernel")
def test_what_a_killed_process_left_is_swept_and_what_a_living_one_keeps_is_not(shared: Path) -> None:
    living, kept = start()
    killed, left = start()
    killed.send_signal(signal.SIGKILL)
    killed.communicate(timeout=60)
    other = shared / "unet-dask-results"
    other.mkdir(mode=0o700)
    for each in (kept, left, other):
        aged(each)
    with private.folder():
        assert kept.is_dir()
        assert other.is_dir()
        assert not left.exists()
    living.communicate(timeout=60)


@pytest.mark.skipif(os.name != "posix", reason="links of the file system")
def test_a_link_in_the_place_of_a_folder_is_left_alone(shared: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir(mode=0o700)
    (precious / "a").write_text("")
    (shared / f"{private._PREFIX}abcdefgh").symlink_to(precious)
    aged(precious)
    with private.folder():
        assert (precious / "a").is_file()


def test_no_place_for_temporary_files_is_one_line(shared: Path) -> None:
    shared.rmdir()
    with pytest.raises(OptionError, match="Set TMPDIR"), private.folder():
        pass
