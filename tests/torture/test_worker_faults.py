"""Whatever befalls workers, the result is that of an undisturbed run, and nothing is said to be done that is not."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import zarr

import unet_dask
from tests.conftest import save_source
from tests.io.source.test_remote import Server
from tests.oracle import sure_classes_differ, whole_image
from tests.torture import saboteur
from tests.torture.bench import Bench, fresh
from tests.torture.sabotage import hunting, planted, sabotaged
from tests.torture.tier import SEED, Tier, counted, tiers
from tests.torture.watchdog import HangError, in_time
from unet_dask.errors import ClusterError, IncompleteError, UnetDaskError
from unet_dask.model.file import load_model
from unet_dask.run.events import Started
from unet_dask.workers import cluster as clusters
from unet_dask.workers import watchdog

if TYPE_CHECKING:
    from collections import Counter
    from pathlib import Path

    from unet_dask.run.events import Event, Listener
    from unet_dask.workers.cluster import Cluster

#: Five by five regions of one chunk each.
SETTINGS = {"region": (32, 32), "tile": (32, 32), "chunks": (32, 32), "precision": "float32"}
#: Seconds that a run may take.
PATIENCE = 240.0
#: Seconds after which a worker that finishes nothing is started anew, here.
IMPATIENT = 8.0


@pytest.fixture(scope="module")
def undisturbed(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Return a bench of 25 regions that runs on threads."""
    source = save_source(tmp_path_factory.mktemp("faults") / "source.zarr", (160, 160))
    return replace(bench, source=source, settings=SETTINGS).undisturbed()


def until_done(bench: Bench, sink: Path, tickets: Path, counts: Counter[str]) -> list[str]:
    """Run and resume until a run succeeds; return what is wrong then."""
    resume = False
    while True:
        try:
            run = in_time(PATIENCE, lambda: bench.run(sink, resume=resume))  # noqa: B023
        except HangError:
            counts["hangs"] += 1
            raise
        except UnetDaskError as error:
            _require_honest(error, sink)
            counts[f"said {type(error).__name__}"] += 1
        else:
            assert run.complete
            counts["said_done"] += 1
            return bench.wrong(sink)
        resume = True


def _require_honest(error: UnetDaskError, sink: Path) -> None:
    """Require an error of one line that can be resumed, and a hole where one is spoken of."""
    assert len(str(error).splitlines()) == 1
    assert isinstance(error, ClusterError | IncompleteError)
    if isinstance(error, IncompleteError):
        assert (np.asarray(zarr.open_array(str(sink / "classes" / "0"), mode="r")[...]) == 255).any()


def rounds(
    bench: Bench, orders: list[list[str]], folder: Path, tickets: Path, counts: Counter[str]
) -> list[str]:
    """Run once for each list of faults; return what is wrong."""
    findings = []
    for number, faults in enumerate(orders):
        saboteur.order(tickets, faults)
        sink = fresh(folder / f"{number}") / "out.zarr"
        findings += [f"round {number}: {each}" for each in until_done(bench, sink, tickets, counts)]
        counts["rounds"] += 1
        fresh(sink.parent).rmdir()
    counts.update(f"fault {name}" for name in saboteur.taken(tickets))
    counts["faults"] = len(saboteur.taken(tickets))
    counts["left"] = len(saboteur.left(tickets))
    return findings


def dealt(faults: list[str], hand: int, draw: random.Random) -> list[list[str]]:
    """Return the faults in a random order, some to each round."""
    draw.shuffle(faults)
    return [faults[i : i + hand] for i in range(0, len(faults), hand)]


@tiers
def test_failing_network_costs_no_voxel(
    tier: Tier, undisturbed: Bench, cluster: Cluster, tmp_path: Path
) -> None:
    kinds = ["memory", "cuda", "model"]
    faults = kinds * tier.count(6, 310)
    tickets = tmp_path / "tickets"
    bench = replace(undisturbed, client=cluster.client)
    with counted("A2 exceptions in workers", tier) as counts, planted(cluster.client, tickets):
        orders = dealt(faults, 30, random.Random(SEED))
        assert rounds(bench, orders, tmp_path, tickets, counts) == []
        assert counts["left"] == 0


@tiers
def test_dying_workers_cost_no_voxel(tier: Tier, undisturbed: Bench, tmp_path: Path) -> None:
    draw = random.Random(SEED)
    each = tier.count(1, 12)
    faults = (
        ["kill", "segfault", "stop", "kill+exit", "kill+kill"] * each + ["freeze"] * tier.count(1, 4)
        if tier.name == "full"
        else ["kill+exit"]
    )
    tickets = tmp_path / "tickets"
    with (
        counted("A2 deaths of workers", tier) as counts,
        sabotaged(undisturbed, tickets, 2 if tier.name == "full" else 1) as bench,
        hunting(tickets, draw, counts),
    ):
        orders = [
            [part for fault in hand for part in ORDERED.get(fault, (fault,))]
            for hand in dealt(faults, 3, draw)
        ]
        assert rounds(bench, orders, tmp_path, tickets, counts) == []
        # Those that wait for a worker to start may wait still: the other worker has done all the work.
        assert {each.partition("-")[0] for each in saboteur.left(tickets)} <= {"then"}


#: A worker that dies, and again before it has started anew.
ORDERED = {"kill+exit": ("kill", "then-exit"), "kill+kill": ("kill", "then-hunt")}


@pytest.mark.torture
def test_region_that_kills_its_worker_is_a_named_hole_and_all_others_are_done(
    undisturbed: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(clusters.SETTINGS, "distributed.scheduler.allowed-failures", 0)
    with (
        sabotaged(undisturbed, tmp_path / "tickets", 1, poisoned=(64, 96)) as bench,
        pytest.raises(IncompleteError, match=r"1 of 25 regions failed.*\[y 64:96, x 96:128\]") as ended,
    ):
        bench.run(tmp_path / "out.zarr")
    assert ended.value.exit_code == 4
    assert len(str(ended.value).splitlines()) == 1
    classes = np.asarray(zarr.open_array(str(tmp_path / "out.zarr/classes/0"), mode="r")[...])
    hole = np.zeros(classes.shape, bool)
    hole[64:96, 96:128] = True
    np.testing.assert_array_equal(classes == 255, hole)
    assert {each.kind for each in unet_dask.verify_store(tmp_path / "out.zarr", crops=0).findings} == {
        "ledger"
    }
    undisturbed.run(tmp_path / "out.zarr", resume=True)
    assert undisturbed.wrong(tmp_path / "out.zarr") == []


@tiers
def test_hanging_workers_cost_no_voxel_and_no_end(
    tier: Tier, undisturbed: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchdog, "PATIENCE", IMPATIENT)
    tickets = tmp_path / "tickets"
    with (
        counted("A2 workers that hang", tier) as counts,
        sabotaged(undisturbed, tickets, 2 if tier.name == "full" else 1) as bench,
    ):
        assert rounds(bench, [["hang"]] * tier.count(1, 8), tmp_path, tickets, counts) == []
        assert counts["left"] == 0


@pytest.mark.torture
def test_region_that_hangs_every_worker_is_a_named_hole_and_all_others_are_done(
    undisturbed: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchdog, "PATIENCE", IMPATIENT)
    monkeypatch.setitem(clusters.SETTINGS, "distributed.scheduler.allowed-failures", 1)
    sink = tmp_path / "out.zarr"
    with (
        sabotaged(undisturbed, tmp_path / "tickets", 1, poisoned=(64, 96), poison="hang") as bench,
        pytest.raises(
            IncompleteError, match=r"1 of 25 regions failed.*\[y 64:96, x 96:128\] no worker finished it"
        ),
    ):
        in_time(PATIENCE, lambda: bench.run(sink))
    assert {each.kind for each in unet_dask.verify_store(sink, crops=0).findings} == {"ledger"}
    undisturbed.run(sink, resume=True)
    assert undisturbed.wrong(sink) == []


@pytest.mark.torture
def test_store_that_does_not_answer_is_a_named_hole_and_no_end(
    undisturbed: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchdog, "PATIENCE", IMPATIENT)
    monkeypatch.setitem(clusters.SETTINGS, "distributed.scheduler.allowed-failures", 0)
    server, sink = Server(undisturbed.source.parent), tmp_path / "out.zarr"

    def run(*, resume: bool = False, on_event: Listener = lambda event: None) -> object:
        return unet_dask.segment_store(
            f"{server.url}/{undisturbed.source.name}",
            sink,
            undisturbed.model,
            client=opened.client,
            resume=resume,
            on_event=on_event,
            precision="float32",
            region=(96, 160),
            chunks=(32, 32),
        )

    def begin(event: Event) -> None:
        """From the beginning of the run on, a chunk that the first of two regions reads is never answered."""
        if isinstance(event, Started):
            server.silent.append("/c/0/2")

    with clusters.local_cluster(workers=1, threads=1, limit=2 << 30, device="cpu") as opened:
        with pytest.raises(
            IncompleteError, match=r"1 of 2 regions failed.*\[y 0:96, x 0:160\] no worker finished it"
        ):
            in_time(PATIENCE, lambda: run(on_event=begin))
        server.silent.clear()
        run(resume=True)
    server.server.shutdown()
    server.server.server_close()
    image = np.asarray(zarr.open_array(str(undisturbed.source), mode="r")[...])
    expected = whole_image(load_model(undisturbed.model), image[None])
    classes = np.asarray(zarr.open_array(str(sink / "classes" / "0"), mode="r")[...])
    assert sure_classes_differ(classes, expected) == 0


def test_control_writer_that_lies_is_found(undisturbed: Bench, cluster: Cluster, tmp_path: Path) -> None:
    tickets = tmp_path / "tickets"
    bench = replace(undisturbed, client=cluster.client)
    with counted("control", Tier("small")) as counts, planted(cluster.client, tickets):
        saboteur.order(tickets, ["then-lie"])
        findings = rounds(bench, [["model"]], tmp_path, tickets, counts)
    assert len(findings) == 1
    assert "classes/0/c/" in findings[0]


@pytest.mark.torture
def test_control_network_that_hangs_is_found(undisturbed: Bench, tmp_path: Path) -> None:
    tickets = tmp_path / "tickets"
    with sabotaged(undisturbed, tickets, 1) as bench:
        saboteur.order(tickets, ["hang"])
        with pytest.raises(HangError):
            in_time(8, lambda: bench.run(tmp_path / "out.zarr"))
