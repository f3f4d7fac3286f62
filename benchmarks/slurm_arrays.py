"""Arrays of jobs on a real Slurm, with kills and time limits (bar E4).

    python benchmarks/slurm_arrays.py [--arrays 50] [--at-once 4] [--seed 0] [--kills 3]

Slurm is started on this machine by examples/slurm/one_node.py. Each array is written by `unet-dask batch` for a small
image, half of them with a time limit of two minutes, of which Slurm takes up to one off. While they run, jobs are
requeued, cancelled with SIGKILL, and driver, worker or both are killed by number; one is told that its time is up.
An array whose jobs were cancelled is submitted once more, as anybody would. In the end each result must be that of
one run, byte for byte. Memory is the resident memory of all processes of a job, looked at twice a second, and held to
`--mem` by Slurm itself, which looks every second; a job that meets its `--time` would be found in state TIMEOUT.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
import zarr

import unet_dask
from unet_dask.model.header import NetworkSpec, Normalisation

sys.path.insert(0, str(Path(__file__).parents[1] / "examples" / "slurm"))
from one_node import one_node

SCRIPT = str(Path(sys.executable).with_name("unet-dask"))
SETTINGS = "--products classes,instances --workers 1 --threads 1 --memory 1GiB"
SETTINGS += " --region 64,64 --tile 64,64 --chunks 64,64"
_SIDE = 384
#: Times an array is submitted at most, and seconds that all of it may take.
_ROUNDS, _PATIENCE = 8, 1800.0
#: Seconds that a command of Slurm may take.
_ANSWER = 10.0


@dataclass
class Array:
    """One array, and what became of it."""

    number: int
    folder: Path
    parts: int
    memory: int
    kills: int
    job: str = ""
    rounds: int = 0
    began: float = field(default_factory=time.monotonic)
    suffered: list[str] = field(default_factory=list)

    @property
    def sink(self) -> Path:
        return self.folder / "out.zarr"


@dataclass(frozen=True)
class Job:
    """One job of an array, as Slurm lists it."""

    array: str
    task: str
    number: str
    state: str

    @property
    def name(self) -> str:
        """What it is told by: one job of an array has the number of the array, which means all of them."""
        return f"{self.array}_{self.task}"


class Slurm:
    """What Slurm is asked and told."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.environment = environment
        self.log = Path(environment["SLURM_CONF"]).with_name("jobs.txt")

    def __call__(self, *command: str) -> str:
        """Return what a command prints; scancel tries again for minutes what cannot be done now, and may not."""
        with suppress(subprocess.TimeoutExpired):
            done = subprocess.run(
                command, env=self.environment, capture_output=True, text=True, check=False, timeout=_ANSWER
            )
            return done.stdout.strip()
        return ""

    def jobs(self) -> list[Job]:
        """Return every job that is not over."""
        answer = ""
        while not answer.startswith("ARRAY"):  # else an answer that is late would read as the end of all
            answer = self("squeue", "--array", "--format=%F %K %A %T")
        return [Job(*line.split()) for line in answer.splitlines()[1:]]

    def states(self) -> Counter[str]:
        """Return how often jobs ended in each state; a requeued one ends once more each time."""
        text = self.log.read_text() if self.log.exists() else ""
        return Counter(re.findall(r"JobState=(\w+)", text))


def processes() -> dict[str, list[psutil.Process]]:
    """Return the processes of each job, by its number."""
    found = defaultdict(list)
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            number = process.environ().get("SLURM_JOB_ID")
            if number and process.name() not in ("slurmstepd", "slurmd"):
                found[number].append(process)
    return found


class Watch(threading.Thread):
    """Looks at the memory of all jobs."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peaks: Counter[str] = Counter()
        self.over = threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.5):
            for number, members in processes().items():
                resident = 0
                for each in members:
                    with suppress(psutil.Error):
                        resident += each.memory_info().rss
                self.peaks[number] = max(self.peaks[number], resident)


def kill(slurm: Slurm, job: Job, how: str) -> bool:
    """Do something to a job; return whether there was something to do it to."""
    members = processes().get(job.number, [])
    runs = [each for each in members if "unet-dask" in " ".join(each.cmdline()[:2])]
    workers = [each for each in members if "fork_server" in " ".join(each.cmdline())]
    if how == "requeue":
        slurm("scontrol", "requeue", job.name)
    elif how == "cancel":
        slurm("scancel", "--signal=KILL", job.name)
    elif how == "time is up":
        slurm("scancel", "--signal=USR1", "--batch", job.name)
    else:
        chosen = {"driver": runs[:1], "worker": workers[-1:], "all": runs + workers}[how]
        for each in chosen:
            with suppress(psutil.Error):
                each.send_signal(signal.SIGKILL)
        return bool(chosen)
    return True


WAYS = ("requeue", "requeue", "cancel", "time is up", "driver", "worker", "all")


def content(root: Path) -> dict[str, str]:
    """Return the digest of every file."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def prepared(folder: Path) -> dict[str, str]:
    """Make image and network, and return the content of what one run writes."""
    values = np.random.default_rng(0).integers(0, 256, (_SIDE, _SIDE), np.uint8)
    image = zarr.create_array(
        str(folder / "image.zarr"),
        shape=values.shape,
        dtype="uint8",
        chunks=(64, 64),
        dimension_names=["y", "x"],
    )
    image[...] = values
    model = unet_dask.new_model(
        NetworkSpec(dims=2, width=4, depth=2, channels=1, classes=2),
        seed=0,
        normalisation=Normalisation("constant", (127.5,), (64.0,)),
    )
    unet_dask.save_model(model, folder / "net.safetensors")
    subprocess.run(
        [
            SCRIPT,
            "segment",
            "image.zarr",
            "-m",
            "net.safetensors",
            "-o",
            "whole.zarr",
            "-q",
            *SETTINGS.split(),
        ],
        cwd=folder,
        check=True,
    )
    return content(folder / "whole.zarr")


def written(folder: Path, number: int, chance: random.Random, kills: int) -> Array:
    """Write the script of an array."""
    place, parts = folder / f"array {number}", chance.choice((2, 3))
    place.mkdir()
    limit = ["--time", "2"] if number % 2 else []
    command = [
        SCRIPT,
        "batch",
        str(folder / "image.zarr"),
        "-m",
        str(folder / "net.safetensors"),
        "-o",
        "out.zarr",
    ]
    made = subprocess.run(
        [*command, "--parts", str(parts), "--slurm", "--json", *limit, *SETTINGS.split()],
        cwd=place,
        capture_output=True,
        text=True,
        check=True,
    )
    said = json.loads(made.stdout)
    (place / "job.sh").write_text(said["script"])
    return Array(number, place, parts, said["memory"], chance.randint(1, kills))


def submit(slurm: Slurm, array: Array) -> None:
    array.job = slurm("sbatch", "--parsable", str(array.folder / "job.sh"))
    array.rounds += 1
    if not array.job:
        raise SystemExit(f"sbatch refused {array.folder / 'job.sh'}")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--arrays", type=int, default=50)
    parser.add_argument("--at-once", type=int, default=4, help="jobs, and arrays in hand")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kills", type=int, default=3, help="most that befall an array")
    parser.add_argument("--folder", type=Path, help="for scripts, logs and results [a temporary one]")
    asked = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="slurm-arrays-") as name,
        one_node(cpus=asked.at_once, memory=asked.at_once * 1024) as environment,
    ):
        folder = asked.folder or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        return tried(folder.absolute(), Slurm(environment), asked)


def tried(folder: Path, slurm: Slurm, asked: argparse.Namespace) -> int:
    """Run all arrays, print what became of each, and return how many are not right."""
    chance, expected, watch = random.Random(asked.seed), prepared(folder), Watch()
    watch.start()
    running, wrong, suffered = [], [], Counter[str]()
    rounds, of_array, most = 0, {}, 0
    writers = ThreadPoolExecutor(3)
    seeds = [random.Random(f"{asked.seed}/{number}") for number in range(asked.arrays)]
    waiting = [
        writers.submit(written, folder, number, each, asked.kills) for number, each in enumerate(seeds)
    ]
    while waiting or running:
        while waiting and waiting[0].done() and len(running) < asked.at_once:
            array = waiting.pop(0).result()
            array.began = time.monotonic()
            submit(slurm, array)
            running.append(array)
        time.sleep(chance.uniform(0.5, 2.5))
        jobs = slurm.jobs()
        of_array |= {job.number: array for array in running for job in jobs if job.array == array.job}
        befall(slurm, jobs, running, chance)
        for array in [each for each in running if each.job not in {job.array for job in jobs}]:
            same = content(array.sink) == expected if array.sink.exists() else False
            late = time.monotonic() - array.began > _PATIENCE
            if not same and array.rounds < _ROUNDS and not late:
                submit(slurm, array)
                continue
            running.remove(array)
            rounds += array.rounds
            suffered.update(array.suffered)
            print(
                f"array {array.number}: {array.parts} parts, {'the same' if same else 'NOT THE SAME'}, submitted "
                f"{array.rounds} x, {time.monotonic() - array.began:.0f} s; {', '.join(array.suffered) or 'no kill'}",
                flush=True,
            )
            if not same:
                wrong.append(array)
                keep(array)
    watch.over.set()
    shares = {n: watch.peaks[n] / a.memory for n, a in of_array.items() if watch.peaks[n]}
    most = max(shares.values(), default=0.0)
    states = slurm.states()
    print(
        f"{asked.arrays - len(wrong)} of {asked.arrays} arrays are one run byte for byte; {rounds} submissions"
    )
    print(f"befell: {dict(suffered)}")
    print(f"states in which jobs ended: {dict(states)}")
    print(f"memory: {len(shares)} jobs, at most {most:.2f} of --mem; over it: {states['OUT_OF_MEMORY']}")
    print(f"time: jobs that met their limit: {states['TIMEOUT']}")
    return len(wrong) + states["OUT_OF_MEMORY"] + states["TIMEOUT"] + (most > 1)


def befall(slurm: Slurm, jobs: list[Job], running: list[Array], chance: random.Random) -> None:
    """Let something befall a job of an array that has not had its share, if any runs."""
    victims = [
        (array, job)
        for array in running
        for job in jobs
        if job.array == array.job and job.state == "RUNNING" and len(array.suffered) < array.kills
    ]
    if victims and chance.random() < 0.6:
        array, job = chance.choice(victims)
        how = chance.choice(WAYS)
        if kill(slurm, job, how):
            array.suffered.append(how)


def keep(array: Array) -> None:
    """Print what a job of an array that is not right has said."""
    for log in sorted(array.folder.glob("*.log")):
        print(f"--- {log.name}\n{log.read_text(errors='replace')[-3000:]}")
    for file in sorted((array.sink / "_unet_dask").rglob("*")):
        print(file.relative_to(array.sink))


if __name__ == "__main__":
    sys.exit(main())
