"""On a processor without bfloat16 or bytes every door says so in one line, and none emulates them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
import pytest

import unet_dask
from tests.conftest import say_of_bfloat16
from unet_dask.config import SegmentConfig
from unet_dask.engine.backend import load_backend
from unet_dask.engine.device import multiplies
from unet_dask.errors import OptionError
from unet_dask.model.file import load_model
from unet_dask.pipeline import estimated_seconds
from unet_dask.run.prepared import Prepared
from unet_dask.training.config import TrainConfig
from unet_dask.training.loop import train

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from unet_dask.workers.cluster import Cluster

SIZES = ["--tile", "32,32", "--region", "32,32", "--chunks", "32,32"]
NAMED = pytest.mark.parametrize("precision", ["bfloat16", "int8"])


def hold(isa: str | None) -> None:
    """Let oneDNN use of this process's processor what a level has, and all of it again."""
    os.environ.pop("ONEDNN_MAX_CPU_ISA", None)
    if isa:
        os.environ["ONEDNN_MAX_CPU_ISA"] = isa


@pytest.fixture
def plain(cluster: Cluster) -> Iterator[None]:
    """Hold this process and the workers to AVX2, whatever the machine has."""
    before = os.environ.get("ONEDNN_MAX_CPU_ISA")
    hold("AVX2")
    cluster.client.run(hold, "AVX2")
    yield
    hold(before)
    cluster.client.run(hold, before)


@pytest.fixture
def foreign(
    source: Path, tiny_model: Path, tmp_path: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """Return a result that says it was made in bfloat16, by a machine that has it."""
    key = Prepared.key
    sink = tmp_path / "foreign.zarr"
    with monkeypatch.context() as patched:
        patched.setattr(Prepared, "key", lambda self: key(self).in_float32())
        say_of_bfloat16(True)
        cluster.client.run(say_of_bfloat16, True)
        try:
            unet_dask.segment_store(
                source, sink, tiny_model, client=cluster.client, precision="bfloat16",
                region=(32, 32), tile=(32, 32), chunks=(32, 32),
            )  # fmt: skip
        finally:
            say_of_bfloat16(None)
            cluster.client.run(say_of_bfloat16, None)
    return sink


def content(sink: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(sink)): path.read_bytes() for path in sorted(sink.rglob("*")) if path.is_file()
    }


def no_workers(**settings: Any) -> Any:
    raise AssertionError("workers were started for a run that is refused")


@NAMED
@pytest.mark.parametrize("more", [[], ["--dry-run"], ["--dry-run", "--json"]], ids=" ".join)
@pytest.mark.usefixtures("plain")
def test_segment_says_so_before_a_worker_starts(
    precision: str,
    more: list[str],
    source: Path,
    tiny_model: Path,
    tmp_path: Path,
    call_cli: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("unet_dask.pipeline.clusters.local_cluster", no_workers)
    sink = tmp_path / "o.zarr"
    outcome = call_cli("segment", source, "-o", sink, "-m", tiny_model, "--precision", precision, *more)
    assert outcome.code == 2, outcome.stderr
    assert len(outcome.lines) == 1, outcome.stderr
    assert f"has no {precision}" in outcome.stderr
    assert "Use --precision float32" in outcome.stderr
    assert not sink.exists()


@NAMED
@pytest.mark.usefixtures("plain")
def test_verbs_say_so(
    precision: Any, source: Path, tiny_model: Path, tmp_path: Path, cluster: Cluster
) -> None:
    with pytest.raises(OptionError, match=f"has no {precision}"):
        unet_dask.plan_store(source, tiny_model, precision=precision)
    for client in (None, cluster.client):
        with pytest.raises(OptionError, match=f"has no {precision}.*Use --precision float32"):
            unet_dask.segment_store(
                source, tmp_path / "o.zarr", tiny_model, client=client, precision=precision
            )
    assert not (tmp_path / "o.zarr").exists()
    with pytest.raises(OptionError, match=f"has no {precision}"):
        load_backend("torch", load_model(tiny_model), device="cpu", precision=precision)


@pytest.mark.usefixtures("plain")
def test_run_for_other_machines_is_planned_here(
    source: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unet_dask.engine.speed._TIMED_FLOP", 1e7)
    config = SegmentConfig(precision="bfloat16", scheduler="tcp://127.0.0.1:1")
    plan = unet_dask.plan_store(source, tiny_model, config=config)
    assert plan.precision == "bfloat16"
    assert estimated_seconds(plan, tiny_model, config) > 0


@pytest.mark.parametrize("where", ["threads", "cluster", "numpy"])
@pytest.mark.usefixtures("plain")
def test_lazy_array_says_so_when_it_is_computed(where: str, tiny_model: Path, cluster: Cluster) -> None:
    values = np.zeros((64, 64), np.uint8)
    image: Any = values if where == "numpy" else da.from_array(values, chunks=32)
    scheduler: Any = cluster.client if where == "cluster" else "threads"

    def computed() -> Any:
        made = unet_dask.segment(image, str(tiny_model), precision="bfloat16")
        return made.compute(scheduler=scheduler)  # of numpy it is computed before

    with pytest.raises(OptionError, match=r"has no bfloat16.*Use --precision float32"):
        computed()


@pytest.mark.usefixtures("plain")
def test_training_says_so(tmp_path: Path) -> None:
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "a.npy", np.zeros((64, 64), np.uint8))
    config = TrainConfig(precision="bfloat16", device="cpu", iterations=1)
    with pytest.raises(OptionError, match=r"has no bfloat16.*Use --precision float32"):
        train(tmp_path / "images", tmp_path / "labels", tmp_path / "m.safetensors", config)


@pytest.mark.usefixtures("plain")
def test_foreign_result_is_verified_but_for_its_crops(
    foreign: Path, tiny_model: Path, call_cli: Callable[..., Any]
) -> None:
    made = unet_dask.verify_store(foreign, tiny_model, crops=3)
    assert made.findings == ()
    assert made.crops == 0
    (note,) = made.notes
    assert "crops not recomputed: the run was in bfloat16" in note
    outcome = call_cli("verify", foreign, "-m", tiny_model)
    assert outcome.code == 0, outcome.stderr
    assert "Traceback" not in outcome.stderr + outcome.stdout


def test_result_in_bfloat16_has_its_crops_where_there_is_one(foreign: Path, tiny_model: Path) -> None:
    if not multiplies("bfloat16", "cpu"):
        pytest.skip("this processor has no bfloat16")
    assert unet_dask.verify_store(foreign, tiny_model, crops=3).crops == 3


@pytest.mark.usefixtures("plain")
def test_foreign_run_is_not_resumed_in_another_precision(
    foreign: Path, source: Path, tiny_model: Path, cluster: Cluster, call_cli: Callable[..., Any]
) -> None:
    ledger = foreign / "_unet_dask" / "ledger.jsonl"
    ledger.write_bytes(b"".join(ledger.read_bytes().splitlines(keepends=True)[:3]))
    before = content(foreign)
    address = cluster.client.scheduler.address
    for more in ([], ["--precision", "bfloat16"], ["--scheduler", address]):
        outcome = call_cli("segment", source, "-o", foreign, "-m", tiny_model, "--resume", *SIZES, *more)
        assert outcome.code == 2, outcome.stderr
        assert len(outcome.lines) == 1, outcome.stderr
        assert "The run was begun in bfloat16: resume it on machines that have it" in outcome.stderr
        assert content(foreign) == before


@pytest.mark.usefixtures("plain")
def test_repair_is_refused_before_it_touches_the_ledger(foreign: Path, tiny_model: Path) -> None:
    shutil.rmtree(foreign / "classes" / "0" / "c" / "1")
    before = content(foreign)
    with pytest.raises(OptionError, match="The run was begun in bfloat16"):
        unet_dask.repair_store(foreign, tiny_model)
    assert content(foreign) == before


#: Level that oneDNN may be held to, and whether bfloat16, float16 and bytes are left of all that a processor may have.
LEVELS = [
    ("SSE41", False, False, False),
    ("AVX2", False, False, False),
    ("avx512_core", False, False, False),
    ("AVX2_VNNI", False, False, True),
    ("AVX2_VNNI_2", False, False, True),
    ("AVX512_CORE_VNNI", False, False, True),
    ("AVX512_CORE_BF16", True, False, True),
    ("AVX512_CORE_FP16", True, True, True),
    ("AVX512_CORE_AMX", True, True, True),
    ("ALL", True, True, True),
]


@pytest.mark.parametrize("name", ["ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"])
@pytest.mark.parametrize(("isa", "bfloat16", "float16", "int8"), LEVELS, ids=[level[0] for level in LEVELS])
def test_a_processor_can_what_onednn_may_use_of_it(
    name: str, isa: str, bfloat16: bool, float16: bool, int8: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    everything = {"avx_vnni", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_bf16", "amx_int8"}
    monkeypatch.setattr("unet_dask.engine.device._instructions", lambda: frozenset(everything))
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    monkeypatch.delenv("DNNL_MAX_CPU_ISA", raising=False)
    named = ("bfloat16", "float16", "int8")
    assert [multiplies(each, "cpu") for each in named] == [True, True, True]
    monkeypatch.setenv(name, isa)
    assert [multiplies(each, "cpu") for each in named] == [bfloat16, float16, int8]


def test_a_laptop_with_bytes_alone_is_held_to_less(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unet_dask.engine.device._instructions", lambda: frozenset({"avx512_vnni"}))
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2_VNNI")
    assert not multiplies("int8", "cpu")


def test_whoever_plans_does_not_load_torch_to_know() -> None:
    code = (
        "import sys; from unet_dask.engine.device import multiplies; multiplies('bfloat16', 'cpu'); "
        "multiplies('int8', 'cpu'); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
