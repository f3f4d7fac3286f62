"""Names that point out of a result, planted wherever its metadata holds a word: nothing outside is ever touched."""

from __future__ import annotations

import json
import random
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

import unet_dask
from tests.conftest import save_source, save_tiny_model, tree_hash
from tests.torture.bench import Bench, fresh, refusal
from tests.torture.tier import SEED, Tier, counted, tiers
from unet_dask.io.sink import store
from unet_dask.ledger import Entry, Ledger
from unet_dask.picture.preview import preview

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

#: Two by two regions of one chunk, one product.
SETTINGS = {"region": (32, 32), "tile": (32, 32), "chunks": (32, 32), "precision": "float32"}
CHUNK = "classes/0/c/1/0"


@pytest.fixture
def undisturbed(bench: Bench, tmp_path: Path) -> Bench:
    """Return a bench of four regions beside whose results lies somebody else's, damaged so that it asks for repair."""
    source = save_source(tmp_path / "source.zarr", (64, 64))
    made = replace(bench, source=source, model=save_tiny_model(tmp_path / "m.safetensors"), settings=SETTINGS)
    made = made.undisturbed()
    made.run(tmp_path / "victim")
    (tmp_path / "victim" / CHUNK).write_bytes(b"")
    shutil.copytree(tmp_path / "victim" / "classes", tmp_path / "victim-array")
    return made


def hostile(outside: Path) -> list[str]:
    """Return names that mean a place outside, to one reader of paths or another."""
    return [
        "../victim",
        "../victim-array",
        "../victim/classes",
        "classes/../../victim-array",
        "..\\victim",
        str(outside / "victim"),
        f"//{outside}/victim-array",
        f"file://{outside}/victim",
        "../../",
        "..",
        ".",
        "",
        "~",
        "a\0b",
        "C:\\victim",
        "%2e%2e/victim",
    ]


def words(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the place of every string in a tree of JSON, keys of objects included as ("key", name)."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield (*path, ("key", key))
            yield from words(inner, (*path, key))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from words(inner, (*path, number))
    elif isinstance(value, str):
        yield path


def planted(text: str, place: tuple[Any, ...], name: str) -> str:
    """Return a JSON document with a word replaced."""
    document = json.loads(text)
    at = document
    for step in place[:-1]:
        at = at[step]
    last = place[-1]
    if isinstance(last, tuple):
        at[name] = at.pop(last[1])
    else:
        at[last] = name
    return json.dumps(document)


def plant(sink: Path, draw: random.Random, outside: Path) -> None:
    """Put one hostile name into one document of a result."""
    documents = [*sink.rglob("zarr.json"), sink / "_unet_dask" / "ledger.jsonl"]
    document = draw.choice(documents)
    name = draw.choice(hostile(outside))
    if document.suffix == ".jsonl":  # a line that was sealed like any other
        enter(document, name)
        return
    text = document.read_text()
    # What names things is met more often than what describes the codecs.
    places = [
        each for each in words(json.loads(text)) if {"name", "path", "arrays", "datasets", "url"} & set(each)
    ]
    every = list(words(json.loads(text)))
    document.write_text(planted(text, draw.choice(places if places and draw.random() < 0.7 else every), name))


def enter(path: Path, name: str) -> None:
    """Append an entry of a product of that name."""
    Ledger(str(path.parent)).append(Entry((0, 0, 0), 0, {name: "0" * 32}))


def act(bench: Bench, sink: Path, what: str) -> None:
    """Do what a user does with a result."""
    deeds: dict[str, Callable[[], object]] = {
        "verify": lambda: unet_dask.verify_store(sink, crops=0),
        "repair": lambda: unet_dask.repair_store(sink, bench.model, crops=0, client=bench.client),
        "resume": lambda: bench.run(sink, resume=True),
        "overwrite": lambda: bench.run(sink, overwrite=True),
        "preview": lambda: preview(sink, sink.parent / "picture.png"),
    }
    deeds[what]()


@tiers
def test_names_that_point_outside_touch_nothing_there(tier: Tier, undisturbed: Bench, tmp_path: Path) -> None:
    draw = random.Random(f"{SEED} names")
    whole = tmp_path / "whole"
    undisturbed.run(whole)
    outside = {each: tree_hash(tmp_path / each) for each in ("victim", "victim-array", "source.zarr")}
    with counted("D6 hostile names", tier) as counts:
        for _ in range(tier.count(20, 220)):
            sink = fresh(tmp_path / "room") / "out.zarr"
            shutil.copytree(whole, sink)
            if draw.random() < 0.5:  # something to do for whoever goes on
                (sink / CHUNK).unlink()
            plant(sink, draw, tmp_path)
            what = draw.choice(["verify", "repair", "resume", "overwrite", "preview"])
            refused = refusal(lambda: act(undisturbed, sink, what))  # noqa: B023
            counts[f"{what} {'refused' if refused else 'done'}"] += 1
            assert {each: tree_hash(tmp_path / each) for each in outside} == outside
            assert {each.name for each in tmp_path.iterdir()} == {*outside, "m.safetensors", "whole", "room"}
            counts["names"] += 1


def test_control_writer_that_strays_is_found(
    undisturbed: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, write = tree_hash(tmp_path / "victim"), store.Sink.write

    def stray(self: store.Sink, name: str, level: int, start: Any, values: Any) -> str:
        (tmp_path / "victim" / "stray").touch()
        return write(self, name, level, start, values)

    monkeypatch.setattr(store.Sink, "write", stray)
    undisturbed.run(tmp_path / "out.zarr")
    assert tree_hash(tmp_path / "victim") != before
