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
    done = run(*ways[way], given=text if way == "stdin" else None)
    assert (done.returncode, done.stdout.splitlines()) == (0, ["once"]), done.stderr
    assert "Traceback" not in done.stderr
    assert unet_dask.verify_store(sink, tiny_model).findings == ()


def test_process_of_the_user_that_is_only_being_started_is_told_of_the_guard(
    source: Path, tiny_model: Path, tmp_path: Path
) -> None:
    script = tmp_path / "mine.py"
    script.write_text(
        "import multiprocessing, unet_dask\n"
        "if __name__ != '__main__':\n    try:\n        "
        + CALL.format(source=str(source), sink=str(tmp_path / "out.zarr"), model=str(tiny_model))
        + "    except unet_dask.UnetDaskError as error:\n        print('told:', error, flush=True)\n"
        + "else:\n"
        + "    child = multiprocessing.get_context('spawn').Process(target=print, args=('child',))\n"
        + "    child.start()\n    child.join()\n"
    )
    done = run(script)
    assert done.returncode == 0, done.stderr
    told, child = done.stdout.splitlines()
    assert told.startswith("told:")
    assert "__main__" in told
    assert child == "child"
