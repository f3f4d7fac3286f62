"""After a power cut at any moment, whatever of the unflushed was kept, a run resumes to the same bytes.

The disks are built from a tape of everything that a run did to its files. A state that cannot be resumed must be
refused in one line, be replaceable, and hold no work that was recorded as done.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest

import unet_dask
from tests.conftest import save_tiny_model
from tests.torture.bench import Bench, fresh, refusal
from tests.torture.calls import watched
from tests.torture.tape import Tape, materialise
from tests.torture.tier import SEED, Tier, counted, tiers
from unet_dask import durable
from unet_dask.io.sink import session, store
from unet_dask.ledger import Ledger
from unet_dask.run import seal

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.torture.tape import Tree


@dataclass(frozen=True)
class Scene:
    """What stands at the sink's place before the power is at risk, what is then done there, and who goes on."""

    before: Callable[[Bench, Path], object]
    during: Callable[[Bench, Path], object]
    after: Callable[[Bench, Path], object]


def nothing(bench: Bench, sink: Path) -> None:
    """Leave the place empty."""


def begin(bench: Bench, sink: Path) -> None:
    bench.run(sink)


def resume(bench: Bench, sink: Path) -> None:
    bench.run(sink, resume=True)


def half(bench: Bench, sink: Path) -> None:
    """Leave what a killed run leaves: a ledger of two lines, and a chunk that is half-written."""
    bench.run(sink)
    final = sink / "_unet_dask" / "ledger.jsonl"
    lines = final.read_bytes().splitlines(keepends=True)
    final.unlink()
    (sink / "_unet_dask" / "ledger").mkdir()
    (sink / "_unet_dask" / "ledger" / "0.jsonl").write_bytes(b"".join(lines[:2]))
    (sink / "classes" / "0" / "c" / "1" / "0").unlink()


def damage(bench: Bench, sink: Path) -> None:
    bench.run(sink)
    chunk = sink / "classes" / "0" / "c" / "0" / "1"
    chunk.write_bytes(chunk.read_bytes()[:-3])
    (sink / "probabilities" / "1" / "c" / "0" / "0" / "0").unlink()


def repair(bench: Bench, sink: Path) -> None:
    unet_dask.repair_store(sink, bench.model, crops=0, client=bench.client)


SCENES = {
    "begun": Scene(nothing, begin, resume),
    "resumed": Scene(half, resume, resume),
    "repaired": Scene(damage, repair, repair),
}
#: What may be left in a folder of a run, and means nothing.
LEFT = re.compile(r"_unet_dask/(lock|session-[0-9a-f]+(\.ended)?/.*)")
scenes = pytest.mark.parametrize("scene", list(SCENES))


def taped(scene: Scene, bench: Bench, folder: Path) -> Tape:
    """Return the tape of a scene that was played undisturbed."""
    place = fresh(folder / "taped").resolve()
    scene.before(bench, place / "out.zarr")
    tape = Tape(place)
    with watched(place, tape):
        scene.during(bench, place / "out.zarr")
    assert bench.wrong(place / "out.zarr") == []
    assert len(tape.steps) > tape.first
    return tape


def states(tape: Tape, count: int, draw: random.Random, *, late: float = 0.0) -> list[Tree]:
    """Return different disks that a power cut could have left, fewer than `count` where there are no more.

    Parameters
    ----------
    tape : of what was done
    count : of disks
    draw : decides when the power is cut, and what is kept
    late : share of what was done before which it is not cut
    """
    first = round(tape.first + late * (len(tape.steps) - tape.first))
    found: dict[int, Tree] = {}
    for _ in range(20 * count):
        tree = tape.crashed(draw.randint(first, len(tape.steps)), draw, journal=draw.random() < 0.3)
        found[hash(frozenset(tree.items()))] = tree
        if len(found) == count:
            break
    return list(found.values())


def survey(
    bench: Bench, trees: list[Tree], folder: Path, counts: Counter[str], then: Scene = SCENES["begun"]
) -> list[str]:
    """Go on from every state, count what came of it, and return what is wrong."""
    findings = []
    for number, tree in enumerate(trees):
        place = fresh(folder / f"state-{number}")
        materialise(tree, place)
        counts["states"] += 1
        findings += [f"state {number}: {each}" for each in after(bench, place / "out.zarr", counts, then)]
        fresh(place).rmdir()
    return findings


def after(bench: Bench, sink: Path, counts: Counter[str], scene: Scene) -> list[str]:
    """Return what is wrong after one power cut."""
    done = len(Ledger(str(sink / "_unet_dask")).finished()) if (sink / "_unet_dask").exists() else 0
    counts["pieces_done_before"] += done
    refused = refusal(lambda: scene.after(bench, sink))
    if not refused:
        counts["resumed"] += 1
        # A lock that nobody holds and a session that has ended mean nothing; a repair that finds nothing to do leaves
        # them there.
        return [f"wrong {name}" for name in bench.wrong(sink) if not LEFT.fullmatch(name)]
    counts["refused"] += 1
    if done:
        return [f"{done} blocks are lost: {refused}"]
    stuck = refusal(lambda: bench.run(sink, overwrite=True))
    return [f"stuck: {stuck}"] if stuck else [f"wrong {name}" for name in bench.wrong(sink)]


@tiers
@scenes
def test_any_power_cut_is_resumed_to_the_same_bytes(scene: str, tier: Tier, bench: Bench, ram: Path) -> None:
    draw = random.Random(f"{SEED} {scene}")
    with counted(f"A4 power cut, {scene}", tier) as counts:
        trees = states(taped(SCENES[scene], bench, ram), tier.count(6, 220), draw)
        assert survey(bench, trees, ram, counts, SCENES[scene]) == []
        assert counts["resumed"] > len(trees) / 2


@tiers
def test_any_power_cut_of_shards_is_resumed_to_the_same_bytes(
    tier: Tier, bench: Bench, ram: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "MANY_CHUNKS", 1)
    sharded = replace(bench, settings={**bench.settings, "products": "classes"}).undisturbed()
    assert any(b'"sharding_indexed"' in data for data in sharded.tree.values())
    draw = random.Random(f"{SEED} sharded")
    with counted("A4 power cut, sharded", tier) as counts:
        trees = states(taped(SCENES["begun"], sharded, ram), tier.count(6, 200), draw)
        assert survey(sharded, trees, ram, counts) == []


@tiers
def test_any_power_cut_while_a_result_is_replaced_leaves_no_wrong_one(
    tier: Tier, bench: Bench, ram: Path
) -> None:
    draw = random.Random(f"{SEED} replaced")
    other = replace(bench, model=save_tiny_model(ram / "other.safetensors", seed=7)).undisturbed()
    assert other.tree.keys() == bench.tree.keys()
    scene = Scene(
        lambda _, sink: other.run(sink), lambda bench, sink: bench.run(sink, overwrite=True), resume
    )
    with counted("A4 power cut, replaced", tier) as counts:
        for number, tree in enumerate(states(taped(scene, bench, ram), tier.count(6, 200), draw)):
            place = fresh(ram / f"state-{number}")
            materialise(tree, place)
            counts["states"] += 1
            user = draw.choice((bench, other))  # who goes on with the new run, or with the old one
            refused = refusal(lambda: user.run(place / "out.zarr", resume=True))  # noqa: B023
            counts["refused" if refused else "resumed"] += 1
            if refused:
                user.run(place / "out.zarr", overwrite=True)
            assert user.wrong(place / "out.zarr") == []
            fresh(place).rmdir()


@tiers
@scenes
def test_what_is_said_to_be_done_survives_a_power_cut(
    scene: str, tier: Tier, bench: Bench, ram: Path
) -> None:
    draw = random.Random(f"{SEED} {scene} done")
    tape = taped(SCENES[scene], bench, ram)
    with counted(f"A4 power cut after the end, {scene}", tier) as counts:
        for _ in range(tier.count(20, 200)):
            tree = tape.crashed(len(tape.steps), draw, journal=False)
            counts["states"] += 1
            files = {path.partition("/")[2]: data for path, data in tree.items() if data is not None}
            files.pop("_unet_dask/lock", None)  # nobody holds it: that it is there means nothing
            assert [name for name in {*files, *bench.tree} if files.get(name) != bench.tree.get(name)] == []


def unflushed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plant a writer that does not flush chunks."""
    monkeypatch.setattr(session, "sync_file", lambda path: None)


def early(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plant a driver whose chunks get their names, on the disk, after the ledger says that they are done."""
    compact, flush = Ledger.compact, durable.sync_folder
    late: list[Path] = []

    def flush_first(self: Ledger, work: int) -> None:
        for each in late:
            flush(each)
        late.clear()
        compact(self, work)

    monkeypatch.setattr(session, "sync_folder", late.append)
    monkeypatch.setattr(Ledger, "compact", flush_first)


def unflushed_ledger(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plant a rename of the final ledger whose bytes are not flushed, while the old ones are removed."""
    import os

    from unet_dask import ledger

    def replaced(path: str, lines: Any) -> None:
        with open(f"{path}.partial", "wb") as file:  # noqa: PTH123
            file.writelines(lines)
        os.replace(f"{path}.partial", path)  # noqa: PTH105

    monkeypatch.setattr(ledger, "write", replaced)


@pytest.mark.parametrize("plant", [unflushed, early])
def test_control_planted_bug_is_found(
    plant: Callable[[pytest.MonkeyPatch], None], bench: Bench, ram: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as planted:
        plant(planted)
        tape = taped(SCENES["begun"], bench, ram)
    # A driver that looks whether what is recorded is still there would heal what these two break.
    monkeypatch.setattr(seal, "vanished", lambda plan, sink, recorded: set())
    found = (
        each
        for tree in states(tape, 50, random.Random(SEED), late=0.6)
        for each in survey(bench, [tree], ram, Counter())
    )
    assert any("wrong" in each or "are lost" in each for each in found)


def test_control_ledger_that_is_not_flushed_is_found(
    bench: Bench, ram: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as planted:
        unflushed_ledger(planted)
        tape = taped(SCENES["begun"], bench, ram)
    lost = [
        tree
        for tree in (tape.crashed(len(tape.steps), random.Random(seed), journal=False) for seed in range(30))
        if tree.get("out.zarr/_unet_dask/ledger.jsonl") != bench.tree["_unet_dask/ledger.jsonl"]
    ]
    assert lost
