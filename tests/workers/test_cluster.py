"""What is learnt of a cluster that is already running."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from distributed import Client
from distributed.objects import SchedulerInfo

from unet_dask.workers.cluster import connected

if TYPE_CHECKING:
    import pytest

    from unet_dask.workers.cluster import Cluster


def test_workers_are_counted_while_the_client_looks_for_itself(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def overtaken(self: Any, n_workers: int = 0) -> None:
        self._scheduler_identity = SchedulerInfo(await self.scheduler.identity(n_workers=0))

    monkeypatch.setattr(Client, "_update_scheduler_info", overtaken)
    assert connected(cluster.client).workers == 2
