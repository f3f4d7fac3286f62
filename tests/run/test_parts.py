"""Parts: independent drivers that share a sink write together what one driver writes."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import unet_dask
from unet_dask.errors import MismatchError, OptionError, SinkError, SinkLostError
from unet_dask.io.sink import claim as claims
from unet_dask.io.sink import lock as locks
from unet_dask.io.sink.place import read_manifest
from unet_dask.ledger import Ledger
from unet_dask.part import Part, parse_part
from unet_dask.tiling.region import AxisGrid, RegionGrid
from unet_dask.tiling.valid import Context

if TYPE_CHECKING:
    from collections.abc import Callable

    from unet_dask.workers.cluster import Cluster

SCRIPT = str(Path(sys.executable).with_name("unet-dask"))
SIZES: dict[str, Any] = {"region": (32, 32), "tile": (32, 32), "chunks": (32, 32)}


def grid(counts: tuple[int, ...]) -> RegionGrid:
    return RegionGrid("zyx"[-len(counts) :], tuple(AxisGrid(n, 0, n, 1, 1, Context()) for n in counts))


grids = st.lists(st.integers(1, 9), min_size=1, max_size=3).map(lambda counts: grid(tuple(counts)))


@settings(deadline=None)
@given(grids, st.integers(1, 900), st.integers(1, 20))
def test_every_region_belongs_to_one_part(volume: RegionGrid, count: int, regions: int) -> None:
    parts = [
        [
            index
            for wave in volume.waves(regions, Part(number, count).stretch(len(volume)))
            for index in wave.indices()
        ]
        for number in range(1, count + 1)
    ]
    assert sorted(index for part in parts for index in part) == list(volume.indices())
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@settings(deadline=None)
@given(grids, st.integers(1, 30), st.integers(1, 20), st.integers(1, 20))
def test_a_part_is_the_same_for_any_workers(volume: RegionGrid, count: int, one: int, other: int) -> None:
    ranks = Part(1 + one % count, count).stretch(len(volume))
    few, many = (
        {index for wave in volume.waves(regions, ranks) for index in wave.indices()}
        for regions in (one, other)
    )
    assert few == many == set(volume.stretch(ranks))


@settings(deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 500), st.data())
def test_parts_that_do_not_overlap_share_no_region(
    one: int, other: int, total: int, data: st.DataObject
) -> None:
    left, right = Part(data.draw(st.integers(1, one)), one), Part(data.draw(st.integers(1, other)), other)
    shared = set(left.stretch(total)) & set(right.stretch(total))
    assert left.overlaps(right) == right.overlaps(left)
    assert left.overlaps(right) or not shared


def test_a_part_is_compact() -> None:
    volume = grid((8, 8, 8))
    for number in range(1, 9):
        indices = list(volume.stretch(Part(number, 8).stretch(len(volume))))
        sides = [1 + max(axis) - min(axis) for axis in zip(*indices, strict=True)]
        assert sides == [4, 4, 4]


@pytest.mark.parametrize("text", ["0/4", "5/4", "x", "1/0", "1", "1/", "-1/2", "1.5/2", "1/2/3", ""])
def test_what_is_no_part_is_refused(text: str) -> None:
    with pytest.raises(OptionError, match=r"part"):
        parse_part(text)


@pytest.mark.parametrize("text", ["0/4", "5/4", "x", "1/0"])
def test_command_line_refuses_what_is_no_part(
    text: str, source: Path, tiny_model: Path, tmp_path: Path, call_cli: Callable[..., Any]
) -> None:
    outcome = call_cli("segment", source, "-o", tmp_path / "out.zarr", "-m", tiny_model, "--part", text)
    assert (outcome.code, len(outcome.lines)) == (2, 1)
    assert "part" in outcome.stderr
    assert not (tmp_path / "out.zarr").exists()


def content(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def small_run(source: Path, sink: Path, model: Path, cluster: Cluster, **more: Any) -> Any:
    return unet_dask.segment_store(source, sink, model, client=cluster.client, **SIZES, **more)


@pytest.mark.parametrize("order", [(1, 2, 3, 4), (4, 2, 1, 3)], ids=["in order", "in any order"])
def test_parts_together_write_what_one_run_writes(
    order: tuple[int, ...], tmp_path: Path, source: Path, tiny_model: Path, cluster: Cluster
) -> None:
    small_run(source, tmp_path / "whole.zarr", tiny_model, cluster)
    runs = [small_run(source, tmp_path / "parts.zarr", tiny_model, cluster, part=f"{i}/4") for i in order]
    assert [run.complete for run in runs] == [False, False, False, True]
    assert sum(run.regions for run in runs) == 9
    assert runs[0].remaining == 9 - runs[0].regions
    assert content(tmp_path / "parts.zarr") == content(tmp_path / "whole.zarr")


def test_more_parts_than_regions(tmp_path: Path, source: Path, tiny_model: Path, cluster: Cluster) -> None:
    runs = [
        small_run(source, tmp_path / "out.zarr", tiny_model, cluster, part=f"{number}/11")
        for number in range(1, 12)
    ]
    assert sorted(run.regions for run in runs) == [0] * 2 + [1] * 9
    assert runs[-1].complete


def test_statistics_are_taken_by_the_creator_alone(
    tmp_path: Path, source: Path, make_model: Callable[..., Path], cluster: Cluster
) -> None:
    model = make_model(tmp_path / "volume.safetensors", kind="volume")
    small_run(source, tmp_path / "whole.zarr", model, cluster)
    stages: list[str] = []
    for number in (1, 2):
        small_run(
            source,
            tmp_path / "parts.zarr",
            model,
            cluster,
            part=f"{number}/2",
            on_event=lambda event: stages.append(getattr(event, "name", "")),
        )
    assert stages.count("statistics of the whole volume") == 1
    assert content(tmp_path / "parts.zarr") == content(tmp_path / "whole.zarr")


def test_a_part_that_was_done_is_not_done_again(
    tmp_path: Path, source: Path, tiny_model: Path, cluster: Cluster
) -> None:
    for resume in (False, True):
        small_run(source, tmp_path / "out.zarr", tiny_model, cluster, part="1/2")
        again = small_run(source, tmp_path / "out.zarr", tiny_model, cluster, part="1/2", resume=resume)
        assert (again.computed, again.remaining, again.complete) == (0, 5, False)


def test_a_run_without_parts_finishes_what_parts_began(
    tmp_path: Path, source: Path, tiny_model: Path, cluster: Cluster
) -> None:
    small_run(source, tmp_path / "whole.zarr", tiny_model, cluster)
    small_run(source, tmp_path / "parts.zarr", tiny_model, cluster, part="2/2")
    folder = tmp_path / "parts.zarr" / "_unet_dask"
    for name in ("lock.1-of-2", "lock.creator-0", "lock.finish"):  # as killed drivers leave them
        (folder / name).write_text("process 1 on elsewhere")
    with pytest.raises(SinkError, match="exists already"):
        small_run(source, tmp_path / "parts.zarr", tiny_model, cluster)
    assert small_run(source, tmp_path / "parts.zarr", tiny_model, cluster, resume=True).computed == 4
    assert content(tmp_path / "parts.zarr") == content(tmp_path / "whole.zarr")


def test_another_number_of_parts_may_go_on(
    tmp_path: Path, source: Path, tiny_model: Path, cluster: Cluster
) -> None:
    small_run(source, tmp_path / "whole.zarr", tiny_model, cluster)
    small_run(source, tmp_path / "parts.zarr", tiny_model, cluster, part="1/2")
    runs = [small_run(source, tmp_path / "parts.zarr", tiny_model, cluster, part=f"{i}/3") for i in (1, 2, 3)]
    assert [run.computed for run in runs] == [0, 2, 3]
    assert content(tmp_path / "parts.zarr") == content(tmp_path / "whole.zarr")


def test_a_part_of_something_else_is_refused(
    tmp_path: Path, source: Path, tiny_model: Path, cluster: Cluster
) -> None:
    small_run(source, tmp_path / "out.zarr", tiny_model, cluster, part="1/2")
    before = content(tmp_path / "out.zarr")
    with pytest.raises(MismatchError, match=r"another setting\.nan.*or name another place with -o"):
        small_run(source, tmp_path / "out.zarr", tiny_model, cluster, part="2/2", nan="zero")
    assert content(tmp_path / "out.zarr") == before


def test_a_part_never_overwrites(tmp_path: Path, source: Path, tiny_model: Path, cluster: Cluster) -> None:
    small_run(source, tmp_path / "out.zarr", tiny_model, cluster, part="1/2")
    before = content(tmp_path / "out.zarr")
    with pytest.raises(OptionError, match="cannot overwrite"):
        small_run(source, tmp_path / "out.zarr", tiny_model, cluster, part="1/2", overwrite=True)
    assert content(tmp_path / "out.zarr") == before


HELD = [("1/2", "1/2"), ("1/2", None), (None, "2/2"), ("2/4", "1/2")]


@pytest.mark.parametrize(("one", "other"), HELD, ids=["same", "whole", "part of whole", "overlapping"])
def test_a_driver_of_a_part_that_is_held_is_refused(
    one: str | None, other: str | None, tmp_path: Path, source: Path, tiny_model: Path, cluster: Cluster
) -> None:
    sink = tmp_path / "out.zarr"
    holder = parse_part(one) if one else Part()
    with locks.locked(str(sink), holder), pytest.raises(SinkError, match=f"process {os.getpid()} on"):
        small_run(source, sink, tiny_model, cluster, part=other)
    assert not sink.exists()


def test_a_driver_looks_at_no_part_but_those_that_overlap_its_own(tmp_path: Path) -> None:
    url = str(tmp_path / "out.zarr")
    with (
        locks.locked(url, Part(1, 2)),
        locks.locked(url, Part(3, 4)),
        locks.locked(url, Part(4, 4)),
        pytest.raises(SinkError, match="part 3/4, process"),
    ):
        locks.require_free(url, Part(2, 2))
    with locks.locked(url, Part(1, 2)), locks.locked(url, Part(2, 2)):
        assert sorted(file.name for file in (tmp_path / "out.zarr" / "_unet_dask").iterdir()) == [
            "lock.1-of-2",
            "lock.2-of-2",
        ]


#: Joins sinks, one every so often, at the same moment as other processes do, and tells which it created.
RACER = """
import sys, time
from tests.manifests import manifest_of
from unet_dask.io.sink import claim, multiscale, store
root, begin, rounds, every = sys.argv[1], float(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
level = multiscale.Level((8, 8), (1, 1))
arrays = (store.ArraySpec("classes", "yx", "uint8", (8, 8), None, (level,)),)
manifest = manifest_of(arrays, ("a", "b"), shape=(8, 8))
about = dict(class_names=(), spacing={}, unit={}, translation={}, name="x")
for number in range(rounds):
    url = f"{root}/{number}.zarr"
    time.sleep(max(begin + every * number - time.time() - 0.01, 0))
    while time.time() < begin + every * number:
        pass
    with claim.joined(url) as found:
        if not found:
            time.sleep(0.05 * (number % 3))
            store.create(store.Sink(url, arrays), manifest, **about)
            print(number, flush=True)
"""


@pytest.mark.timeout(120)
def test_of_drivers_that_start_together_one_creates_the_sink(tmp_path: Path) -> None:
    rounds, begin = 25, time.time() + 8
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACER, str(tmp_path), str(begin), str(rounds), "0.4"],
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    created = [int(line) for racer in racers for line in racer.communicate(timeout=100)[0].split()]
    assert [racer.returncode for racer in racers] == [0] * 4
    assert sorted(created) == list(range(rounds))
    assert not list(tmp_path.rglob("lock*"))


def test_a_creator_that_was_killed_is_followed_at_once(tmp_path: Path) -> None:
    url = str(tmp_path / "out.zarr")
    script = f"from unet_dask.io.sink import claim\nwith claim.joined({url!r}): print(flush=True); input()"
    killed = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert killed.stdout is not None
    killed.stdout.readline()
    killed.kill()
    killed.communicate()
    began = time.monotonic()
    with claims.joined(url) as manifest:
        assert manifest is None
        assert (tmp_path / "out.zarr" / "_unet_dask" / "lock.creator-1").is_file()
    assert time.monotonic() - began < 5


def test_a_creator_elsewhere_is_followed_when_it_falls_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "SILENCE", 1.0)
    claim = tmp_path / "out.zarr" / "_unet_dask" / "lock.creator-0"
    claim.parent.mkdir(parents=True)
    claim.write_text("process 1 on elsewhere; abc; 000000000000")
    began = time.monotonic()
    with claims.joined(str(tmp_path / "out.zarr")) as manifest:
        assert manifest is None
    assert time.monotonic() - began > 1


def test_a_sink_that_is_never_created_is_not_waited_for_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: Path, tiny_model: Path
) -> None:
    monkeypatch.setattr(claims, "PATIENCE", 0.5)
    claim = tmp_path / "out.zarr" / "_unet_dask" / "lock.creator-0"
    claim.parent.mkdir(parents=True)
    claim.write_text("process 1 on elsewhere; abc; 000000000000")
    with pytest.raises(
        SinkLostError, match=r"being created by process 1 on elsewhere.*start this part again"
    ):
        unet_dask.segment_store(source, tmp_path / "out.zarr", tiny_model, part="1/2", **SIZES)
    assert read_manifest(str(tmp_path / "out.zarr")) is None


@dataclass(frozen=True)
class Bench:
    """A source with a pyramid, a model, and the tree that one driver writes."""

    source: Path
    model: Path
    tree: dict[str, bytes]

    def command(self, sink: Path, *more: str) -> list[str]:
        settings = "--workers 1 --threads 1 --products classes,probabilities -v"
        sizes = "--region 128,128 --tile 128,128 --chunks 128,128"
        return [
            *(SCRIPT, "segment", str(self.source), "-o", str(sink), "-m", str(self.model)),
            *(*settings.split(), *sizes.split(), *more),
        ]

    def start(self, sink: Path, part: str) -> subprocess.Popen[str]:
        """Start a driver in a process group of its own."""
        return subprocess.Popen(
            self.command(sink, "--part", part),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )


@pytest.fixture(scope="module")
def bench(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_model: Path,
    make_source: Callable[..., Path],
) -> Bench:
    root = tmp_path_factory.mktemp("parts")
    made = Bench(make_source(root / "big.zarr", (640, 640)), tiny_model, {})
    subprocess.run(made.command(root / "whole.zarr"), check=True, capture_output=True)
    return Bench(made.source, made.model, content(root / "whole.zarr"))


def last_line(driver: subprocess.Popen[str]) -> str:
    _, stderr = driver.communicate(timeout=300)
    assert driver.returncode == 0, stderr
    return " ".join(stderr.splitlines()[-1].split())


@pytest.mark.timeout(600)
def test_parts_at_the_same_time_write_what_one_run_writes(bench: Bench, tmp_path: Path) -> None:
    drivers = [bench.start(tmp_path / "out.zarr", f"{number}/3") for number in (1, 2, 3)]
    lines = sorted(last_line(driver) for driver in drivers)
    assert [line.split()[0] for line in lines] == ["done", "part", "part"]
    assert re.search(r"all 25 regions; part ./3 was the last", lines[0])
    assert re.search(r"part ./3 of .* is complete: \d regions", lines[1])
    assert content(tmp_path / "out.zarr") == bench.tree


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_killed_part_is_started_again(bench: Bench, tmp_path: Path) -> None:
    sink = tmp_path / "out.zarr"
    driver = bench.start(sink, "2/2")
    while driver.poll() is None and not (
        sink.exists() and len(Ledger(str(sink / "_unet_dask")).entries()) > 3
    ):
        time.sleep(0.02)
    with suppress(ProcessLookupError):
        os.killpg(driver.pid, signal.SIGKILL)
    driver.communicate()
    done = len(Ledger(str(sink / "_unet_dask")).entries())
    assert 3 < done < 13
    assert last_line(bench.start(sink, "1/2")).endswith(f"{13 - done} of 25 regions remain to other parts")
    assert last_line(bench.start(sink, "2/2")).startswith("done")
    assert content(sink) == bench.tree
