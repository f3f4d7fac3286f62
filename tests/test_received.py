"""A result that somebody sent: what it names elsewhere is not called unasked, and what it says must agree."""

from __future__ import annotations

import http.server
import json
import os
import shutil
import threading
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

import unet_dask
from tests.torture.watchdog import in_time
from unet_dask.errors import InputError, SinkError
from unet_dask.io.sink import node
from unet_dask.io.sink.manifest_parser import parse, parse_json
from unet_dask.io.sink.place import read_manifest, sealed
from unet_dask.io.source.received import Consent
from unet_dask.picture.preview import preview
from unet_dask.verify.store import repair_store, verify_store
from unet_dask.viewer.scene import Scene

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from unet_dask.workers.cluster import Cluster

SETTINGS: dict[str, Any] = {
    "products": "classes,probabilities",
    "precision": "float32",
    "region": (48, 48),
    "tile": (48, 48),
    "chunks": (48, 48),
}


@dataclass
class Listener:
    """A server that hears who calls it."""

    address: str = ""
    heard: list[str] = field(default_factory=list)


@pytest.fixture
def listener() -> Iterator[Listener]:
    found = Listener()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found.heard.append(self.path)
            self.send_response(404)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_HEAD = do_GET  # noqa: N815 # http.server's name

        def log_message(self, format: str, *words: Any) -> None:  # noqa: A002 # as above
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        found.address = f"http://127.0.0.1:{server.server_port}"
        yield found
        server.shutdown()


@pytest.fixture(scope="module")
def made(
    tmp_path_factory: pytest.TempPathFactory,
    make_source: Callable[..., Path],
    tiny_model: Path,
    cluster: Cluster,
) -> Path:
    folder = tmp_path_factory.mktemp("received")
    source = make_source(folder / "source.zarr")
    unet_dask.segment_store(source, folder / "out.seg.zarr", tiny_model, client=cluster.client, **SETTINGS)
    return folder / "out.seg.zarr"


@pytest.fixture
def sink(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "out.seg.zarr")
    return tmp_path / "out.seg.zarr"


def forge(sink: Path, change: Callable[[Any], object]) -> None:
    """Change a manifest, and seal it again."""
    document = sink / "_unet_dask" / "zarr.json"
    content = json.loads(document.read_text())
    change(content["attributes"]["unet_dask"])
    content["attributes"]["unet_dask"] = sealed(content["attributes"]["unet_dask"])
    document.write_text(json.dumps(content))


def said(sink: Path, model: Path, **settings: Any) -> list[str]:
    return [finding.text for finding in verify_store(sink, model, crops=1, **settings).findings]


@pytest.mark.parametrize("chain", ["{}/a.zarr", "zip::{}/a.zip", "simplecache::{}/a.zarr"])
def test_source_elsewhere_is_not_called(chain: str, sink: Path, listener: Listener, tiny_model: Path) -> None:
    address = chain.format(listener.address)
    forge(sink, lambda record: record["fingerprint"].update({"source.url": address}))
    notes = verify_store(sink, tiny_model, crops=1).notes
    assert any("not opened" in note and "--source" in note for note in notes)
    assert any("not opened" in note for note in preview(sink, sink.parent / "p.png").notes)
    assert any("not opened" in note for note in Scene(str(sink)).notes)
    assert listener.heard == []


def test_repair_does_not_call_either(sink: Path, listener: Listener, tiny_model: Path) -> None:
    forge(sink, lambda record: record["fingerprint"].update({"source.url": f"{listener.address}/a.zarr"}))
    next((sink / "classes" / "0" / "c").rglob("0")).is_dir()
    chunk = next(path for path in (sink / "classes" / "0" / "c").rglob("*") if path.is_file())
    chunk.unlink()
    with pytest.raises(InputError, match="not opened"):
        repair_store(sink, tiny_model, crops=0)
    assert listener.heard == []


def test_mask_elsewhere_is_not_called(sink: Path, listener: Listener, tiny_model: Path) -> None:
    forge(sink, lambda record: record.update(mask=f"{listener.address}/mask.zarr"))
    found = verify_store(sink, tiny_model, crops=1)
    assert any("names the mask" in note and "not opened" in note for note in found.notes)
    assert any("about mask" in finding.text for finding in found.findings)
    assert listener.heard == []


@pytest.mark.parametrize("yes", ["source", "trusted"])
def test_source_elsewhere_is_called_after_a_yes(yes: str, sink: Path, listener: Listener) -> None:
    address = f"{listener.address}/a.zarr"
    forge(sink, lambda record: record["fingerprint"].update({"source.url": address}))
    preview(
        sink, sink.parent / "p.png", source=Consent(address) if yes == "source" else Consent(trusted=True)
    )
    assert listener.heard


def test_source_that_was_moved_is_found_again(sink: Path, made: Path, tiny_model: Path) -> None:
    forge(sink, lambda record: record["fingerprint"].update({"source.url": "s3://far/away.zarr"}))
    shutil.copytree(made.parent / "source.zarr", sink.parent / "here.zarr")
    found = verify_store(sink, tiny_model, crops=1, source=sink.parent / "here.zarr")
    assert found.crops == 1
    assert found.findings == ()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes in folders are POSIX's")
@pytest.mark.parametrize("where", ["source", "ledger", "document"])
def test_pipe_never_keeps_anybody_waiting(where: str, sink: Path, tiny_model: Path) -> None:
    pipes = {
        "source": sink.parent / "pipe",
        "ledger": sink / "_unet_dask" / "ledger.jsonl",
        "document": sink / "_unet_dask" / "zarr.json",
    }
    if where == "source":
        forge(sink, lambda record: record["fingerprint"].update({"source.url": str(pipes["source"])}))
    pipes[where].unlink(missing_ok=True)
    os.mkfifo(pipes[where])
    try:
        in_time(60, lambda: verify_store(sink, tiny_model, crops=1))
    except SinkError as error:
        said = {"document": "damaged", "ledger": "is a named pipe"}
        assert said[where] in str(error)  # noqa: PT017 # of two of three


CHANGES: dict[str, Callable[[Any], object]] = {
    "plan.shape": lambda record: record["plan"].update(shape=[1, True, 96]),
    "plan.roi": lambda record: record["plan"].update(roi=[[0, 1], [5, 4], [0, 96]]),
    "plan.halo": lambda record: record["plan"].update(halo=[20]),
    "plan.core": lambda record: record["plan"].update(core=["48", 48]),
    "plan.axes": lambda record: record["plan"].update(axes="xyc"),
    "plan.region": lambda record: record["plan"].update(region=[1, -48, 48]),
    "plan": lambda record: record["plan"].update(halo=[21, 21]),
    "arrays": lambda record: record["arrays"].append(record["arrays"][0]),
    "arrays[0].name": lambda record: record["arrays"][0].update(name="../classes"),
    "arrays[1].levels": lambda record: record["arrays"][1].update(levels=1 << 70),
    "classes": lambda record: record.update(classes=["one", "\ud800"]),
    "normalisation": lambda record: record.update(normalisation=[[1e999], [1.0]]),
    "work": lambda record: record.update(work=True),
    "model.checksum": lambda record: record["model"].update(checksum="0"),
    "nodes": lambda record: record["nodes"].pop("classes"),
    "memory": lambda record: record.update(memory=-1),
    "mask": lambda record: record.update(mask=[]),
    "fingerprint.source.channels": lambda record: record["fingerprint"].update({"source.channels": "0,,1"}),
    "fingerprint.setting.tta": lambda record: record["fingerprint"].update({"setting.tta": "x"}),
    "fingerprint.source.url": lambda record: record["fingerprint"].update({"source.url": "a\0b"}),
}


@pytest.mark.parametrize("name", CHANGES)
def test_field_that_makes_no_sense_is_named(name: str, sink: Path) -> None:
    forge(sink, CHANGES[name])
    with pytest.raises(SinkError, match="makes no sense") as refused:
        read_manifest(str(sink))
    assert f"makes no sense: {name}" in str(refused.value)
    assert str(refused.value).isprintable()


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"a": 1, "a": 2}', " " * (17 << 20), '{"a": ' + "9" * 5000 + "}", "\xff"]
)
def test_document_that_no_run_writes_is_no_json(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_json(text.encode("latin-1"))


def test_what_a_run_writes_makes_sense(made: Path) -> None:
    document = json.loads((made / "_unet_dask" / "zarr.json").read_text())["attributes"]["unet_dask"]
    assert parse(document, "out.zarr").to_json() == document


CONTRADICTIONS: dict[str, Callable[[Any], object]] = {
    "model.network": lambda record: record["fingerprint"].update(
        {"model.network": record["fingerprint"]["model.network"].replace("depth=2", "depth=3")}
    ),
    "model.checksum": lambda record: record["fingerprint"].update({"model.checksum": "0" * 64}),
    "model.normalisation": lambda record: record.update(normalisation=[[1.0], [2.0]]),
    "source.shape": lambda record: record["fingerprint"].update({"source.shape": "1,96,95"}),
    "source.axes": lambda record: record["fingerprint"].update({"source.axes": "zyx"}),
    "source.channels": lambda record: record["fingerprint"].update({"source.channels": "0,1"}),
    "plan.products": lambda record: record["fingerprint"].update({"plan.products": "[('classes', 'uint8')]"}),
    "plan.precision": lambda record: record.update(precision="bfloat16"),
    "memory": lambda record: record["plan"].update(limit_bytes=1),
    "regions": lambda record: record["plan"].update(regions=5),
    "skipped regions": lambda record: record["plan"].update(skipped=1),
    "ranges": lambda record: record.update(ranges=[[0.0, 1.0]]),
    "mask": lambda record: record.update(mask="auto"),
}


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_manifest_that_contradicts_itself_is_a_finding_each(name: str, sink: Path, tiny_model: Path) -> None:
    forge(sink, CONTRADICTIONS[name])
    assert any(f"contradicts itself about {name}." in text for text in said(sink, tiny_model))


def test_work_that_is_not_the_plan_is_a_finding(sink: Path, tiny_model: Path) -> None:
    forge(sink, lambda record: record.update(work=3))
    assert any("speaks of 3 blocks" in text for text in said(sink, tiny_model))


def reseal(sink: Path, product: str, change: Callable[[Any], object]) -> None:
    """Change the OME-Zarr metadata of a product, and the checksum of its node in the manifest."""
    document = sink / product / "zarr.json"
    content = json.loads(document.read_text())
    change(content["attributes"]["ome"])
    document.write_text(json.dumps(content))
    forge(sink, lambda record: record["nodes"].update({product: node.checksum(str(sink), product)}))


def scale(ome: Any) -> None:
    ome["multiscales"][0]["datasets"][0]["coordinateTransformations"][0]["scale"] = [2.0, 2.0]


def test_products_that_contradict_each_other_are_a_finding(sink: Path, tiny_model: Path) -> None:
    reseal(sink, "classes", scale)
    texts = said(sink, tiny_model)
    assert any("contradict each other about the spacing" in text for text in texts)
    assert any("the result and its source contradict each other about the spacing" in text for text in texts)


def test_names_that_are_not_those_of_the_model_are_a_finding(sink: Path, tiny_model: Path) -> None:
    names = ["nothing", "everything"]
    forge(sink, lambda record: record.update(classes=names))
    reseal(
        sink,
        "classes",
        lambda ome: ome["image-label"].update(
            properties=[{"label-value": value, "class": name} for value, name in enumerate(names)]
        ),
    )
    (text,) = said(sink, tiny_model)
    assert "the manifest and the model contradict each other about the classes" in text


LINES = [
    b'{"checksums": {"classes": "00"}, "index": [0, 0, 0], "level": 0}',
    b'{"checksums": {}, "index": [0, 0, 0], "level": 0}',
    b'{"checksums": {"classes": 7}, "index": [0, 0, 0], "level": 0}',
    b'{"checksums": {}, "index": [0, 0, -1], "level": 0}',
    b'{"checksums": {}, "index": [0, 0, 0.0], "level": 0}',
    b'{"checksums": {}, "index": [0, 0, 0], "level": 1e3}',
    b'{"checksums": {}, "index": [0, 0, 0], "level": true}',
    b'{"checksums": {}, "index": [], "level": 0}',
    b'{"index": [0, 0, 0], "level": 0}',
    b"[" * 9000,
    b"\xff\xfe",
]


@pytest.mark.parametrize("line", LINES, ids=range(len(LINES)))
def test_line_of_wrong_content_does_not_make_a_region_done(
    line: bytes, sink: Path, made: Path, tiny_model: Path, cluster: Cluster
) -> None:
    ledger = sink / "_unet_dask" / "ledger.jsonl"
    rows = ledger.read_bytes().splitlines()
    assert b'"index": [0, 0, 0], "level": 0' in rows[0]
    ledger.write_bytes(b"\n".join([b"%08x %s" % (zlib.crc32(line), line), *rows[1:], b""]))
    assert any("not done" in text for text in said(sink, tiny_model))
    run = unet_dask.segment_store(
        made.parent / "source.zarr", sink, tiny_model, client=cluster.client, resume=True, **SETTINGS
    )
    assert run.computed == 1
    assert ledger.read_bytes() == (made / "_unet_dask" / "ledger.jsonl").read_bytes()
    assert said(sink, tiny_model) == []


def test_lines_that_contradict_each_other_are_found_and_repaired(
    sink: Path, tiny_model: Path, cluster: Cluster
) -> None:
    ledger = sink / "_unet_dask" / "ledger.jsonl"
    rows = ledger.read_bytes().splitlines()
    record = json.loads(rows[0].partition(b" ")[2])
    record["checksums"]["classes"] = "0" * 32
    text = json.dumps(record).encode()
    ledger.write_bytes(b"\n".join([b"%08x %s" % (zlib.crc32(text), text), *rows, b""]))
    assert any("says two things" in text for text in said(sink, tiny_model))
    assert repair_store(sink, tiny_model, crops=0, client=cluster.client).findings == ()
