"""Model files from strangers: the same weights, or one line; nothing is run, written, started or connected to."""

from __future__ import annotations

import hashlib
import json
import pickle
import random
import sys
import threading
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import unet_dask
from tests.torture import fuzz
from tests.torture.gadgets import hostile
from tests.torture.tier import SEED, Tier, counted, tiers
from tests.torture.watchdog import in_time
from unet_dask.errors import UnetDaskError
from unet_dask.model import file as files

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import pytest

#: What no loading of a model may do.
FORBIDDEN = (
    "exec",
    "compile",
    "import",
    "pickle.find_class",
    "marshal.loads",
    "os.",
    "shutil.",
    "subprocess.",
    "socket.",
    "ctypes.",
)
PROMPT = 10.0
_watchers: dict[int, list[str]] = {}


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    seen = _watchers.get(threading.get_ident())
    if seen is None:
        return
    writes = event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")
    if writes or event.startswith(FORBIDDEN):
        seen.append(f"{event} {arguments!r}"[:200])


sys.addaudithook(_audit)  # for good: a hook cannot be taken away, but hears nothing without a watcher


@contextmanager
def audited() -> Iterator[list[str]]:
    """Yield what this thread does that it must not."""
    seen: list[str] = []
    _watchers[threading.get_ident()] = seen
    try:
        yield seen
    finally:
        del _watchers[threading.get_ident()]


def judge(load: Callable[[Path], Any], path: Path, same: str, counts: Counter[str]) -> list[str]:
    """Return what is wrong with the answer to a strange model file."""

    def opened() -> tuple[Any, list[str]]:
        with audited() as seen:
            try:
                return load(path), seen
            except UnetDaskError as error:
                return error, seen

    counts["files"] += 1
    try:
        answer, seen = in_time(PROMPT, opened)
    except Exception as error:  # that is the finding
        return [f"{type(error).__name__}: {error}"]
    findings = [f"did {each}" for each in seen]
    if isinstance(answer, UnetDaskError):
        counts["refused"] += 1
        return findings + ([str(answer)] if len(str(answer).splitlines()) != 1 else [])
    counts["loaded"] += 1
    if getattr(answer, "state", None) != same:
        findings.append("other weights")
    return findings


def parts(data: bytes) -> tuple[dict[str, Any], bytes]:
    """Return the header and the tensors of a safetensors file."""
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def sealed(record: Any) -> Any:
    """Return a header with the checksum that it should have: damage would not, malice has."""
    if not isinstance(record, dict):
        return record
    others = {name: value for name, value in record.items() if name != "header_checksum"}
    text = json.dumps(others, sort_keys=True)
    return others | {"header_checksum": hashlib.sha256(text.encode()).hexdigest()}


def mutant(data: bytes, draw: random.Random) -> bytes:
    """Return a model file that is not the same any more."""
    if draw.random() < 0.4:
        return fuzz.damaged(data, draw)
    header, tensors = parts(data)
    if draw.random() < 0.5:
        own = fuzz.mutated(json.loads(header["__metadata__"]["unet_dask"]), draw)
        header["__metadata__"]["unet_dask"] = json.dumps(sealed(own) if draw.random() < 0.7 else own)
    else:
        header = fuzz.mutated(header, draw)
    text = json.dumps(header).encode("utf-8", "surrogatepass")
    return len(text).to_bytes(8, "little") + text + tensors


@tiers
def test_damaged_model_file_is_one_line_or_harmless(tier: Tier, tiny_model: Path, tmp_path: Path) -> None:
    whole, same = tiny_model.read_bytes(), unet_dask.load_model(tiny_model).state
    draw, victim = random.Random(SEED), tmp_path / "victim.safetensors"
    with counted("D2 damaged model files", tier) as counts:
        findings = []
        for number in range(tier.count(60, 2000)):
            victim.write_bytes(mutant(whole, draw))
            found = judge(unet_dask.load_model, victim, same, counts)
            findings += [f"{number}: {each} {victim.read_bytes()[:600]!r}" for each in found]
        assert findings == []
        assert counts["refused"] > counts["files"] / 2


def test_forty_hostile_pickles_run_nothing(tiny_model: Path, tmp_path: Path) -> None:
    canary, same = tmp_path / "canary", unet_dask.load_model(tiny_model).state
    with counted("D2 hostile pickles", Tier("full")) as counts:
        for name, data in hostile(canary):
            (tmp_path / name).write_bytes(data)
            assert judge(unet_dask.load_model, tmp_path / name, same, counts) == []
            assert not canary.exists()
        assert (counts["files"], counts["refused"]) == (40, 40)


def test_control_loader_that_unpickles_is_found(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    (name, data), *_ = hostile(canary)
    (tmp_path / name).write_bytes(data)
    with counted("control", Tier("small")) as counts:
        found = judge(lambda path: pickle.loads(path.read_bytes()), tmp_path / name, "", counts)
    assert canary.exists()
    assert any("os.mkdir" in each for each in found)


def test_control_loader_without_checksum_is_found(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = unet_dask.load_model(tiny_model)
    whole, victim = bytearray(tiny_model.read_bytes()), tmp_path / "victim.safetensors"
    whole[-40] ^= 4
    victim.write_bytes(whole)

    def careless(path: Path) -> Any:
        with monkeypatch.context() as planted:
            planted.setattr(files, "tensor_checksum", lambda tensors: model.checksum)
            loaded = unet_dask.load_model(path)
        return replace(loaded, state=files.tensor_checksum(loaded.network.state_dict()))

    with counted("control", Tier("small")) as counts:
        assert "other weights" in judge(careless, victim, model.state, counts)
