"""Sinks that are damaged while a run goes on: what is called complete is complete, and what is resumed is right."""

from __future__ import annotations

import random
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import save_source
from tests.test_instances import speckled
from tests.torture.bench import Bench, fresh, refusal
from tests.torture.tier import SEED, Tier, counted, tiers
from tests.torture.watchdog import in_time
from unet_dask.run import seal

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable
    from pathlib import Path

    from unet_dask.run.events import Event

#: Six regions of two chunks each, whose objects are joined, and two levels of pyramids.
SETTINGS = {
    "products": "classes,instances,probabilities",
    "precision": "float32",
    "region": (24, 260),
    "tile": (24, 260),
    "chunks": (24, 130),
}
PATIENCE = 120.0
#: Times that a run may have to be resumed.
PATIENT = 8


@pytest.fixture(scope="module")
def undisturbed(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    folder = tmp_path_factory.mktemp("damaged")
    source = save_source(folder / "source.zarr", (72, 520))
    speckled(folder)
    return replace(bench, source=source, model=folder / "m.safetensors", settings=SETTINGS).undisturbed()


def chunks(sink: Path, draw: random.Random, count: int) -> list[Path]:
    """Return some of the chunks that lie in a sink."""
    there = sorted(path for path in sink.rglob("c/**/*") if path.is_file() and "session-" not in str(path))
    return draw.sample(there, min(count, len(there)))


def delete(sink: Path, draw: random.Random) -> None:
    for path in chunks(sink, draw, draw.randint(1, 4)):
        path.unlink()


def empty(sink: Path, draw: random.Random) -> None:
    for path in chunks(sink, draw, draw.randint(1, 4)):
        path.write_bytes(b"")


def product(sink: Path, draw: random.Random) -> None:
    shutil.rmtree(sink / draw.choice(["classes", "probabilities", "instances"]), ignore_errors=True)


def level(sink: Path, draw: random.Random) -> None:
    name = draw.choice(["classes", "probabilities", "instances"])
    shutil.rmtree(sink / name / draw.choice("01") / "c", ignore_errors=True)


def document(sink: Path, draw: random.Random) -> None:
    found = sorted(path for path in sink.glob("*/**/zarr.json") if "_unet_dask" not in str(path))
    draw.choice([sink / "zarr.json", *found]).unlink(missing_ok=True)


def changed_document(sink: Path, draw: random.Random) -> None:
    found = [path for path in sorted(sink.glob("*/0/zarr.json")) if "_unet_dask" not in str(path)]
    for path in found[:1]:
        path.write_text(path.read_text().replace("520", "500"))


def manifest(sink: Path, draw: random.Random) -> None:
    (sink / "_unet_dask" / "zarr.json").unlink(missing_ok=True)


def ledger(sink: Path, draw: random.Random) -> None:
    shutil.rmtree(sink / "_unet_dask" / "ledger", ignore_errors=True)


def ledger_file(sink: Path, draw: random.Random) -> None:
    for path in (sink / "_unet_dask" / "ledger").glob("*.jsonl"):
        path.unlink()


def cut_ledger(sink: Path, draw: random.Random) -> None:
    for path in (sink / "_unet_dask" / "ledger").glob("*.jsonl"):
        with path.open("r+b") as file:
            file.truncate(draw.randint(0, path.stat().st_size))


def numbers(sink: Path, draw: random.Random) -> None:
    place = sink / "_unet_dask" / "numbers"
    shutil.rmtree(place if draw.random() < 0.5 else place / "c", ignore_errors=True)


def session(sink: Path, draw: random.Random) -> None:
    for path in (sink / "_unet_dask").glob("session-*"):
        shutil.rmtree(path, ignore_errors=True)


def everything(sink: Path, draw: random.Random) -> None:
    shutil.rmtree(sink, ignore_errors=True)


DAMAGE: list[Callable[[Path, random.Random], None]] = [
    delete, empty, product, level, document, changed_document, manifest, ledger, ledger_file, cut_ledger, numbers,
    session, everything,
]  # fmt: skip
#: What may be moved away, and put back at a later moment.
AWAY = [
    "classes",
    "instances/0/c",
    "classes/0/c",
    "probabilities/0/c/1",
    "_unet_dask/numbers/c",
    "_unet_dask/ledger",
]


class Vandal:
    """A listener of a run that does harm at one of its events, and may mend it at a later one.

    Parameters
    ----------
    sink : that it damages
    draw : decides what is done, and when
    events : of an undisturbed run
    """

    def __init__(self, sink: Path, draw: random.Random, events: int) -> None:
        self.sink = sink
        self.did = ""
        self._draw = draw
        self._left = draw.randrange(1, events)
        self._back: tuple[int, Path, Path] | None = None

    def __call__(self, event: Event) -> None:
        """Hear of an event."""
        self._left -= 1
        if self._left == 0:
            self._harm()
        if self._back and self._left <= self._back[0]:
            self.put_back()

    def _harm(self) -> None:
        if self._draw.random() < 0.3:
            name = self._draw.choice(AWAY)
            self.did = f"away {name}"
            if (self.sink / name).exists():
                hidden = self.sink.parent / "hidden"
                (self.sink / name).rename(hidden)
                self._back = (-self._draw.randint(1, 20), hidden, self.sink / name)
            return
        damage = self._draw.choice(DAMAGE)
        self.did = damage.__name__
        damage(self.sink, self._draw)

    def put_back(self) -> None:
        """Mend what can be mended, where nothing else lies by now."""
        if self._back:
            _, hidden, place = self._back
            self._back = None
            if place.parent.exists() and not place.exists():
                hidden.rename(place)
            else:
                shutil.rmtree(hidden)


def damaged(bench: Bench, folder: Path, draw: random.Random, events: int, counts: Counter[str]) -> list[str]:
    """Run while a sink is damaged, go on as the run says until it succeeds, and return what is wrong then."""
    sink = fresh(folder) / "out.zarr"
    vandal = Vandal(sink, draw, events)
    more: dict[str, Any] = {"on_event": vandal}
    said = []
    while True:
        told = in_time(PATIENCE, lambda: refusal(lambda: bench.run(sink, **more)))  # noqa: B023
        if not told:
            break
        counts["told"] += 1
        said.append(told)
        if len(said) > PATIENT:
            return [f"{vandal.did}: never done: {said}"]
        vandal.put_back()
        if "--overwrite" in told and ("start over" in told or len(said) > 2):
            more = {"overwrite": True}
        elif "Remove it" in told or "remove it yourself" in told:  # its root's document is what was removed
            shutil.rmtree(sink, ignore_errors=True)
            more = {}
        else:
            more = {"resume": True}
    vandal.put_back()
    counts[vandal.did] += 1
    return [f"{vandal.did}, {said}: {name}" for name in bench.wrong(sink)]


def count_events(bench: Bench, folder: Path) -> int:
    heard: list[Event] = []
    bench.run(fresh(folder) / "out.zarr", on_event=heard.append)
    return len(heard)


@tiers
def test_damaged_sinks_are_never_called_complete(tier: Tier, undisturbed: Bench, ram: Path) -> None:
    draw = random.Random(f"{SEED} damaged")
    with counted("T2 sinks damaged", tier) as counts:
        events = count_events(undisturbed, ram / "whole")
        findings = []
        for _ in range(tier.count(4, 150)):
            findings += damaged(undisturbed, ram / "round", draw, events, counts)
        assert findings == []


def test_control_run_that_is_not_looked_over_is_found(
    undisturbed: Bench, ram: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seal, "_lost", lambda *_: iter(()))
    sink = ram / "out.zarr"

    def listener(event: Event) -> None:
        if type(event).__name__ == "Stage" and "look" in str(event):
            (sink / "probabilities/0/c/0/1/2").unlink()

    undisturbed.run(sink, on_event=listener)
    assert undisturbed.wrong(sink) == ["probabilities/0/c/0/1/2"]
