"""The ledger: what it says is done is done, and nothing else."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unet_dask.errors import SinkLostError
from unet_dask.ledger import Entry, Ledger

if TYPE_CHECKING:
    from pathlib import Path


def filled(folder: Path, count: int = 3) -> list[Entry]:
    entries = [Entry((0, index), 0, {"classes": f"{index:032x}"}) for index in range(count)]
    with Ledger(str(folder)) as ledger:
        for entry in entries:
            ledger.append(entry)
    return entries


def test_entries_survive_the_process_that_wrote_them(tmp_path: Path) -> None:
    entries = filled(tmp_path)
    assert list(Ledger(str(tmp_path)).entries().values()) == entries


def test_new_ledger_is_empty_and_creates_nothing(tmp_path: Path) -> None:
    assert Ledger(str(tmp_path / "run")).entries() == {}
    assert list(tmp_path.iterdir()) == []


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_damage_anywhere_loses_entries_and_never_invents_one(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("ledger")
    entries = filled(folder)
    (file,) = (folder / "ledger").iterdir()
    content = bytearray(file.read_bytes())
    position = data.draw(st.integers(0, len(content) - 1))
    content[position] ^= data.draw(st.integers(1, 255))
    file.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    found = Ledger(str(folder)).entries()
    assert all(entry in entries for entry in found.values())


def test_two_drivers_write_two_files_and_read_both(tmp_path: Path) -> None:
    with Ledger(str(tmp_path)) as one, Ledger(str(tmp_path)) as other:
        one.append(Entry((0,)))
        other.append(Entry((1,)))
        assert set(one.entries()) == {(0, (0,)), (0, (1,))}
    assert len(list((tmp_path / "ledger").iterdir())) == 2


def test_compact_ledger_does_not_depend_on_order_or_drivers(tmp_path: Path) -> None:
    contents = []
    for name, order in (("a", (0, 1, 2)), ("b", (2, 0, 1))):
        with Ledger(str(tmp_path / name)) as ledger:
            for index in order:
                ledger.append(Entry((index,), 0, {"classes": f"{index:032x}"}))
            ledger.compact(len(ledger.finished()))
        contents.append((tmp_path / name / "ledger.jsonl").read_bytes())
        assert [path.name for path in (tmp_path / name).iterdir()] == ["ledger.jsonl"]
    assert contents[0] == contents[1]


def test_ledger_killed_between_its_two_forms_reads_the_same(tmp_path: Path) -> None:
    entries = filled(tmp_path)
    kept = {path: path.read_bytes() for path in (tmp_path / "ledger").iterdir()}
    Ledger(str(tmp_path)).compact(len(entries))
    (tmp_path / "ledger").mkdir()
    for path, content in kept.items():
        path.write_bytes(content)
    assert list(Ledger(str(tmp_path)).entries().values()) == entries


def test_short_write_is_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda file, data: write(file, data[:5]))
    entries = filled(tmp_path)
    assert list(Ledger(str(tmp_path)).entries().values()) == entries


def test_full_disk_is_said_and_can_be_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(SinkLostError, match=r"No space left on device.*--resume"):
        filled(tmp_path)


def test_ledger_on_an_object_store(tmp_path: Path) -> None:
    with Ledger(f"memory://{tmp_path}/run") as ledger:
        ledger.append(Entry((0,)))
        ledger.append(Entry((1,)))
        assert set(ledger.entries()) == {(0, (0,)), (0, (1,))}
        ledger.compact(len(ledger.finished()))
        assert set(ledger.entries()) == {(0, (0,)), (0, (1,))}
