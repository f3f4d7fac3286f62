"""``unet-dask batch``: what its jobs ask for, and what of its command line goes into them."""

from __future__ import annotations

import json
import re
import shlex
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import save_source
from unet_dask.batch import needs
from unet_dask.batch.needs import needs_of_image
from unet_dask.batch.slurm import parse_time
from unet_dask.config import SegmentConfig
from unet_dask.errors import OptionError
from unet_dask.pipeline import plan_store

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Call = Callable[..., Any]

#: Operations in a second that are taken for measured.
RATE = 1e9


@pytest.fixture(autouse=True)
def _no_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(needs, "worker_rate", lambda *_, **__: RATE)


def written(outcome: Any) -> list[str]:
    """Return the words of the call of `segment` in a script."""
    assert outcome.code == 0, outcome.stderr
    found = re.search(r"segment\(\) \{(.*?)^\}", outcome.stdout, re.MULTILINE | re.DOTALL)
    assert found
    return shlex.split(found[1].replace("\\\n", " "))[3:]


def asked(outcome: Any) -> dict[str, str]:
    """Return what a script asks for."""
    return dict(re.findall(r"^#SBATCH --([\w-]+)=?(.*)$", outcome.stdout, re.MULTILINE))


def values(words: list[str]) -> dict[str, str]:
    """Return what follows each option."""
    return {word: after for word, after in pairwise(words) if word.startswith("-")}


def test_all_that_is_said_goes_into_the_script(tiny_model: Path, source: Path, call_cli: Call) -> None:
    said = [
        "--products",
        "classes,instances",
        "--min-size",
        "7",
        "--roi",
        "y 0:64",
        "--tta",
        "flips",
        "--measure",
    ]
    outcome = call_cli(
        "batch",
        source,
        "-o",
        "it's.zarr",
        "-m",
        tiny_model,
        *said,
        "--memory",
        "1.5GiB",
        "--parts",
        "3",
        "--slurm",
        "-v",
    )
    words = written(outcome)
    for word in [*said, "it's.zarr", str(tiny_model), "1.5GiB", "--verbose", str(source)]:
        assert word in words
    assert words[-4:] == ["--part", "$SLURM_ARRAY_TASK_ID/3", "--", str(source)]
    assert not {"--parts", "--slurm", "--time", "--resume"} & set(words)
    assert asked(outcome)["array"] == "1-3"
    assert "3 jobs" in outcome.stderr


def test_jobs_are_told_what_they_would_find_on_their_machines(
    tiny_model: Path, source: Path, call_cli: Call
) -> None:
    outcome = call_cli("batch", source, "-m", tiny_model, "--device", "auto", "--parts", "2", "--slurm")
    told = values(written(outcome))
    limit = plan_store(source, tiny_model, workers=1).limit
    assert told["--device"] == "cpu"
    assert int(told["--memory"]) == limit
    assert int(told["--workers"]) * int(told["--threads"]) == int(asked(outcome)["cpus-per-task"])
    assert told["-o"].endswith(".seg.zarr")


def test_environment_and_file_are_written_out(
    tiny_model: Path, source: Path, tmp_path: Path, call_cli: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNET_DASK_SEGMENT_CHUNKS", "48,48")
    monkeypatch.setenv("UNET_DASK_BATCH_PARTS", "5")
    (tmp_path / "mine.toml").write_text(
        'nan = "zero"\nproducts = ["classes", "instances"]\nchunks = [32, 32]\n'
    )
    outcome = call_cli("batch", source, "-m", tiny_model, "--config", tmp_path / "mine.toml", "--slurm")
    told = values(written(outcome))
    assert (told["--chunks"], told["--nan"], told["--products"]) == ("48,48", "zero", "classes,instances")
    assert asked(outcome)["array"] == "1-5"
    assert "--config" not in told


def test_a_folder_of_images_goes_on_where_it_was(tiny_model: Path, tmp_path: Path, call_cli: Call) -> None:
    for name in ("a", "b", "c"):
        save_source(tmp_path / f"{name}.zarr", (40, 40))
    pattern = str(tmp_path / "*.zarr")
    outcome = call_cli("batch", pattern, "-o", tmp_path / "out", "-m", tiny_model, "--parts", "2", "--slurm")
    words = written(outcome)
    assert "--resume" in words
    assert words[-1] == pattern
    assert values(words)["-o"] == f"{tmp_path}/out/"


def test_json_has_the_script_and_what_jobs_ask_for(tiny_model: Path, source: Path, call_cli: Call) -> None:
    line = ["batch", source, "-m", tiny_model, "--parts", "2", "--slurm", "--time", "1-12"]
    plain, outcome = call_cli(*line), call_cli(*line, "--json")
    found = json.loads(outcome.stdout)
    assert found["script"] == plain.stdout
    assert found["seconds"] == 36 * 3600
    assert asked(plain)["time"] == "1-12:00:00"
    assert -(-found["memory"] >> 20) == int(asked(plain)["mem"].removesuffix("M"))


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--parts", "2"], "--slurm"),
        (["--parts", "0", "--slurm"], "--parts"),
        (["--slurm"], "--parts"),
        (["--parts", "2", "--slurm", "--time", "soon"], "--time"),
        (["--parts", "2", "--slurm", "--overwrite"], "--overwrite"),
        (["--parts", "2", "--slurm", "--scheduler", "tcp://a:1"], "--scheduler"),
        (["--parts", "2", "--slurm", "--part", "1/2"], "--part"),
        (["--parts", "2", "--slurm", "--products", "nuclei"], "nuclei"),
        (["--parts", "2", "--slurm", "--memory", "100MB"], "memory"),
    ],
)
def test_what_no_array_can_be_is_refused(
    more: list[str], says: str, tiny_model: Path, source: Path, call_cli: Call
) -> None:
    outcome = call_cli("batch", source, "-m", tiny_model, *more)
    assert (outcome.code, outcome.stdout, len(outcome.lines)) == (2, "", 1)
    assert says in outcome.stderr


def test_memory_is_that_of_all_processes(tiny_model: Path, source: Path) -> None:
    place, model = str(source), str(tiny_model)
    worker = plan_store(source, tiny_model, memory="1GiB").memory.total
    one = needs_of_image(place, model, SegmentConfig(workers=1, memory=1 << 30), 2)
    four = needs_of_image(place, model, SegmentConfig(workers=4, memory=1 << 30), 2)
    table = needs_of_image(
        place, model, SegmentConfig(workers=4, memory=1 << 30, measure=True, products=("instances",)), 2
    )
    assert one.memory >= worker + (202 << 20) + (251 << 20)  # as measured of driver and server
    assert four.memory - one.memory >= 3 * worker
    assert table.memory >= 4 << 30
    assert (one.cores, four.cores, four.limit) == (2, 8, 1 << 30)


def test_time_is_that_of_the_largest_part(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = str(save_source(tmp_path / "wide.zarr", (64, 6400)))
    config = SegmentConfig(memory=1 << 30, region=(64, 64), tile=(64, 64), chunks=(64, 64))
    plan = plan_store(place, tiny_model, config=config)
    monkeypatch.setattr(needs, "worker_rate", lambda *_, **__: plan.flop / 10_000)
    one, eight, many = (
        needs_of_image(place, str(tiny_model), config, parts).seconds for parts in (1, 8, 500)
    )
    assert one > 10_000
    assert 10_000 / 8 < eight < one
    assert 10_000 / len(plan.grid) < many < eight


def test_a_mask_may_leave_all_to_one_part(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = str(save_source(tmp_path / "wide.zarr", (64, 6400)))
    mask = str(save_source(tmp_path / "mask.zarr", (1, 100)))
    config = SegmentConfig(memory=1 << 30, region=(64, 64), tile=(64, 64), chunks=(64, 64), mask=mask)
    plan = plan_store(place, tiny_model, config=config)
    assert plan.left
    monkeypatch.setattr(needs, "worker_rate", lambda *_, **__: plan.flop / 10_000)
    assert needs_of_image(place, str(tiny_model), config, 2).seconds > 5_000


def test_a_card_that_is_not_here_is_taken_at_its_word(
    tiny_model: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_here(device: str) -> str:
        raise OptionError(f"torch finds no {device} device on this machine.")

    monkeypatch.setattr(needs, "choose_device", none_here)
    config = SegmentConfig(device="cuda", workers=2)
    with pytest.raises(OptionError, match="--time"):
        needs_of_image(str(source), str(tiny_model), config, 2)
    found = needs_of_image(str(source), str(tiny_model), config, 2, parse_time("4:00:00"))
    assert (found.gpus, found.device, found.seconds) == (2, "cuda", 14400)
