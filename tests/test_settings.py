"""Settings declare what others know of them: one field is a whole option, of the command line and of a result."""

from __future__ import annotations

import importlib
import json
import sys
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import pytest

import unet_dask
from tests.report.test_report import Rows
from unet_dask.config import SegmentConfig, configured
from unet_dask.errors import MismatchError, OptionError, SinkError
from unet_dask.io.sink import place as places
from unet_dask.model.file import inspect_model
from unet_dask.model.header import Normalisation
from unet_dask.run.manifest import fingerprint
from unet_dask.run.prepare import open_inputs, prepare, this_machine
from unet_dask.setting import Setting, identity, setting, settings_of
from unet_dask.verify.reopen import settings_of as settings_of_result
from unet_dask.verify.stored import open_stored

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from unet_dask.report.segment import Asked
    from unet_dask.workers.cluster import Cluster

#: Another value of every setting that values depend on, and that any machine can do.
OTHERS: dict[str, Any] = {
    "precision": "float32",
    "backend": "nnpack",
    "products": ("probabilities",),
    "probability_dtype": "uint8",
    "key": "1",
    "axes": "xy",
    "level": 1,
    "channels": (0,),
    "roi": "0:32,0:64",
    "mask": "auto",
    "tta": "flips",
    "nan": "zero",
    "tile": (16, 32),
    "region": (64, 64),
    "chunks": (16, 16),
    "objects": "cells",
    "fill_holes": "yes",
    "min_size": 7,
    "split": 1.5,
    "threshold": 0.5,
    "numbers": "dense",
    "connect": "z",
    "measure": True,
}
BEGUN = SegmentConfig(precision="float32", memory=1 << 30, tile=(32, 32), region=(32, 64), chunks=(32, 32))


@dataclass(frozen=True, slots=True, kw_only=True)
class Extended(SegmentConfig):
    """The settings with one more, as somebody may add it."""

    sharpen: int = setting(0, values="setting.sharpen", parse=int, help="How often to sharpen [0].")


@pytest.mark.parametrize("each", fields(SegmentConfig), ids=lambda each: each.name)
def test_every_setting_declares_itself(each: Any) -> None:
    assert isinstance(each.metadata.get("setting"), Setting), "say with setting(...) what others have to know"
    assert each.metadata["setting"].help


def test_fingerprint_of_the_settings_is_that_of_results_of_before() -> None:
    usual = {"setting.nan": "stop", "setting.tta": "none", "setting.backend": "torch"}
    assert identity(SegmentConfig()) == usual
    assert identity(SegmentConfig(nan="zero", tta="flips")) == usual | {
        "setting.nan": "zero",
        "setting.tta": "flips",
    }


def test_a_later_setting_is_in_the_fingerprint_where_it_is_not_the_default() -> None:
    assert "setting.sharpen" not in identity(Extended())
    assert identity(Extended(sharpen=2))["setting.sharpen"] == "2"


def test_what_values_depend_on_is_in_the_fingerprint_of_a_run(
    tmp_path: Path, tiny_model: Path, make_source: Callable[..., Path]
) -> None:
    """Each setting decides the field that it names, or it is one that only another machine can show."""
    model = inspect_model(tiny_model)
    source = make_source(tmp_path / "a.zarr", (64, 64))

    def of(config: SegmentConfig) -> dict[str, str]:
        return fingerprint(
            prepare(open_inputs(source, model, config), this_machine(config), None),
            Normalisation("constant", (0.0,), (1.0,)),
        )

    begun = of(BEGUN)
    elsewhere = {"device", "precision", "key", "axes", "level", "channels"}  # of other sources and machines
    deciding = {each.name: each.values for each in settings_of(SegmentConfig) if each.values}
    assert set(deciding) - {"device"} == set(OTHERS)
    # These came later, and are in a fingerprint where they are not as the model says.
    of_objects = {"objects", "fill_holes", "min_size", "split", "threshold", "connect", "numbers"}
    absent = {name for name, values in deciding.items() if values not in begun}
    # There is none, these are as the model says, and nobody asked for a table.
    assert absent == {"mask", "measure", *of_objects}
    for name in set(OTHERS) - elsewhere:
        config = replace(BEGUN, **{name: OTHERS[name]})
        if name == "probability_dtype":
            config = replace(config, products=("probabilities",))
        if name == "measure":
            config = replace(config, products=("instances",))
        assert of(config).get(deciding[name]) != begun.get(deciding[name]), name


@pytest.fixture
def extended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the program have the extended settings: whoever knows the settings, knows these."""
    for module in list(sys.modules.values()):
        if vars(module).get("SegmentConfig") is SegmentConfig and module.__name__ != __name__:
            monkeypatch.setattr(module, "SegmentConfig", Extended)
    package = importlib.import_module("unet_dask_cli")
    monkeypatch.delitem(sys.modules, "unet_dask_cli.segment", raising=False)
    monkeypatch.setattr(package, "segment", importlib.import_module("unet_dask_cli.segment"))


@pytest.mark.usefixtures("extended")
def test_one_field_is_an_option_that_is_shown_guarded_and_restored(
    source: Path, tiny_model: Path, tmp_path: Path, cluster: Cluster, call_cli: Callable[..., Any]
) -> None:
    sink, report = tmp_path / "out.zarr", tmp_path / "r.html"
    begun = ["segment", source, "-o", sink, "-m", tiny_model, "-q"]
    begun += ["--scheduler", cluster.client.scheduler.address]
    assert "How often to sharpen [0]." in call_cli("segment", "--help").stdout
    assert call_cli(*begun, "--sharpen", "2", "--report", report).code == 0
    assert Rows(report.read_text()).rows["sharpen"] == ["2"]
    manifest = places.require_manifest(str(sink))
    assert manifest.fingerprint["setting.sharpen"] == "2"
    for other, now in ((["--sharpen", "3"], "3 now"), ([], "nothing now")):
        refused = call_cli(*begun, "--resume", *other)
        assert refused.code == 2
        assert f"begun with another setting.sharpen: 2 then, {now}" in refused.stderr
    assert call_cli(*begun, "--resume", "--sharpen", "2").code == 0
    assert call_cli("verify", sink, "-m", tiny_model, "-q").code == 0
    stored, _ = open_stored(str(sink))
    assert stored is not None
    found = settings_of_result(stored)
    assert isinstance(found, Extended)
    assert found.sharpen == 2


@pytest.mark.parametrize("said", ["flag", "variable", "file", "flag of now"])
def test_a_setting_is_taken_by_the_name_that_it_had_before(
    said: str, tmp_path: Path, call_cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Asked] = []

    def only_asked(report: object, what: Asked, display: object) -> None:
        asked.append(what)
        raise SinkError("enough")

    monkeypatch.setattr("unet_dask.report.segment.segment_and_report", only_asked)
    arguments = {"flag": ["--mended"], "flag of now": ["--source-fixed"]}.get(said, [])
    if said == "variable":
        monkeypatch.setenv("UNET_DASK_SEGMENT_MENDED", "1")
    if said == "file":
        (tmp_path / "run.toml").write_text("mended = true\n")
        arguments = ["--config", str(tmp_path / "run.toml")]
    assert "enough" in call_cli("segment", "a.zarr", "--resume", *arguments).stderr
    assert asked[0].config.source_fixed


def test_the_name_of_before_is_not_shown(call_cli: Callable[..., Any]) -> None:
    shown = call_cli("segment", "--help").stdout
    assert "--source-fixed" in shown
    assert "mended" not in shown


def test_a_notebook_may_say_the_name_of_before_but_not_both() -> None:
    assert configured(None, {"mended": True}).source_fixed
    with pytest.raises(OptionError, match=r"mended is what source_fixed was called before\. Say it once"):
        configured(None, {"mended": False, "source_fixed": True})


@pytest.mark.usefixtures("extended")
def test_result_of_before_is_gone_on_with_by_the_default_of_a_later_setting(
    source: Path, tiny_model: Path, tmp_path: Path, cluster: Cluster
) -> None:
    sink = tmp_path / "out.zarr"
    unet_dask.segment_store(source, sink, tiny_model, client=cluster.client)
    again = unet_dask.segment_store(source, sink, tiny_model, client=cluster.client, resume=True, sharpen=0)
    assert again.computed == 0
    with pytest.raises(MismatchError, match=r"another setting\.sharpen: nothing then, 1 now"):
        unet_dask.segment_store(source, sink, tiny_model, client=cluster.client, resume=True, sharpen=1)


@pytest.mark.usefixtures("extended")
def test_setting_of_a_manifest_that_makes_no_sense_is_refused(
    source: Path, tiny_model: Path, tmp_path: Path, cluster: Cluster
) -> None:
    sink = tmp_path / "out.zarr"
    unet_dask.segment_store(source, sink, tiny_model, client=cluster.client, sharpen=1)
    document = sink / places.RUN_FOLDER / "zarr.json"
    node = json.loads(document.read_bytes())
    node["attributes"][places.MARK]["fingerprint"]["setting.sharpen"] = "often"
    node["attributes"][places.MARK] = places.sealed(node["attributes"][places.MARK])
    document.write_text(json.dumps(node))
    with pytest.raises(SinkError, match=r"setting\.sharpen is often, and not a value of sharpen"):
        places.require_manifest(str(sink))


def test_settings_of_a_result_are_those_that_it_was_made_with(
    source: Path, tiny_model: Path, tmp_path: Path, cluster: Cluster
) -> None:
    """All that a result says is restored: made again with it, the fingerprint is the same."""
    sink = tmp_path / "out.zarr"
    asked = replace(
        BEGUN, products=("probabilities", "classes"), probability_dtype="uint8", roi="y 0:64, x 0:64",
        mask="auto", tta="flips", nan="zero",
    )  # fmt: skip
    unet_dask.segment_store(source, sink, tiny_model, client=cluster.client, config=asked)
    stored, _ = open_stored(str(sink))
    assert stored is not None
    found = settings_of_result(stored)
    restored = {each.name for each in settings_of(SegmentConfig) if each.recorded}
    told = {"products", "probability_dtype", "mask", "tta", "nan", "tile", "region", "chunks", "memory"}
    assert told - {"probability_dtype"} <= restored
    assert {name: getattr(found, name) for name in told} == {name: getattr(asked, name) for name in told}
    assert found.roi == "c 0:1, y 0:64, x 0:64"
    again = unet_dask.segment_store(
        source, sink, tiny_model, client=cluster.client, config=found, resume=True
    )
    assert again.computed == 0
