"""A user's own configuration of Dask, broken or meant for another cluster: it is named in a line, or does no harm."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

import unet_dask
from tests.conftest import SCRIPT

if TYPE_CHECKING:
    from pathlib import Path

#: Files that Dask cannot read; what of them is named.
BROKEN = {
    "tabs": "distributed:\n\tworker: 1\n",
    "two-roots": "a: 1\n--- \nb: 2\n",
    "list": "- distributed\n- worker\n",
    "binary": "\x00\x01",
    "unclosed": 'distributed: {"worker": ',
}
#: Settings that a user may have for a cluster of hers, and ours must not follow.
MEANT_FOR_OTHERS = {
    "DASK_DISTRIBUTED__WORKER__MEMORY__TERMINATE": "0.01",
    "DASK_DISTRIBUTED__WORKER__MEMORY__PAUSE": "0.01",
    "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "-1",
    "DASK_DISTRIBUTED__SCHEDULER__WORK_STEALING": "False",
    "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "1ms",
    "DASK_DISTRIBUTED__NANNY__ENVIRON__OMP_NUM_THREADS": "64",
    "DASK_DISTRIBUTED__WORKER__PRELOAD": "['no_such_module']",
    "DASK_DISTRIBUTED__SCHEDULER__PRELOAD": "['no_such_module']",
    "DASK_SCHEDULER": "synchronous",
    "DASK_TEMPORARY_DIRECTORY": "/proc/nowhere",
    "DASK_ARRAY__CHUNK_SIZE": "1 kiB",
}


def segment(source: Path, model: Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [SCRIPT, "segment", source, "-m", model, "-o", source.parent / "out.zarr", "-j", "1", "-q"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=os.environ | env,
    )


@pytest.mark.parametrize("kind", list(BROKEN))
def test_broken_file_is_named_or_does_no_harm(
    kind: str, source: Path, tiny_model: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "config"
    folder.mkdir()
    (folder / "mine.yaml").write_text(BROKEN[kind])
    done = segment(source, tiny_model, DASK_CONFIG=str(folder))
    assert "Traceback" not in done.stderr
    assert done.returncode in (0, 2), done.stderr
    if done.returncode == 2:
        assert len(done.stderr.splitlines()) == 1
        assert "mine.yaml" in done.stderr
        assert not (source.parent / "out.zarr").exists()


def test_settings_for_another_cluster_do_no_harm_to_ours(source: Path, tiny_model: Path) -> None:
    done = segment(source, tiny_model, **MEANT_FOR_OTHERS)
    assert (done.returncode, done.stderr) == (0, "")
    assert unet_dask.verify_store(source.parent / "out.zarr", tiny_model).findings == ()


def test_commands_that_need_no_cluster_do_not_ask_for_its_configuration(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(BROKEN["unclosed"])
    done = subprocess.run(
        [SCRIPT, "init", "-o", tmp_path / "m.safetensors", "--width", "4", "--depth", "1"],
        capture_output=True, text=True, check=False, env=os.environ | {"DASK_CONFIG": str(tmp_path)},
    )  # fmt: skip
    assert (done.returncode, len(done.stderr.splitlines())) == (0, 1)
    assert "untrained" in done.stderr


def test_library_names_the_file_too(source: Path, tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(BROKEN["unclosed"])
    script = (
        "import sys, unet_dask\n"
        "try: unet_dask.segment_store(*sys.argv[1:], workers=1)\n"
        "except unet_dask.UnetDaskError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, source, source.parent / "out.zarr", tiny_model],
        capture_output=True, text=True, check=False, env=os.environ | {"DASK_CONFIG": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1
    assert "mine.yaml" in done.stdout
