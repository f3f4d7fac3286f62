"""Results whose record was forged, and sealed again as a run would: told in a line, or refused; never an error of ours.

A forged document may describe another result that could be, and nobody can know; then a command does its work. What no
command may do is crash, hang, ask for the memory of another machine, or blame itself.
"""

from __future__ import annotations

import json
import random
import resource
import shutil
import zlib
from dataclasses import dataclass
from http.client import HTTPConnection
from threading import Thread
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest

from tests.torture import fuzz
from tests.torture.tier import SEED, Tier, counted, tiers
from tests.torture.watchdog import HangError, in_time
from unet_dask.errors import UnetDaskError
from unet_dask.info import describe, lines
from unet_dask.io.sink import node
from unet_dask.io.sink.place import sealed
from unet_dask.picture.preview import preview
from unet_dask.verify.store import repair_store, verify_store
from unet_dask.viewer.scene import Scene
from unet_dask.viewer.server import Server

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable
    from pathlib import Path

    from tests.torture.bench import Bench

#: Seconds within which a command answers, on a machine that does much else.
PROMPT = 60.0
#: Bytes that all of it may cost beyond what the undamaged result does.
ROOM = 512 << 20
#: What a page asks for.
ASKED = (
    "/",
    "/scene.json",
    "/tile/classes/all/1/0/0.png",
    "/tile/classes/all/4/0/0.png",
    "/tile/probabilities/1/1/0/0.png",
    "/tile/source/0/1/0/0.png",
    "/tile/unwritten/all/1/0/0.png",
    "/contrast/0.json",
    "/voxel.json?y=1&x=1",
)


def seal(manifest: Any) -> Any:
    """Return a manifest with the right seal, if it is of a kind that has one."""
    return sealed(manifest) if isinstance(manifest, dict) else manifest


def forge_manifest(sink: Path, draw: random.Random) -> None:
    document = sink / "_unet_dask" / "zarr.json"
    content = json.loads(document.read_text())
    attributes = content["attributes"]
    manifest = attributes["unet_dask"]
    part = draw.choice(["plan", "plan", "fingerprint", "arrays", "model", "nodes", "normalisation", ""])
    if part:
        manifest[part] = fuzz.mutated(manifest[part], draw)
    else:
        manifest = fuzz.mutated(manifest, draw)
    attributes["unet_dask"] = seal(manifest)
    document.write_text(json.dumps(content))


def forge_scaled(sink: Path, draw: random.Random) -> None:
    """Make the manifest agree with itself about a volume of another size, up to one that nobody could store."""
    document = sink / "_unet_dask" / "zarr.json"
    content = json.loads(document.read_text())
    manifest = content["attributes"]["unet_dask"]
    plan, identity = manifest["plan"], manifest["fingerprint"]
    factor = draw.choice((2, 100, 1 << 20, 1 << 30, 1 << 40))
    axis = draw.randrange(1, len(plan["axes"]))
    plan["shape"][axis] *= factor
    plan["roi"][axis][1] *= factor
    plan["regions"] *= factor
    manifest["work"] *= factor
    identity["plan.roi"] = str(tuple(tuple(each) for each in plan["roi"]))
    identity["source.shape"] = ",".join(map(str, plan["shape"]))
    if draw.random() < 0.5:
        for level in sink.glob("[cp]*/[0-9]/zarr.json"):
            array = json.loads(level.read_text())
            array["shape"][len(array["shape"]) - len(plan["axes"]) + axis] *= factor
            level.write_text(json.dumps(array))
        manifest["nodes"] = node.checksums(str(sink), manifest["nodes"])
    content["attributes"]["unet_dask"] = seal(manifest)
    document.write_text(json.dumps(content))


def forge_ledger(sink: Path, draw: random.Random) -> None:
    ledger = sink / "_unet_dask" / "ledger.jsonl"
    rows = [json.loads(line.partition(b" ")[2]) for line in ledger.read_bytes().splitlines()]
    texts = [json.dumps(row).encode() for row in rows]
    for _ in range(draw.choice((1, 1, 3))):
        at = draw.randrange(len(rows))
        text = json.dumps(fuzz.mutated(rows[at], draw)).encode("utf-8", "surrogatepass")
        text = draw.choice(
            (text, text, text, b"\xff" * 9, b"[" * 3000, b"{nope", b'{"level": ' + b"9" * 5000 + b"}")
        )
        if draw.random() < 0.5:
            texts[at] = text
        else:
            texts.append(text)
    ledger.write_bytes(b"".join(b"%08x %s\n" % (zlib.crc32(text), text) for text in texts))
    if draw.random() < 0.3:  # as if the run were under way
        folder = sink / "_unet_dask" / "ledger"
        folder.mkdir()
        ledger.rename(folder / "0.jsonl")


def forge_document(sink: Path, draw: random.Random) -> None:
    """Change the metadata of a node; in half of the cases its checksum in the manifest, too."""
    document = draw.choice([*sorted(sink.glob("[cp]*/**/zarr.json")), sink / "zarr.json"])
    content = json.loads(document.read_text())
    if "ome" in content["attributes"] and draw.random() < 0.8:
        content["attributes"]["ome"] = fuzz.mutated(content["attributes"]["ome"], draw)
        document.write_text(json.dumps(content))
    else:
        document.write_bytes(fuzz.document(document.read_bytes(), draw))
    if draw.random() < 0.5:
        reseal_nodes(sink)


def reseal_nodes(sink: Path) -> None:
    document = sink / "_unet_dask" / "zarr.json"
    content = json.loads(document.read_text())
    manifest = content["attributes"]["unet_dask"]
    for path in manifest["nodes"]:
        try:
            manifest["nodes"][path] = node.checksum(str(sink), path)
        except (OSError, ValueError):
            continue
    content["attributes"]["unet_dask"] = seal(manifest)
    document.write_text(json.dumps(content))


FORGERS = (forge_manifest, forge_manifest, forge_ledger, forge_document, forge_scaled)


def show(sink: Path) -> None:
    """Ask a server of the result for what a page asks for."""
    with Server(Scene(str(sink)), 0) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            for path in ASKED:
                connection = HTTPConnection("127.0.0.1", server.server_port, timeout=PROMPT)
                connection.request("GET", path, headers={"Cookie": server.guest.cookie.partition(";")[0]})
                answer = connection.getresponse()
                content = answer.read()
                assert answer.status in (200, 204, 404, 502), (path, answer.status)
                assert answer.status != 502 or b"\n" not in content, (path, content)
                connection.close()
        finally:
            server.shutdown()
            thread.join()


@dataclass
class Judge:
    """Asks everything of a result, and counts what it came to."""

    bench: Bench
    counts: Counter[str]

    def deeds(self, sink: Path) -> dict[str, Callable[[], Any]]:
        bench = self.bench
        return {
            "info": lambda: list(lines(describe(sink))),
            "verify": lambda: list(verify_store(sink, bench.model, crops=1, workers=1).lines()),
            "preview": lambda: preview(sink, sink.parent / "picture.png"),
            "view": lambda: show(sink),
            "repair": lambda: list(
                repair_store(sink, bench.model, crops=0, workers=1, client=bench.client).lines()
            ),
            "resume": lambda: bench.run(sink, resume=True),
        }

    def judge(self, sink: Path, what: str, chosen: tuple[str, ...]) -> list[str]:
        """Return what a user should never see."""
        findings = []
        for name in chosen:
            try:
                said, outcome = in_time(PROMPT, self.deeds(sink)[name]), "done"
                # A text of several lines would not be one line for people.
                findings += [f"{what} {name}: {each!r}" for each in texts(said) if not one_line(each)]
            except UnetDaskError as error:
                outcome = {2: "refused", 4: "incomplete"}.get(error.exit_code, "lost")
                if outcome == "lost" or not one_line(str(error)):
                    findings.append(f"{what} {name}: exit {error.exit_code}: {error!r}")
            except (HangError, Exception) as error:
                outcome = "crashed"
                findings.append(f"{what} {name}: {type(error).__name__}: {error}"[:500])
            self.counts[f"{name} {outcome}"] += 1
        return findings


def texts(said: Any) -> list[str]:
    if not isinstance(said, list):
        return []
    return [text for each in said for text in (each if isinstance(each, tuple) else (each,))]


def one_line(text: str) -> bool:
    """Tell whether a text is one line that a terminal shows as it is."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return text.isprintable() and len(text) < 4000


@tiers
def test_forged_result_is_a_line(tier: Tier, bench: Bench, ram: Path) -> None:
    draw = random.Random(f"{SEED} forged")
    whole = ram / "whole.zarr"
    bench.run(whole)
    findings: list[str] = []
    with counted("T5 forged results", tier) as counts:
        judge = Judge(bench, counts)
        assert judge.judge(whole, "whole", ("info", "verify", "preview", "view")) == []
        before = peak()
        for number in range(tier.count(60, 2000)):
            sink = ram / "forged.zarr"
            shutil.rmtree(sink, ignore_errors=True)
            shutil.copytree(whole, sink)
            forger = FORGERS[number % len(FORGERS)]
            forger(sink, draw)
            counts["forged"] += 1
            last = draw.choice(("repair", "resume"))  # each of them leaves another result
            findings += judge.judge(sink, f"{number} {forger.__name__}", (draw.choice(LOOKS), last))
        counts["peak_growth_mib"] = (peak() - before) >> 20
        counts["findings"] = len(findings)
        assert findings == []
        assert peak() - before < ROOM


LOOKS = ("info", "verify", "verify", "preview", "view")


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def test_control_reader_that_believes_everything_is_found(bench: Bench, ram: Path) -> None:
    whole = ram / "whole.zarr"
    bench.run(whole)
    draw = random.Random(SEED)
    findings: list[str] = []
    with (
        counted("control", Tier("small")) as counts,
        mock.patch("unet_dask.io.sink.place.parse", lambda document, url: document),
    ):
        for number in range(12):
            sink = ram / "forged.zarr"
            shutil.rmtree(sink, ignore_errors=True)
            shutil.copytree(whole, sink)
            forge_manifest(sink, draw)
            findings += Judge(bench, counts).judge(sink, str(number), ("info", "verify"))
    assert findings


@pytest.mark.parametrize("forger", dict.fromkeys(FORGERS), ids=lambda each: each.__name__)
def test_forgers_leave_a_seal_that_is_right(forger: Callable[..., None], bench: Bench, ram: Path) -> None:
    whole = ram / "whole.zarr"
    bench.run(whole)
    forger(whole, random.Random(SEED))
    content = json.loads((whole / "_unet_dask" / "zarr.json").read_text())
    manifest = content["attributes"]["unet_dask"]
    assert not isinstance(manifest, dict) or sealed(manifest) == manifest
    for line in (whole / "_unet_dask" / "ledger.jsonl").read_bytes().split(b"\n")[:-1]:
        checksum, _, text = line.partition(b" ")
        assert checksum == b"%08x" % zlib.crc32(text)


def test_command_line_says_one_line_of_a_forged_result(
    bench: Bench, ram: Path, call_cli: Callable[..., Any]
) -> None:
    whole = ram / "whole.zarr"
    bench.run(whole)
    document = whole / "_unet_dask" / "zarr.json"
    content = json.loads(document.read_text())
    content["attributes"]["unet_dask"]["plan"]["core"] = "many\n\x1b[31m"
    content["attributes"]["unet_dask"] = seal(content["attributes"]["unet_dask"])
    document.write_text(json.dumps(content))
    for command in (("info",), ("verify", "-q"), ("preview", "-o", str(ram / "p.png"))):
        said = call_cli(command[0], whole, *command[1:])
        assert said.code in (2, 4)
        told = [line for line in (*said.stdout.splitlines(), *said.lines) if "makes no sense" in line]
        assert len(told) == 1
        assert "plan.core" in told[0]
        assert "\x1b" not in told[0]
