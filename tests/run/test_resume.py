"""Killed at any moment, a run resumes to the same bytes and redoes only what was in flight."""

from __future__ import annotations

import os
import re
import shutil
import signal
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psutil
import pytest
import zarr
from fsspec.implementations.local import LocalFileSystem

import unet_dask
from tests.killing import IN_FLIGHT, Victim, entries, is_worker, killed_and_resumed, victim
from tests.torture.bench import content
from unet_dask.errors import SinkError
from unet_dask.io.sink import place as places

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from unet_dask.workers.cluster import Cluster


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Victim:
    return victim(tmp_path_factory.mktemp("resume"), tiny_model)


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "reached",
    [
        pytest.param(0, id="creation", marks=pytest.mark.slow),
        pytest.param(20, id="regions"),
        pytest.param(80, id="pyramid", marks=pytest.mark.slow),
    ],
)
def test_killed_run_resumes_to_the_same_bytes(bench: Victim, tmp_path: Path, reached: int) -> None:
    sink = tmp_path / "out.zarr"
    figures = killed_and_resumed(bench, sink, lambda: sink.exists() and len(entries(sink)) >= reached)
    assert figures.computed == figures.total - figures.recorded
    assert figures.begun <= IN_FLIGHT


@pytest.mark.timeout(600)
def test_killed_worker_costs_nothing_but_time(bench: Victim, tmp_path: Path) -> None:
    process = bench.start(tmp_path / "out.zarr")
    while process.poll() is None and len(entries(tmp_path / "out.zarr")) < 4:
        time.sleep(0.02)
    workers = [each for each in psutil.Process(process.pid).children(recursive=True) if is_worker(each)]
    workers[0].kill()
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr
    assert content(tmp_path / "out.zarr") == bench.tree


@pytest.mark.timeout(600)
def test_interrupted_run_says_so_in_one_line_and_resumes(bench: Victim, tmp_path: Path) -> None:
    process = bench.start(tmp_path / "out.zarr")
    while process.poll() is None and len(entries(tmp_path / "out.zarr")) < 4:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    messages = [line for line in stderr.splitlines() if line and not re.match(r"\s+\w|regions \(", line)]
    assert process.returncode == 130, stderr
    assert len(messages) == 1, stderr
    assert messages[0].startswith("unet-dask: interrupted")
    resumed = bench.start(tmp_path / "out.zarr", "--resume")
    _, stderr = resumed.communicate(timeout=300)
    assert resumed.returncode == 0, stderr
    assert content(tmp_path / "out.zarr") == bench.tree


@dataclass
class Begun:
    """A small finished run that another one wants to resume."""

    source: Path
    sink: Path
    model: Path
    flags: list[str | Path]


def weights(begun: Begun, make_model: Callable[..., Path]) -> None:
    make_model(begun.model, seed=1)


def pixel(begun: Begun, make_model: Callable[..., Path]) -> None:
    zarr.open_array(str(begun.source), mode="r+")[5, 5] = 77


def shape(begun: Begun, make_model: Callable[..., Path]) -> None:
    zarr.open_array(str(begun.source), mode="r+").resize((128, 96))


def flags(*more: str) -> Callable[[Begun, Callable[..., Path]], None]:
    def change(begun: Begun, make_model: Callable[..., Path]) -> None:
        begun.flags = [*begun.flags, *more]

    return change


#: What is changed, and the field that the refusal must name.
CHANGES = [
    (weights, "model.checksum"),
    (pixel, "source.content"),
    (shape, r"source\.\w+"),
    (flags("--axes", "xy"), "source.axes"),
    (flags("--roi", "0:64,0:96"), "plan.roi"),
    (flags("--products", "classes,probabilities"), "plan.products"),
    (flags("--tile", "64,64"), "plan.tile"),
    (flags("--region", "64,64"), "plan.region"),
    (flags("--chunks", "16,16"), "plan.chunks"),
    (flags("--precision", "bfloat16"), "plan.precision"),
    (flags("--nan", "zero"), "setting.nan"),
]


@pytest.mark.usefixtures("emulation")
@pytest.mark.parametrize(("change", "field"), CHANGES, ids=[field for _, field in CHANGES])
def test_resume_with_something_else_is_refused_by_name(
    change: Callable[[Begun, Callable[..., Path]], None],
    field: str,
    tmp_path: Path,
    source: Path,
    make_model: Callable[..., Path],
    cluster: Cluster,
    call_cli: Callable[..., Any],
    hash_tree: Callable[[Path], str],
) -> None:
    model = make_model(tmp_path / "model.safetensors")
    sizes = "--tile 32,32 --region 32,32 --chunks 32,32 --precision float32"
    begun = Begun(source, tmp_path / "out.zarr", model, [*sizes.split()])
    arguments = [
        "segment",
        source,
        "-o",
        begun.sink,
        "-m",
        model,
        "--scheduler",
        cluster.client.scheduler.address,
    ]
    assert call_cli(*arguments, *begun.flags).code == 0
    before = hash_tree(begun.sink)
    change(begun, make_model)
    outcome = call_cli(*arguments, *begun.flags, "--resume")
    assert outcome.code == 2
    assert len(outcome.lines) == 1, outcome.stderr
    assert re.search(f"was begun with another ({field})", outcome.stderr), outcome.stderr
    assert hash_tree(begun.sink) == before


def small_run(source: Path, sink: Path, model: Path, cluster: Cluster, **more: Any) -> Any:
    return unet_dask.segment_store(
        source, sink, model, client=cluster.client, region=(32, 32), tile=(32, 32), chunks=(32, 32), **more
    )


def test_torn_last_line_of_the_ledger_costs_one_region(
    tmp_path: Path, source: Path, tiny_model: Path, cluster: Cluster
) -> None:
    sink = tmp_path / "out.zarr"
    small_run(source, sink, tiny_model, cluster)
    whole = content(sink)
    ledger = sink / "_unet_dask" / "ledger.jsonl"
    ledger.write_bytes(ledger.read_bytes()[:-10])
    assert small_run(source, sink, tiny_model, cluster, resume=True).computed == 1
    assert content(sink) == whole


def test_damaged_line_in_the_ledger_costs_one_region(
    tmp_path: Path, source: Path, tiny_model: Path, cluster: Cluster
) -> None:
    sink = tmp_path / "out.zarr"
    small_run(source, sink, tiny_model, cluster)
    whole = content(sink)
    ledger = sink / "_unet_dask" / "ledger.jsonl"
    lines = ledger.read_bytes().splitlines()
    lines[2] = lines[2].replace(b"0", b"1")
    ledger.write_bytes(b"\n".join(lines))
    assert small_run(source, sink, tiny_model, cluster, resume=True).computed == 1
    assert content(sink) == whole


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"attributes": {"unet_dask": 7}}'])
def test_damaged_manifest_is_never_taken_for_a_new_run(
    damage: bytes, tmp_path: Path, source: Path, tiny_model: Path, cluster: Cluster
) -> None:
    sink = tmp_path / "out.zarr"
    small_run(source, sink, tiny_model, cluster)
    (sink / "_unet_dask" / "zarr.json").write_bytes(damage)
    before = content(sink)
    with pytest.raises(SinkError, match=r"manifest of the run in .* is damaged"):
        small_run(source, sink, tiny_model, cluster, resume=True)
    assert content(sink) == before
    assert small_run(source, sink, tiny_model, cluster, overwrite=True).computed == 9


def test_sink_killed_before_its_manifest_is_begun_anew(
    tmp_path: Path, source: Path, tiny_model: Path, cluster: Cluster
) -> None:
    sink = tmp_path / "out.zarr"
    small_run(source, sink, tiny_model, cluster)
    whole = content(sink)
    shutil.rmtree(sink / "_unet_dask")
    assert small_run(source, sink, tiny_model, cluster, resume=True).computed == 9
    assert content(sink) == whole


def test_sink_killed_while_it_was_removed_is_never_resumed(
    tmp_path: Path, source: Path, tiny_model: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = tmp_path / "out.zarr"
    small_run(source, sink, tiny_model, cluster)
    whole = content(sink)
    remove = LocalFileSystem.rm
    calls = iter(range(2))

    def dying(self: Any, path: Any, recursive: bool = False) -> None:
        next(calls)
        remove(self, path, recursive=recursive)

    monkeypatch.setattr(LocalFileSystem, "rm", dying)
    with pytest.raises(StopIteration):
        places.remove(str(sink))
    monkeypatch.undo()
    assert small_run(source, sink, tiny_model, cluster, resume=True).computed == 9
    assert content(sink) == whole


def test_resume_of_a_finished_run_computes_nothing(
    tmp_path: Path, source: Path, tiny_model: Path, cluster: Cluster
) -> None:
    sink = tmp_path / "out.zarr"
    small_run(source, sink, tiny_model, cluster)
    whole = content(sink)
    assert small_run(source, sink, tiny_model, cluster, resume=True).computed == 0
    assert content(sink) == whole


def test_resume_of_nothing_begins(tmp_path: Path, source: Path, tiny_model: Path, cluster: Cluster) -> None:
    assert small_run(source, tmp_path / "out.zarr", tiny_model, cluster, resume=True).computed == 9


def test_volume_statistics_are_kept_for_the_resumed_run(
    tmp_path: Path, source: Path, make_model: Callable[..., Path], cluster: Cluster
) -> None:
    sink, model = tmp_path / "out.zarr", make_model(tmp_path / "volume.safetensors", kind="volume")
    small_run(source, sink, model, cluster)
    whole = content(sink)
    ledger = sink / "_unet_dask" / "ledger.jsonl"
    ledger.write_bytes(b"".join(ledger.read_bytes().splitlines(keepends=True)[:5]))
    assert small_run(source, sink, model, cluster, resume=True).computed == 4
    assert content(sink) == whole
