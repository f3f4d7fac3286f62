"""The report of a run: what was planned and done, whole in one file, without secrets, and never at the run's cost."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import zarr

import unet_dask
from unet_dask.config import SegmentConfig
from unet_dask.dispatch import Failure
from unet_dask.errors import IncompleteError, OptionError
from unet_dask.report import place
from unet_dask.report import segment as reports
from unet_dask.report.chart import region_chart
from unet_dask.report.facts import Asked, Outcome, gathered
from unet_dask.report.journal import Journal
from unet_dask.report.page import MARK, page
from unet_dask.report.place import require_place
from unet_dask.report.segment import segment_and_report
from unet_dask.run.events import Remark

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from unet_dask.run.events import Event
    from unet_dask.workers.cluster import Cluster


class Rows(HTMLParser):
    """Rows of tables by the text of their first cell, and whether all that was opened is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: dict[str, list[str]] = {}
        self.pairs: list[list[str]] = []
        self.open: list[str] = []
        self._cells: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag not in ("meta", "img"):
            self.open.append(tag)
        if tag == "tr":
            self._cells = []
        if tag in ("td", "th"):
            self._cells.append("")

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        """Nothing stays open."""

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        if tag == "tr":
            self.rows[self._cells[0]] = self._cells[1:]
            self.pairs.append(self._cells)

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("td", "th"):
            self._cells[-1] += data


def asked_for(source: Path, sink: Path, model: Path, cluster: Cluster, **settings: Any) -> Asked:
    config = SegmentConfig(
        scheduler=cluster.client.scheduler.address,
        tile=(32, 32),
        region=(32, 96),
        chunks=(32, 32),
        **settings,
    )
    return Asked(str(source), str(sink), str(model), config)


@pytest.fixture
def asked(source: Path, tiny_model: Path, tmp_path: Path, cluster: Cluster) -> Asked:
    return asked_for(source, tmp_path / "o.zarr", tiny_model, cluster)


def test_report_says_what_was_done(asked: Asked, tmp_path: Path) -> None:
    events: list[Event] = []
    run = segment_and_report(str(tmp_path / "r.html"), asked, events.append)
    text = (tmp_path / "r.html").read_text()
    found = Rows(text)
    assert found.open == []
    assert [list(each) for each in run.plan.describe() if list(each) not in found.pairs] == []
    assert ["source", asked.source] in found.pairs
    assert ["sink", asked.sink] in found.pairs
    assert "3 of 3 computed" in text
    assert "Mvoxel/s" in found.rows["throughput"][0]
    assert "TFLOP/s" in found.rows["throughput"][0]
    assert found.rows["name"] == ["tiny.safetensors"]
    assert re.fullmatch(r"[0-9a-f]{64}", found.rows["SHA-256 of its tensors"][0])
    assert {"python", "torch", "zarr", "dask", "unet-dask"} <= set(found.rows)
    assert found.rows["tile"] == ["32,32"]
    assert text.count("<circle") == 3
    assert 'src="data:image/png;base64,iVBOR' in text
    assert not any(isinstance(event, Remark) for event in events)


def test_report_counts_objects_and_draws_the_part_with_most_in_it(
    asked: Asked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unet_dask.picture.plane.SIDE", 32)
    monkeypatch.setattr("unet_dask.picture.preview._DETAIL", 16)
    asked = replace(asked, config=replace(asked.config, products=("classes", "instances")))
    segment_and_report(str(tmp_path / "r.html"), asked, lambda event: None)
    text = (tmp_path / "r.html").read_text()
    count = unet_dask.measure(asked.sink).objects
    assert Rows(text).rows["objects found"][0].startswith(f"{count} object")
    assert text.count("data:image/png;base64,iVBOR") == 2


def test_report_needs_nothing_from_elsewhere(asked: Asked, tmp_path: Path) -> None:
    segment_and_report(str(tmp_path / "r.html"), asked, lambda event: None)
    text = (tmp_path / "r.html").read_text()
    assert re.findall(r"https?:|<script|<link|@import|url\(", text) == []


def test_incomplete_run_is_reported_with_places_and_reasons(
    tmp_path: Path, tiny_model: Path, cluster: Cluster
) -> None:
    values = np.zeros((96, 96), np.float32)
    values[80, 5] = np.nan
    array = zarr.create_array(
        str(tmp_path / "f.zarr"), shape=(96, 96), dtype="float32", chunks=(32, 32), dimension_names=["y", "x"]
    )
    array[...] = values
    asked = asked_for(tmp_path / "f.zarr", tmp_path / "o.zarr", tiny_model, cluster)
    with pytest.raises(IncompleteError):
        segment_and_report(str(tmp_path / "r.html"), asked, lambda event: None)
    found = Rows((tmp_path / "r.html").read_text())
    assert "y 64:96, x 0:96" in found.rows
    assert "not finite in one region, the first at c=0, y=80, x=5" in found.rows["y 64:96, x 0:96"][0]
    mended = replace(asked, resume=True, config=replace(asked.config, nan="zero", source_fixed=True))
    segment_and_report(str(tmp_path / "r.html"), mended, lambda event: None)
    again = Rows((tmp_path / "r.html").read_text())
    assert "were done before" in again.rows["before"][0]
    assert "y 64:96, x 0:96" not in again.rows


def test_no_secret_is_reported(asked: Asked) -> None:
    journal = Journal()
    reports._segment(asked, journal)
    secret = "https://me:hunter2@host/big.zarr?token=hunter2"
    journal.failures.append(Failure((0, 0, 0), 0, f"cannot reach {secret}, <b>sorry</b>"))
    journal.failed = 1
    hidden = replace(asked, source=secret, config=replace(asked.config, mask=secret))
    text = page(gathered(hidden, journal, Outcome(f"lost {secret}", good=False, complete=True)), journal)
    assert "hunter2" not in text
    assert text.count("https://host/big.zarr") == 4
    assert "&lt;b&gt;sorry" in text


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("none/r.html", "there is no such folder"),
        (".", "it would lie in|would lie in|it is a folder"),
        ("deep", "it is a folder"),
        ("small.zarr/r.html", "would lie in the source"),
        ("small.seg.zarr", "would lie in the sink"),
        ("small.seg.zarr/r.html", "would lie in the sink"),
        ("notes.txt", "another file"),
        ("s3://bucket/r.html", "it is a URL"),
    ],
)
def test_place_that_cannot_be_is_refused_before_the_run(
    source: Path, tmp_path: Path, place: str, message: str
) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "notes.txt").write_text("mine")
    report = place if "://" in place else str(tmp_path / place)
    with pytest.raises(OptionError, match=message):
        require_place(report, str(source), str(tmp_path / "small.seg.zarr"))
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_refusal_on_the_command_line_begins_nothing(
    source: Path, tiny_model: Path, tmp_path: Path, call_cli: Callable[..., Any]
) -> None:
    outcome = call_cli("segment", source, "-m", tiny_model, "--report", tmp_path / "none" / "r.html")
    assert (outcome.code, len(outcome.lines)) == (2, 1)
    assert not (tmp_path / "small.seg.zarr").exists()


def test_earlier_report_and_empty_file_are_replaced(source: Path, tmp_path: Path) -> None:
    for content in ("", f"{MARK} and so on"):
        (tmp_path / "r.html").write_text(content)
        assert require_place(str(tmp_path / "r.html"), str(source), str(tmp_path / "o.zarr")).exists()


def test_report_that_fails_leaves_the_run_and_one_line(
    asked: Asked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, pieces: list[bytes]) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(place, "write", full)
    events: list[Event] = []
    run = segment_and_report(str(tmp_path / "r.html"), asked, events.append)
    (remark,) = [event for event in events if isinstance(event, Remark)]
    assert run.complete
    assert "could not be written: [Errno 28] No space left on device" in remark.text
    assert len(remark.text.splitlines()) == 1


def test_command_line_writes_it(
    source: Path, tiny_model: Path, tmp_path: Path, cluster: Cluster, call_cli: Callable[..., Any]
) -> None:
    scheduler = ["--scheduler", cluster.client.scheduler.address]
    outcome = call_cli("segment", source, "-m", tiny_model, "-q", "--report", tmp_path / "r.html", *scheduler)
    assert (outcome.code, outcome.stderr) == (0, "")
    assert (tmp_path / "r.html").read_text().startswith(MARK)
    assert [each.name for each in tmp_path.iterdir() if each.name.endswith(".partial")] == []


def test_chart_has_a_dot_for_each_and_none_for_nothing() -> None:
    chart = region_chart([(1.0, 0.5), (2.0, 0.0)])
    assert chart is not None
    assert chart.dots == (("343.0", "10.0"), ("630.0", "186.0"))
    assert region_chart([]) is None
