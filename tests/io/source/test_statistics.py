"""Statistics of a whole volume are of the files that lie there when they have been taken."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.conftest import save_source
from unet_dask.io.source import statistics
from unet_dask.io.source.volume import open_source

if TYPE_CHECKING:
    from pathlib import Path


def test_a_block_that_was_away_or_rewritten_is_not_there_any_more(tmp_path: Path) -> None:
    path = save_source(tmp_path / "a.zarr", (64, 64))
    source = open_source(str(path))
    ((_, window),) = statistics.windows(source)
    found = statistics.moments(source.spec, window, source.axes.index("c"))
    assert statistics.still_there(source.spec, window, found)
    chunk = path / "c" / "1" / "0"
    chunk.rename(tmp_path / "away")
    assert not statistics.still_there(source.spec, window, found)
    (tmp_path / "away").rename(chunk)
    assert statistics.still_there(source.spec, window, found)
    chunk.write_bytes(chunk.read_bytes() + b"0")
    assert not statistics.still_there(source.spec, window, found)
