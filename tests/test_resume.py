"""Killed at any moment, a run resumes to the same bytes and redoes only what was in flight."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
import zarr
from fsspec.implementations.local import LocalFileSystem

import unet_dask
from unet_dask.errors import SinkError
from unet_dask.io.sink import place as places
from unet_dask.ledger import Ledger

if TYPE_CHECKING:
    from collections.abc import Callable

    from unet_dask.cluster import Cluster

SCRIPT = str(Path(sys.executable).with_name("unet-dask"))
WORKERS = 2
#: Pieces of work that may be in flight: a wave and what is topped up before it has drained, or pyramid blocks.
IN_FLIGHT = 4 * WORKERS + WORKERS


@dataclass
class Bench:
    """A source, a model, and the tree that an undisturbed run writes."""

    root: Path
    source: Path
    model: Path
    #: file -> content of the undisturbed sink
    tree: dict[str, bytes]
    #: seconds that the undisturbed run took
    seconds: float

    def start(self, sink: Path, *more: str) -> subprocess.Popen[str]:
        """Start a run in a process group of its own."""
        settings = "--workers 2 --threads 1 --products classes,probabilities -v"
        sizes = "--region 128,128 --tile 128,128 --chunks 64,64"
        places = [str(self.source), "-o", str(sink), "-m", str(self.model)]
        return subprocess.Popen(
            [SCRIPT, "segment", *places, *more, *settings.split(), *sizes.split()],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )


def content(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def entries(sink: Path) -> set[Any]:
    return set(Ledger(str(sink / "_unet_dask")).entries()) if sink.exists() else set()


def computed(stderr: str) -> int:
    """Return the pieces of work that a run with -v did."""
    return len(re.findall(r"^\w[\w ]* \([\d, ]+\) in ", stderr, re.MULTILINE))


def kill(process: subprocess.Popen[str]) -> None:
    """Kill a whole process group, and wait until nothing of it is left that could write."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    with suppress(ProcessLookupError):
        while True:  # signal 0 asks whether the group has a member left
            os.killpg(process.pid, 0)
            time.sleep(0.02)


@pytest.fixture(scope="module")
def bench(
    tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, make_source: Callable[..., Path]
) -> Bench:
    root = tmp_path_factory.mktemp("resume")
    made = Bench(root, make_source(root / "big.zarr", (1024, 1024)), tiny_model, {}, 0.0)
    for name in ("cold.zarr", "warm.zarr"):  # the second one tells how long a run takes
        began = time.monotonic()
        process = made.start(root / name)
        _, stderr = process.communicate(timeout=200)
        assert process.returncode == 0, stderr
        made.seconds = time.monotonic() - began
        made.tree = content(root / name)
    return made


@dataclass(frozen=True)
class Figures:
    """What a killed and resumed run did, in pieces of work."""

    recorded: int
    begun: int
    computed: int
    total: int


def killed_and_resumed(bench: Bench, sink: Path, now: Callable[[], bool]) -> Figures:
    """Kill a run when it is time, resume it, and demand the undisturbed tree."""
    process = bench.start(sink)
    while process.poll() is None and not now():
        time.sleep(0.01)
    kill(process)
    before = entries(sink)
    begun = max(written(sink) - sum(level == 0 for level, _ in before), 0)
    resumed = bench.start(sink, "--resume")
    _, stderr = resumed.communicate(timeout=300)
    assert resumed.returncode == 0, stderr
    assert "Traceback" not in stderr
    found = content(sink)
    assert sorted(found) == sorted(bench.tree)
    assert [name for name in found if found[name] != bench.tree[name]] == []
    return Figures(len(before), begun, computed(stderr), len(entries(sink)))


def written(sink: Path) -> int:
    """Return the regions, of two by two chunks, of which the last product is on disk."""
    chunks = (sink / "probabilities" / "0" / "c").glob("1/*/*")
    return len({(int(path.parent.name) // 2, int(path.name) // 2) for path in chunks if path.name.isdigit()})


@pytest.mark.timeout(600)
@pytest.mark.parametrize("reached", [0, 20, 80], ids=["creation", "regions", "pyramid"])
def test_killed_run_resumes_to_the_same_bytes(bench: Bench, tmp_path: Path, reached: int) -> None:
    sink = tmp_path / "out.zarr"
    figures = killed_and_resumed(bench, sink, lambda: sink.exists() and len(entries(sink)) >= reached)
    assert figures.computed == figures.total - figures.recorded
    assert figures.begun <= IN_FLIGHT


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(20))
def test_run_killed_at_a_random_time_resumes_to_the_same_bytes(
    bench: Bench, tmp_path: Path, seed: int
) -> None:
    after = random.Random(seed).uniform(0, bench.seconds)
    began = time.monotonic()
    figures = killed_and_resumed(bench, tmp_path / "out.zarr", lambda: time.monotonic() - began > after)
    print(f"killed after {after:.1f} of {bench.seconds:.1f} s: {figures}")  # noqa: T201 # the figures of the bar
    assert figures.computed == figures.total - figures.recorded
    assert figures.begun <= IN_FLIGHT


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(20))
def test_run_killed_at_a_random_piece_of_work_resumes_to_the_same_bytes(
    bench: Bench, tmp_path: Path, seed: int
) -> None:
    sink, random_ = tmp_path / "out.zarr", random.Random(seed)
    reached, delay = random_.randint(1, 111), random_.uniform(0, 0.2)

    def now() -> bool:
        if len(entries(sink)) < reached:
            return False
        time.sleep(delay)
        return True

    figures = killed_and_resumed(bench, sink, now)
    print(f"killed {delay:.2f} s after {reached} pieces: {figures}")  # noqa: T201 # the figures of the bar
    assert figures.computed == figures.total - figures.recorded
    assert figures.begun <= IN_FLIGHT


@pytest.mark.timeout(600)
def test_killed_worker_costs_nothing_but_time(bench: Bench, tmp_path: Path) -> None:
    process = bench.start(tmp_path / "out.zarr")
    while process.poll() is None and len(entries(tmp_path / "out.zarr")) < 4:
        time.sleep(0.02)
    workers = [
        each
        for each in psutil.Process(process.pid).children(recursive=True)
        if "spawn_main" in " ".join(each.cmdline())
    ]
    workers[0].kill()
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr
    assert content(tmp_path / "out.zarr") == bench.tree


@pytest.mark.timeout(600)
def test_interrupted_run_says_so_in_one_line_and_resumes(bench: Bench, tmp_path: Path) -> None:
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
