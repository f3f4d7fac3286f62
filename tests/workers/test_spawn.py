"""Scripts without ``if __name__ == "__main__":``, and those whose own processes would start a run."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

import unet_dask

if TYPE_CHECKING:
    from pathlib import Path

CALL = "unet_dask.segment_store({source!r}, {sink!r}, {model!r}, workers=1)\n"
#: Scripts that run at once whatever imports them, and how they are started.
UNGUARDED = {
    "plain": "import unet_dask\nprint('once')\n" + CALL,
    "in a function": "import unet_dask\ndef go():\n    print('once')\n    " + CALL + "go()\n",
    "own class": (
        "import dataclasses, pathlib, unet_dask\n"
        "class Mine(pathlib.PosixPath):\n    pass\n"
        "print('once')\nunet_dask.segment_store(Mine({source!r}), Mine({sink!r}), {model!r}, workers=1)\n"
    ),
}


def run(*arguments: str | Path, given: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], input=given, capture_output=True, text=True, timeout=120, check=False,
        env=os.environ | {"PYTHONWARNINGS": "ignore"},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "way"), [("in a function", "file"), ("plain", "stdin"), ("own class", "option")]
)
def test_script_without_guard_runs_once(
    way: str, kind: str, source: Path, tiny_model: Path, tmp_path: Path
) -> None:
    sink = tmp_path / "out.zarr"
    text = UNGUARDED[kind].format(source=str(source), sink=str(sink), model=str(tiny_model))
    script = tmp_path / "mine.py"
    script.write_text(text)
    ways: dict[str, tuple[str | Path, ...]] = {"file": (script,), "stdin": ("-",), "option": ("-c", text)}
    done = run(script)
    assert done.returncode == 0, done.stderr
    told, child = done.stdout.splitlines()
    assert told.startswith("told:")
    assert "__main__" in told
    assert child == "child"
