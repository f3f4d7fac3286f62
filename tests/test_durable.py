"""What is written durably is there whole or not at all, and nothing is left beside it."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from unet_dask import durable

if TYPE_CHECKING:
    from pathlib import Path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_file_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    durable.write(tmp_path / "a", [b"first", b", whole"])

    def torn() -> object:
        yield b"sec"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        durable.write(tmp_path / "a", torn())  # type: ignore[arg-type] # it yields bytes
    assert (tmp_path / "a").read_bytes() == b"first, whole"
    assert names(tmp_path) == ["a"]


def test_a_private_file_is_private_before_it_has_its_name(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        durable.write(tmp_path / "secret", [b"x"], mode=0o600)
        durable.write(tmp_path / "shared", [b"x"])
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert modes == {"secret": 0o600, "shared": 0o644}


@pytest.mark.parametrize(("number", "told"), [(errno.EINVAL, False), (errno.EIO, True)])
def test_folder_that_cannot_be_flushed_is_no_error_and_one_that_fails_is(
    number: int, told: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(durable, "sync_folder", refuse)
    if told:
        with pytest.raises(OSError, match="Input/output"):
            durable.write(tmp_path / "a", [b"x"])
    else:
        durable.write(tmp_path / "a", [b"x"])
    assert (tmp_path / "a").read_bytes() == b"x"
