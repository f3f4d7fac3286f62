"""Workers that were given up come back in the middle of a write: nothing that has been finished since changes."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.conftest import save_source
from tests.test_instances import speckled
from tests.torture.bench import Bench, fresh, refusal
from tests.torture.shared import SILENCE, WRITES, drive, no_sessions, shared, until
from tests.torture.tier import SEED, Tier, counted, tiers
from tests.torture.watchdog import in_time

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterator
    from pathlib import Path

    from tests.torture.shared import Shared

#: Six regions of two chunks each, whose objects are joined, and two levels of pyramids.
SETTINGS = {
    "products": "classes,instances,probabilities",
    "precision": "float32",
    "region": (24, 260),
    "tile": (24, 260),
    "chunks": (24, 130),
    "threads": 1,
}
PATIENCE = 240.0


@pytest.fixture(scope="module")
def benches(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> tuple[Bench, Bench]:
    """Return two benches, of one source and two models."""
    folder = tmp_path_factory.mktemp("late")
    source = save_source(folder / "source.zarr", (72, 520))
    speckled(folder)
    first = replace(bench, source=source, model=folder / "m.safetensors", settings=SETTINGS)
    return replace(first, model=bench.model).undisturbed(), first.undisturbed()


def finish(bench: Bench, sink: Path, counts: Counter[str], *, overwrite: bool = False) -> None:
    """Run, and resume until a run succeeds."""
    more = {"overwrite": True} if overwrite else {"resume": sink.exists()}
    while said := in_time(PATIENCE, lambda: refusal(lambda: bench.run(sink, **more))):  # noqa: B023
        counts["told"] += 1
        assert "--resume" in said, said
        more = {"resume": True}


@contextmanager
def suspending(shared: Shared, draw: random.Random, counts: Counter[str]) -> Iterator[None]:
    """Suspend one of the workers at a random instant; it stays so until it is let go on."""
    ended = threading.Event()
    chosen, instant = draw.choice(shared.workers), draw.uniform(0.1, 1.5)

    def suspend() -> None:
        if not ended.wait(instant):
            os.kill(chosen.pid or 0, signal.SIGSTOP)
            counts["suspended at a random instant"] += 1

    thread = threading.Thread(target=suspend, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def comes_back(
    bench: Bench, shared: Shared, folder: Path, draw: random.Random, counts: Counter[str], *, anywhere: bool
) -> list[str]:
    """Run while a worker is suspended, continue it, and return what is wrong then."""
    shared.staff(2)
    sink = fresh(folder) / "out.zarr"
    if anywhere:
        with suspending(shared, draw, counts), shared.manned():
            finish(bench, sink, counts)
    else:
        skip_writes(shared, draw.randrange(60), "suspend")
        with shared.manned():
            finish(bench, sink, counts)
        counts["suspended in a write"] += 1 - shared.withdraw()
    found = bench.wrong(sink)
    time.sleep(SILENCE / 10)
    shared.release()
    return found + late(bench, sink, counts)


def late(bench: Bench, sink: Path, counts: Counter[str]) -> list[str]:
    """Return what has changed in a result since it was finished.

    What a worker leaves, that dies before it has removed what it wrote into an ended session, is no part of it.
    """
    wrong = bench.wrong(sink)
    left = [name for name in wrong if name.startswith("_unet_dask/session-")]
    counts["left in a session's folder"] += bool(left)
    return [f"late: {name}" for name in wrong if name not in left]


def skip_writes(shared: Shared, count: int, fault: str) -> None:
    """Order that the write after so many others suffers a fault."""
    shared.order(*["none"] * count, fault)


@tiers
def test_suspended_workers_that_come_back_change_nothing(
    tier: Tier, benches: tuple[Bench, Bench], ram: Path
) -> None:
    draw, bench = random.Random(f"{SEED} suspended"), benches[0]
    with counted("T2 workers that come back", tier) as counts, shared(ram / "tickets") as cluster:
        bench = replace(bench, client=cluster.client)
        for number in range(tier.count(2, 110)):
            findings = comes_back(bench, cluster, ram / "round", draw, counts, anywhere=bool(number % 2))
            assert findings == []
        assert counts["suspended in a write"] + counts["suspended at a random instant"] > 0


def lands_late(
    benches: tuple[Bench, Bench], shared: Shared, folder: Path, draw: random.Random, counts: Counter[str],
    *, plant: str = "",
) -> list[str]:  # fmt: skip
    """Kill a driver while a worker of it stands in a write, finish another run there, and let the write land."""
    first, second = draw.sample(benches, 2) if draw.random() < 0.7 else (benches[0],) * 2
    overwrite = first is not second
    fault = draw.choice(WRITES)
    shared.staff(2)
    sink = fresh(folder) / "out.zarr"
    skip_writes(shared, draw.randrange(40), fault)
    driver = drive(shared, str(first.source), str(sink), str(first.model), plant=plant, **first.settings)
    held = until(lambda: shared.held() or not driver.is_alive(), 120)
    driver.kill()
    driver.join()
    assert held
    shared.withdraw()
    counts[f"{fault}, then {'another model' if overwrite else 'a redo'}"] += bool(shared.held())
    with no_sessions() if plant else nullcontext(), shared.manned():
        finish(second, sink, counts, overwrite=overwrite)
    found = second.wrong(sink)
    shared.release()
    return found + late(second, sink, counts)


@tiers
def test_writes_that_land_after_another_run_change_nothing(
    tier: Tier, benches: tuple[Bench, Bench], ram: Path
) -> None:
    draw = random.Random(f"{SEED} stalled")
    with counted("T2 writes that land late", tier) as counts, shared(ram / "tickets") as cluster:
        both = (replace(benches[0], client=cluster.client), replace(benches[1], client=cluster.client))
        for _ in range(tier.count(2, 110)):
            assert lands_late(both, cluster, ram / "round", draw, counts) == []
        assert sum(counts.values()) > counts["told"]


def landed(
    both: tuple[Bench, Bench], cluster: Shared, folder: Path, draw: random.Random, counts: Counter[str]
) -> list[str]:
    """Return what a round finds where workers write in place.

    What lands late may make a folder anew that had been removed; no run takes that for its own, which is a find.
    """
    try:
        return lands_late(both, cluster, folder, draw, counts, plant="no sessions")
    except AssertionError as refused:
        if "is not a result of unet-dask" not in str(refused):
            raise
        return [f"late: {refused}"]


def test_control_workers_that_write_in_place_are_found(benches: tuple[Bench, Bench], ram: Path) -> None:
    draw = random.Random(SEED)
    with counted("control", Tier("small")) as counts, shared(ram / "tickets") as cluster:
        both = (replace(benches[0], client=cluster.client), replace(benches[1], client=cluster.client))
        found: list[str] = []
        for _ in range(8):
            found = landed(both, cluster, ram / "round", draw, counts)
            if found:
                break
    assert found
    assert all("late: " in each for each in found)
