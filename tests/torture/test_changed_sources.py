"""Sources that are moved away, replaced, rewritten or cut while they are read, and put back or not.

What is called complete is the result of the source as it lies there in the end. Instants are counted in reads of
chunks, so that harm is done in the middle of a window as often as between two.
"""

from __future__ import annotations

import os
import random
import shutil
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from unittest import mock

import numpy as np
import pytest
import zarr

from tests.test_instances import speckled
from tests.torture.bench import Bench, content, fresh, refusal
from tests.torture.tier import SEED, Tier, counted, tiers
from tests.torture.watchdog import in_time
from unet_dask.io.bounded import RegularFiles
from unet_dask.io.source import witness
from unet_dask.run import seal

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from unet_dask.run.events import Event

    #: Mends what was done, if it can be.
    Undo = Callable[[], object]

#: Sixteen regions of one chunk each, which read up to nine chunks.
SETTINGS = {
    "products": "classes,instances,probabilities",
    "precision": "float32",
    "region": (32, 32),
    "tile": (32, 32),
    "chunks": (32, 32),
}
SHAPE = (128, 128)
PATIENCE = 120.0
#: Times that a run may have to be resumed.
PATIENT = 8
KINDS = ("v3", "v2", "sharded")


class EndedError(Exception):
    """The driver is gone."""


def write(group: Path, kind: str, seed: int, low: int = 0, high: int = 256) -> None:
    """Write a group with an array of noise, of one kind; those of one kind have the same documents."""
    of_kinds: dict[str, dict[str, Any]] = {
        "v3": {},
        "v2": {"zarr_format": 2},
        "sharded": {"shards": (64, 64), "chunks": (16, 16)},
    }
    more = of_kinds[kind]
    made = zarr.open_group(str(group), mode="w", zarr_format=more.pop("zarr_format", 3))
    array = made.create_array("raw", shape=SHAPE, dtype="u1", **{"chunks": (32, 32), **more})
    array[...] = np.random.default_rng(seed).integers(low, high, SHAPE).astype(np.uint8)


@pytest.fixture(scope="module")
def grounds(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bench]:
    """Return a bench for every kind of store; beside each source stands another one."""
    made = {}
    for number, kind in enumerate(KINDS):
        folder = tmp_path_factory.mktemp(kind)
        speckled(folder)
        write(folder / "store.zarr", kind, number)
        write(folder / "other.zarr", kind, number + 100)
        write(folder / "flat.zarr", kind, 0, 77, 78)
        source = folder / "store.zarr" / "raw"
        made[kind] = replace(bench, source=source, model=folder / "m.safetensors", settings=SETTINGS)
    return made


def theirs_of(path: Path, name: str = "other.zarr") -> Path:
    """Return the same place in another source."""
    store = next(each for each in (path, *path.parents) if each.name == "store.zarr")
    return store.with_name(name) / path.relative_to(store)


def move(path: Path, draw: random.Random) -> Undo:
    away = path.with_name(f"{path.name}.away")
    path.rename(away)
    return lambda: away.rename(path)


def swap(path: Path, draw: random.Random) -> Undo:
    """Put the other source's file or folder in its place; its documents are the same."""
    theirs = theirs_of(path)
    away = path.with_name(f"{path.name}.away")
    path.rename(away)
    theirs.rename(path)

    def undo() -> None:
        path.rename(theirs)
        away.rename(path)

    return undo


def delete(path: Path, draw: random.Random) -> Undo:
    content = path.read_bytes()
    path.unlink()
    return lambda: path.write_bytes(content)


def rewrite(path: Path, draw: random.Random) -> Undo:
    """Write other values in place of a chunk, as many bytes or fewer."""
    content, found = path.read_bytes(), path.stat()
    path.write_bytes(theirs_of(path).read_bytes())

    def undo() -> None:
        path.write_bytes(content)
        if draw.random() < 0.5:  # as `cp --preserve` does
            os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))

    return undo


def smaller(path: Path, draw: random.Random) -> Undo:
    """Write a chunk of one value in its place, of another size."""
    content = path.read_bytes()
    path.write_bytes(theirs_of(path, "flat.zarr").read_bytes())
    return lambda: path.write_bytes(content)


def targets(store: Path) -> tuple[list[Path], list[Path]]:
    """Return the files of chunks in a store, and everything that may be moved."""
    raw = store / "raw"
    files = sorted(path for path in raw.rglob("*") if path.is_file() and path.name[0] not in ".z")
    folders = [path for path in (raw / "c", raw / "c" / "1", raw / "c" / "3") if path.is_dir()]
    return files, [store, raw, *folders]


def harm(store: Path, draw: random.Random) -> tuple[str, Undo]:
    """Do something to a source."""
    files, folders = targets(store)
    kind = draw.choice(["move", "move", "swap", "swap", "delete", "rewrite", "smaller"])
    if kind in ("move", "swap"):
        path = draw.choice([draw.choice(folders), draw.choice(files)])
        undo = {"move": move, "swap": swap}[kind](path, draw)
        where = "chunk" if path in files else path.name
        return f"{kind} {where}", undo
    return kind, {"delete": delete, "rewrite": rewrite, "smaller": smaller}[kind](draw.choice(files), draw)


class Meddler:
    """Counts reads of chunks of a source; harms it at one of them, and mends it at a later one.

    Parameters
    ----------
    store : of the source
    draw : decides
    reads : of an undisturbed run
    """

    def __init__(self, store: Path, draw: random.Random, reads: int) -> None:
        self.did = "nothing"
        self.harmed = False
        self._store = store
        self._draw = draw
        self._first = draw.randrange(reads)
        self._last = self._first + draw.choice([1, 2, 5, 20, reads, 10 * reads])
        self._undo: Undo | None = None
        self.reads = 0

    def read(self) -> None:
        """Hear of a read that is about to happen."""
        if self.reads == self._first:
            self.did, self._undo = harm(self._store, self._draw)
            self.harmed = True
        elif self.reads == self._last:
            self.mend()
        self.reads += 1

    def mend(self) -> None:
        """Put back what can be put back."""
        if self._undo:
            self._undo()
            self._undo = None

    @property
    def mended(self) -> bool:
        """Whether the source is what it was."""
        return self._undo is None


@contextmanager
def meddling(meddler: Meddler, store: Path) -> Iterator[None]:
    """Tell a meddler of every read of a chunk in a store."""
    real = RegularFiles.get

    async def get(self: RegularFiles, key: str, *more: Any, **named: Any) -> Any:
        if str(self.root).startswith(str(store)) and not key.endswith(
            (".json", ".zarray", ".zattrs", ".zgroup")
        ):
            meddler.read()
        return await real(self, key, *more, **named)

    with mock.patch.object(RegularFiles, "get", get):
        yield


def changed(ground: Bench, folder: Path, draw: random.Random, counts: Counter[str], reads: int) -> list[str]:
    """Run while a source is changed, go on as the run says until it succeeds, and return what is wrong then."""
    place = fresh(folder)
    for name in ("store.zarr", "other.zarr", "flat.zarr"):
        shutil.copytree(ground.source.parents[1] / name, place / name)
    bench, sink = replace(ground, source=place / "store.zarr" / "raw"), place / "out.zarr"
    meddler = Meddler(place / "store.zarr", draw, reads)
    with meddling(meddler, place / "store.zarr"):
        told = attempt(bench, sink, on_event=ending(draw.randrange(2, 40) if draw.random() < 0.3 else 10**9))
    if draw.random() < 0.7:
        meddler.mend()
    said: list[str] = []
    while told:
        said.append(told)
        if len(said) > PATIENT:
            return [f"{meddler.did}: never done: {said}"]
        if len(said) > PATIENT // 2 or not bench.source.exists():
            meddler.mend()
        told = attempt(bench, sink, **advised(told))
    counts["told"] += len(said)
    counts[f"{meddler.did}, {'put back' if meddler.mended else 'left'}"] += 1
    wrong = expected(bench, place).wrong(sink)
    return [f"{meddler.did}, {said}: {name}" for name in wrong if not name.startswith("_unet_dask/")]


def attempt(bench: Bench, sink: Path, **more: Any) -> str:
    """Return what a run was refused with, "" if it succeeded."""
    try:
        return in_time(PATIENCE, lambda: refusal(lambda: bench.run(sink, **more)))
    except EndedError:
        return "ended"


def ending(after: int) -> Callable[[Event], None]:
    """Return a listener that ends the driver after some events."""
    left = [after]

    def listener(event: Event) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise EndedError

    return listener


def advised(told: str) -> dict[str, Any]:
    """Return how a run is gone on with by somebody who does as she is told."""
    if "--source-fixed" in told:
        return {"resume": True, "source_fixed": True}
    return {"overwrite": True} if "--overwrite" in told else {"resume": True}


def expected(bench: Bench, place: Path) -> Bench:
    """Return a bench with what an undisturbed run makes of the source as it is."""
    bench.run(place / "expected.zarr")
    return replace(bench, tree=content(place / "expected.zarr"))


def count_reads(ground: Bench, folder: Path) -> int:
    store = ground.source.parent
    counter = Meddler(store, random.Random(0), 1)
    counter._first = -1
    with meddling(counter, store):
        ground.run(fresh(folder) / "out.zarr")
    return counter.reads


@tiers
@pytest.mark.parametrize("kind", KINDS)
def test_changed_sources_cost_no_voxel(kind: str, tier: Tier, grounds: dict[str, Bench], ram: Path) -> None:
    draw = random.Random(f"{SEED} {kind}")
    with counted(f"T2 sources changed, {kind}", tier) as counts:
        reads = count_reads(grounds[kind], ram / "whole")
        assert reads > 10
        findings = []
        for _ in range(tier.count(2, 60)):
            findings += changed(grounds[kind], ram / "round", draw, counts, reads)
        assert findings == []


def test_control_reader_without_witness_is_found(
    grounds: dict[str, Bench], ram: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(witness, "require_same", lambda *_: None)
    monkeypatch.setattr(seal, "_stale", lambda *_: iter(()))
    draw = random.Random(SEED)
    with counted("control", Tier("small")) as counts:
        found: list[str] = []
        for _ in range(12):
            found = changed(grounds["v3"], ram / "round", draw, counts, 60)
            if found:
                break
    assert found
