"""A run at the command line that is killed, group and all, and what is left of it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.conftest import SCRIPT, save_source
from tests.torture.bench import content
from unet_dask.ledger import Ledger

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import psutil

WORKERS = 2
#: Pieces of work that may be in flight: a wave and what is topped up before it has drained, or pyramid blocks.
IN_FLIGHT = 4 * WORKERS + WORKERS


@dataclass
class Victim:
    """A source, a model, and the tree that an undisturbed run writes."""

    root: Path
    source: Path
    model: Path
    #: file -> content of the undisturbed sink
    tree: dict[str, bytes]
    #: seconds that the undisturbed run took; 0 if nobody asked
    seconds: float = 0.0

    def start(self, sink: Path, *more: str) -> subprocess.Popen[str]:
        """Start a run in a process group of its own."""
        settings = "--workers 2 --threads 1 --products classes,probabilities -v"
        sizes = "--region 128,128 --tile 128,128 --chunks 64,64"
        return started(self.source, sink, self.model, f"{settings} {sizes}", *more)


def started(source: Path, sink: Path, model: Path, settings: str, *more: str) -> subprocess.Popen[str]:
    """Start a run at the command line, in a process group of its own."""
    places = [str(source), "-o", str(sink), "-m", str(model)]
    return subprocess.Popen(
        [SCRIPT, "segment", *places, *settings.split(), *more],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def is_worker(process: psutil.Process) -> bool:
    """Return whether a process is a run's worker: a spawned one, or one that was forked from a server like it."""
    parent, line = process.parent(), process.cmdline()
    forked = parent is not None and parent.cmdline() == line and "fork_server" in " ".join(line)
    return forked or "spawn_main" in " ".join(line)


def entries(sink: Path) -> set[Any]:
    return set(Ledger(str(sink / "_unet_dask")).entries()) if sink.exists() else set()


def recorded(sink: Path, level: int) -> int:
    """Return how many pieces of work of a level are in the ledger."""
    return sum(each == level for each, _ in entries(sink))


def computed(stderr: str) -> int:
    """Return the pieces of work that a run with -v did."""
    return len(re.findall(r"^\w[\w ]* \([\d, ]+\) in ", stderr, re.MULTILINE))


def kill(process: subprocess.Popen[str]) -> None:
    """Kill a whole process group, and wait until nothing of it is left that could write."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    with suppress(ProcessLookupError):
        while True:  # signal 0 asks whether the group has a member left
            os.killpg(process.pid, 0)
            time.sleep(0.02)


def victim(root: Path, model: Path, *, timed: bool = False) -> Victim:
    """Return a run of 64 regions and its undisturbed tree; a second run tells how long one takes."""
    made = Victim(root, save_source(root / "big.zarr", (1024, 1024)), model, {})
    for name in ("cold.zarr", "warm.zarr") if timed else ("cold.zarr",):
        began = time.monotonic()
        process = made.start(root / name)
        _, stderr = process.communicate(timeout=200)
        assert process.returncode == 0, stderr
        made.seconds = time.monotonic() - began
        made.tree = content(root / name)
    return made


@dataclass(frozen=True)
class Figures:
    """What a killed and resumed run did, in pieces of work."""

    recorded: int
    begun: int
    computed: int
    total: int


def killed_and_resumed(victim: Victim, sink: Path, now: Callable[[], bool]) -> Figures:
    """Kill a run when it is time, resume it, and demand the undisturbed tree."""
    process = victim.start(sink)
    while process.poll() is None and not now():
        time.sleep(0.01)
    kill(process)
    before = entries(sink)
    begun = max(written(sink) - sum(level == 0 for level, _ in before), 0)
    resumed = victim.start(sink, "--resume")
    _, stderr = resumed.communicate(timeout=300)
    assert resumed.returncode == 0, stderr
    assert "Traceback" not in stderr
    found = content(sink)
    assert sorted(found) == sorted(victim.tree)
    assert [name for name in found if found[name] != victim.tree[name]] == []
    return Figures(len(before), begun, computed(stderr), len(entries(sink)))


def written(sink: Path) -> int:
    """Return the regions, of two by two chunks, of which the last product is on disk."""
    chunks = (sink / "probabilities" / "0" / "c").glob("1/*/*")
    return len({(int(path.parent.name) // 2, int(path.name) // 2) for path in chunks if path.name.isdigit()})
