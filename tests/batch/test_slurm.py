"""The script of an array for Slurm: what it says to `segment`, and what its jobs do when a run ends."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import save_source
from tests.torture.bench import content
from unet_dask.batch.needs import Needs
from unet_dask.batch.slurm import Array, parse_time
from unet_dask.errors import OptionError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.skipif(
    not shutil.which("bash") or os.name != "posix", reason="there is no bash here"
)

NEEDS = Needs(
    cores=4, gpus=0, memory=1000 << 20, seconds=3000, workers=2, threads=2, limit=1 << 30, device="cpu"
)
NASTY = 'a b\'s $HOME `id` "q" \\ #é*.zarr'
#: What stands for the program: it notes what it is told, and ends as the next line of a plan says.
STAND_IN = """\
import json, os, pathlib, signal, sys, time
here = pathlib.Path(sys.argv[1])
with (here / "calls").open("a") as file:
    print(json.dumps(sys.argv[2:]), file=file)
plan = (here / "plan").read_text().split()
(here / "plan").write_text(" ".join(plan[1:]))
word = plan[0]
if word.endswith("+"):
    ledger = here / "out.zarr" / "_unet_dask" / "ledger"
    ledger.mkdir(parents=True, exist_ok=True)
    (ledger / str(len(plan))).write_text("something")
if word.startswith(("wait", "deaf")):
    signal.signal(signal.SIGTERM, signal.SIG_IGN if word.startswith("deaf") else lambda *_: os._exit(143))
    os.kill(int((here / "shell").read_text()), getattr(signal, word.rstrip("+").partition("-")[2]))
    while True:
        time.sleep(0.05)
if word.startswith("killed"):
    os.kill(os.getpid(), signal.SIGKILL)
sys.exit(int(word.rstrip("+")))
"""


def array(at: Path, **changed: Any) -> Array:
    made = Array(
        program=[sys.executable, str(at / "stand_in.py"), str(at)],
        sources=["big.zarr"],
        arguments=[["-o", "out.zarr"], ["--measure"]],
        output="out.zarr",
        parts=8,
        folder=str(at),
    )
    return replace(made, **changed)


class Job:
    """A job that bash does here, beside a scontrol that takes notes."""

    def __init__(self, folder: Path, *plan: str, restarts: int = 0, **changed: Any) -> None:
        (folder / "stand_in.py").write_text(STAND_IN)
        (folder / "plan").write_text(" ".join(plan))
        control = folder / "bin" / "scontrol"
        control.parent.mkdir()
        control.write_text(f'#!/bin/sh\necho "$@" >> "{folder}/requeued"\n')
        control.chmod(0o755)
        script = array(folder, **changed).script(NEEDS)
        assert script.count("\n    sleep 5 ") == 1
        assert script.count("(sleep 150; ") == 1
        script = script.replace("\n    sleep 5 ", "\n    sleep 0 ").replace("(sleep 150; ", "(sleep 1; ")
        (folder / "job.sh").write_text(f'echo $$ > "{folder}/shell"\n{script}', encoding="utf-8")
        path = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
        about = {
            "SLURM_ARRAY_TASK_ID": "3",
            "SLURM_JOB_ID": "70",
            "SLURM_ARRAY_JOB_ID": "70",
            "SLURM_RESTART_COUNT": str(restarts),
        }
        self.done = subprocess.run(
            ["bash", str(folder / "job.sh")],
            cwd=folder,
            env=os.environ | about | {"PATH": path},
            capture_output=True,
            text=True,
            check=False,
            timeout=200,
        )
        self.calls = [json.loads(line) for line in (folder / "calls").read_text().splitlines()]
        noted = folder / "requeued"
        self.requeued = noted.read_text().splitlines() if noted.exists() else []


@pytest.mark.parametrize("code", [0, 1, 2, 4])
def test_what_another_try_would_not_change_ends_the_job(code: int, tmp_path: Path) -> None:
    job = Job(tmp_path, str(code))
    assert (job.done.returncode, len(job.calls), job.requeued) == (code, 1, [])


def test_every_word_reaches_the_program(tmp_path: Path) -> None:
    words = [["-o", NASTY], ["--mask", NASTY], ["--measure"]]
    job = Job(tmp_path, "0", sources=[NASTY, "-x"], arguments=words, output=NASTY)
    told = ["segment", "-o", NASTY, "--mask", NASTY, "--measure", "--part", "3/8", "--", NASTY, "-x"]
    assert job.calls == [told]


@pytest.mark.parametrize("accident", ["3", "killed"])
def test_a_run_that_was_lost_is_gone_on_with(accident: str, tmp_path: Path) -> None:
    job = Job(tmp_path, accident, f"{accident}+", accident, accident, "0")
    assert (job.done.returncode, len(job.calls), job.requeued) == (0, 5, [])


@pytest.mark.parametrize(("accident", "code"), [("3", 3), ("killed", 137)])
def test_a_run_that_is_lost_again_and_again_is_given_up(accident: str, code: int, tmp_path: Path) -> None:
    job = Job(tmp_path, f"{accident}+", *[accident] * 9)
    assert (job.done.returncode, len(job.calls), job.requeued) == (code, 4, [])


@pytest.mark.parametrize("restarts", [0, 1, 500])
def test_at_the_time_limit_a_job_goes_back_into_the_queue(restarts: int, tmp_path: Path) -> None:
    job = Job(tmp_path, "wait-SIGUSR1+", restarts=restarts)
    assert (job.done.returncode, len(job.calls), job.requeued) == (143, 1, ["requeue 70_3"])


def test_a_run_that_does_not_end_is_killed_before_the_wall(tmp_path: Path) -> None:
    job = Job(tmp_path, "deaf-SIGUSR1+")
    assert (job.done.returncode, len(job.calls), job.requeued) == (137, 1, ["requeue 70_3"])


def test_a_job_whose_time_is_too_short_for_anything_does_not_go_round_for_ever(tmp_path: Path) -> None:
    job = Job(tmp_path, "wait-SIGUSR1", restarts=2)
    assert (job.done.returncode, len(job.calls), job.requeued) == (143, 1, [])
    assert "--time" in job.done.stderr


def test_a_job_that_somebody_ends_stays_ended(tmp_path: Path) -> None:
    job = Job(tmp_path, "wait-SIGTERM+")
    assert (job.done.returncode, len(job.calls), job.requeued) == (143, 1, [])


def test_what_is_asked_for_stands_in_the_script(tmp_path: Path) -> None:
    text = array(tmp_path, folder='/a b\\"c').script(replace(NEEDS, gpus=2, seconds=200_000))
    for line in (
        "--array=1-8",
        "--cpus-per-task=4",
        "--gres=gpu:2",
        "--mem=1000M",
        "--time=2-07:33:20",
        "--signal=B:USR1@300",
        "--requeue",
        r'--chdir="/a b\\\"c"',
    ):
        assert f"#SBATCH {line}\n" in text
    assert "--gres" not in array(tmp_path).script(NEEDS)


def test_a_folder_that_would_end_the_line_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="folder"):
        array(tmp_path, folder="/a\n#SBATCH --uid=0").script(NEEDS)


def test_a_name_cannot_add_a_line_to_what_is_asked_for(tmp_path: Path) -> None:
    name = "x\n#SBATCH --nice=-5\n.zarr"
    job = Job(tmp_path, "0", sources=[name], output=name, arguments=[["-o", name]])
    head = (tmp_path / "job.sh").read_text().partition("program=")[0]
    assert not re.search(r"^#SBATCH --nice", head, re.MULTILINE)
    assert [line for line in head.splitlines() if not line.startswith("#")] == [
        f'echo $$ > "{tmp_path}/shell"',
        "",
    ]
    assert job.calls[0][-1] == name


def test_a_secret_is_not_in_the_title(tmp_path: Path) -> None:
    text = array(tmp_path, sources=["https://me:geheim@host/big.zarr"]).script(NEEDS)
    assert "geheim" not in text.partition("program=")[0]


@pytest.mark.parametrize("text", ["", "0", "soon", "0:30", "-1", "1:2:3:4", "1-", "1e3", "٣"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(OptionError, match="time limit"):
        parse_time(text)


def test_the_jobs_together_write_what_one_run_writes(
    tiny_model: Path, tmp_path: Path, run_cli: Callable[..., Any]
) -> None:
    source = save_source(tmp_path / "the source.zarr", (96, 96))
    sizes = ["-m", tiny_model, "--workers", "1", "--memory", "1GiB", "--region", "32,32", "--chunks", "32,32"]
    whole = run_cli("segment", source, "-o", tmp_path / "whole.zarr", *sizes)
    assert whole.code == 0, whole.stderr
    said = run_cli("batch", source, "-o", tmp_path / "the parts.zarr", *sizes, "--parts", "2", "--slurm")
    assert said.code == 0, said.stderr
    (tmp_path / "job.sh").write_text(said.stdout)
    for number in ("2", "1"):
        subprocess.run(
            ["bash", str(tmp_path / "job.sh")],
            env=os.environ | {"SLURM_ARRAY_TASK_ID": number},
            check=True,
            timeout=250,
        )
    assert content(tmp_path / "the parts.zarr") == content(tmp_path / "whole.zarr")
