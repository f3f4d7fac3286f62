"""Arrays on a real Slurm: requeued, at their time limit, killed, cancelled; the bytes are those of one run."""

from __future__ import annotations

import os
import re
import signal
import time
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.conftest import save_source
from tests.torture.bench import content

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Tell = Callable[..., str]

SETTINGS = "--products classes,instances --workers 1 --threads 1 --memory 1GiB"
SETTINGS += " --region 64,64 --tile 64,64 --chunks 64,64"


@pytest.fixture(scope="session")
def whole(
    tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, environment: dict[str, str]
) -> tuple[Path, dict[str, bytes]]:
    """Return a source, and what one run writes of it."""
    import subprocess

    folder = tmp_path_factory.mktemp("whole")
    source = save_source(folder / "source.zarr", (448, 448))
    command = ["unet-dask", "segment", str(source), "-m", str(tiny_model), "-o", str(folder / "out.zarr")]
    subprocess.run([*command, *SETTINGS.split()], env=environment, check=True, timeout=600)
    return source, content(folder / "out.zarr")


@pytest.fixture
def script(tell: Tell, whole: tuple[Path, dict[str, bytes]], tiny_model: Path, tmp_path: Path) -> Path:
    """Return the script of an array of two jobs, whose result is to be `out.zarr`."""
    command = ["unet-dask", "batch", whole[0], "-m", tiny_model, "-o", "out.zarr", "--parts", "2", "--slurm"]
    (tmp_path / "job.sh").write_text(tell(*command, "--time", "1", *SETTINGS.split()) + "\n")
    return tmp_path / "job.sh"


def running(tell: Tell, array: str) -> tuple[str, str]:
    """Return the name and the number of a job of an array that has begun to compute, once there is one.

    The number of one of them is that of the array, and means all of them to most commands.
    """
    while True:
        answer = tell("squeue", "--noheader", "--array", "--format=%F %K %A %T").splitlines()
        for of, task, number, state in map(str.split, answer):
            if (of, state) == (array, "RUNNING") and of_job(number, "fork_server"):
                return f"{array}_{task}", number
        assert answer, "the array is over before anything could befall it"
        time.sleep(0.2)


def of_job(number: str, word: str) -> list[int]:
    """Return the processes of a job that have a word in their command line."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("SLURM_JOB_ID") == number and word in " ".join(process.cmdline()):
                found.append(process.pid)
        except (psutil.Error, OSError):
            continue
    return found


def over(tell: Tell) -> None:
    """Wait until no job is left."""
    while tell("squeue", "--noheader"):
        time.sleep(1)


def states(tell: Tell, array: str) -> list[str]:
    """Return the state of every job of an array."""
    return re.findall(r"JobState=(\w+)", tell("scontrol", "-o", "show", "job", array))


def logs(folder: Path) -> str:
    return "".join(file.read_text() for file in sorted(folder.glob("*.log")))


def test_an_array_writes_what_one_run_writes(
    script: Path, tell: Tell, whole: tuple[Path, dict[str, bytes]]
) -> None:
    array = tell("sbatch", "--time=10", "--parsable", script)
    over(tell)
    assert content(script.parent / "out.zarr") == whole[1], logs(script.parent)
    assert states(tell, array) == ["COMPLETED"] * 2
    assert "go on with" not in logs(script.parent).lower()


@pytest.mark.parametrize(
    "accident", ["requeue", "time is up", "driver", "workers", "everything but the shell"]
)
def test_an_array_goes_on_by_itself(
    accident: str, script: Path, tell: Tell, whole: tuple[Path, dict[str, bytes]]
) -> None:
    array = tell("sbatch", "--parsable", "--time=10", script)
    name, number = running(tell, array)
    if accident == "requeue":
        tell("scontrol", "requeue", name)
    elif accident == "time is up":
        tell("scancel", "--signal=USR1", "--batch", name)
    else:
        server, driver = of_job(number, "fork_server"), of_job(number, "--part")
        for process in {"driver": driver, "workers": server}.get(accident, driver + server):
            os.kill(process, signal.SIGKILL)
    over(tell)
    assert content(script.parent / "out.zarr") == whole[1], logs(script.parent)
    assert set(states(tell, array)) == {"COMPLETED"}, logs(script.parent)
    starts = re.findall(r"Restarts=(\d+)", tell("scontrol", "-o", "show", "job", array))
    again = ["0", "1"] if accident in ("requeue", "time is up") else ["0", "0"]
    assert sorted(starts) == again, "its sibling is left alone"


def test_a_time_limit_that_is_too_short_is_gone_on_after(
    script: Path, tell: Tell, whole: tuple[Path, dict[str, bytes]]
) -> None:
    """The limit is a minute, of which half is for ending: Slurm signals within the first half minute."""
    array = tell("sbatch", "--parsable", script)
    over(tell)
    for _ in range(9):  # on a slow machine a job may finish nothing in its time
        if set(states(tell, array)) == {"COMPLETED"}:
            break
        array = tell("sbatch", "--parsable", "--time=3", script)
        over(tell)
    assert content(script.parent / "out.zarr") == whole[1], logs(script.parent)
    assert "TIMEOUT" not in states(tell, array)


def test_what_is_cancelled_stays_so_and_the_array_behind_it_goes_on(
    script: Path, tell: Tell, whole: tuple[Path, dict[str, bytes]]
) -> None:
    array = tell("sbatch", "--parsable", "--time=10", script)
    after = ["--dependency", f"afternotok:{array}", "--kill-on-invalid-dep=yes"]
    behind = tell("sbatch", "--parsable", "--time=10", *after, script)
    tell("scancel", "--signal=KILL", running(tell, array)[0])
    over(tell)
    assert "CANCELLED" in states(tell, array)
    assert states(tell, behind) == ["COMPLETED"] * 2, logs(script.parent)
    assert content(script.parent / "out.zarr") == whole[1], logs(script.parent)


def test_a_job_that_holds_more_than_it_asked_for_is_ended_by_this_slurm(tell: Tell, tmp_path: Path) -> None:
    """So that the others of these tests say something of `--mem`."""
    (tmp_path / "greedy.sh").write_text(
        "#!/bin/bash\npython -c 'import time; x = bytearray(400 << 20); time.sleep(60)'\n"
    )
    array = tell("sbatch", "--parsable", "--mem=100M", tmp_path / "greedy.sh")
    over(tell)
    assert states(tell, array) == ["OUT_OF_MEMORY"]
