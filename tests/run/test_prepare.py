"""What a run is of is opened once, however often it is planned."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from unet_dask import segment_store
from unet_dask.run import prepare

if TYPE_CHECKING:
    from pathlib import Path

    from unet_dask.workers.cluster import Cluster


@pytest.mark.parametrize("part", [None, "1/1"])
def test_source_and_mask_are_opened_once(
    source: Path,
    tiny_model: Path,
    tmp_path: Path,
    cluster: Cluster,
    monkeypatch: pytest.MonkeyPatch,
    part: str | None,
) -> None:
    """Of a running cluster, what it has is known last; of a part, what the first driver chose."""
    opened: list[str] = []

    def counted(name: str) -> None:
        inner = getattr(prepare, name)

        def call(*arguments: Any, **settings: Any) -> Any:
            opened.append(name)
            return inner(*arguments, **settings)

        monkeypatch.setattr(prepare, name, call)

    names = ["open_source", "find_mask", "Occupancy", "worker_device"]
    for name in names:
        counted(name)
    segment_store(source, tmp_path / "out.zarr", tiny_model, client=cluster.client, mask="auto", part=part)
    assert opened == names
