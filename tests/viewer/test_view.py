"""The viewer over real HTTP: tiles are the arrays they come from, and nothing else is ever served."""

from __future__ import annotations

import io
import json
import re
import shutil
import signal
import socket
import subprocess
from dataclasses import dataclass
from http.client import HTTPConnection
from importlib.resources import files
from threading import Thread
from typing import TYPE_CHECKING, Any

import imageio.v3 as iio
import numpy as np
import pytest
import zarr

from tests.conftest import SCRIPT
from tests.results import ROI, make
from unet_dask.products.colour import class_colour
from unet_dask.viewer import layer
from unet_dask.viewer.scene import Scene
from unet_dask.viewer.server import Server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from tests.results import Made


@dataclass(frozen=True)
class Answer:
    status: int
    kind: str
    content: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.content)

    @property
    def pixels(self) -> NDArray[np.uint8]:
        assert (self.status, self.kind) == (200, "image/png")
        return np.asarray(iio.imread(io.BytesIO(self.content), extension=".png"))


def ask(
    server: Server, path: str, *, method: str = "GET", host: str | None = None, cookie: str | None = None
) -> Answer:
    """Ask as a browser that has been let in, unless another cookie is given."""
    connection = HTTPConnection("127.0.0.1", server.server_port, timeout=30)
    connection.putrequest(method, path, skip_host=True)  # the path goes out as it is, dots and all
    connection.putheader("Host", host or f"127.0.0.1:{server.server_port}")
    connection.putheader("Cookie", server.guest.cookie.partition(";")[0] if cookie is None else cookie)
    connection.endheaders()
    got = connection.getresponse()
    answer = Answer(got.status, got.getheader("Content-Type", "") or "", got.read())
    connection.close()
    return answer


def serve(sink: Path) -> Iterator[Server]:
    with Server(Scene(str(sink)), 0) as server:
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        ask(server, "/scene.json")
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make(tmp_path_factory.mktemp("view"))


@pytest.fixture(scope="module")
def server(made: Made) -> Iterator[Server]:
    yield from serve(made.sink)


@pytest.fixture
def serving() -> Iterator[Callable[[Path], Server]]:
    opened = []

    def start(sink: Path) -> Server:
        opened.append(serve(sink))
        return next(opened[-1])

    yield start
    for each in opened:
        next(each, None)


def truth(made: Made, z: int) -> NDArray[np.uint8]:
    """Return the classes of a plane of the source, straight from the store."""
    array: Any = zarr.open_array(str(made.sink), path="classes/0", mode="r")
    return np.asarray(array[z - ROI[0][0]])


def test_page_needs_nothing_from_elsewhere(server: Server) -> None:
    answer = ask(server, "/")
    text = answer.content.decode()
    assert (answer.status, answer.kind) == (200, "text/html; charset=utf-8")
    assert re.findall(r"https?:|//cdn|@import|<script[^>]+src|<link[^>]+stylesheet", text) == []
    assert "innerHTML" not in text


def test_page_travels_in_the_package() -> None:
    assert files("unet_dask.viewer").joinpath("page.html").is_file()


def test_scene_says_what_there_is(server: Server) -> None:
    scene = ask(server, "/scene.json").json
    assert scene["extent"] == {"y": [40, 300], "x": [0, 400]}
    assert scene["planes"] == {"z": [2, 6]}
    assert [each["name"] for each in scene["layers"]] == ["source", "probabilities", "classes", "unwritten"]
    assert scene["notes"] == ["not complete: 0 of 1 blocks are done"]
    assert scene["coarsest"] == 2


def test_tile_of_classes_is_the_array(made: Made, server: Server) -> None:
    pixels = ask(server, "/tile/classes/all/1/0/0.png?z=3").pixels
    classes = truth(made, 3)[:256, :256]
    assert pixels.shape == (256, 256, 4)
    np.testing.assert_array_equal(pixels[..., 3] == 255, classes == 1)
    inner = pixels[70:100, 110:190]  # away from the outline
    assert (inner == class_colour(1)).all()


def test_tiles_at_the_end_are_cut(made: Made, server: Server) -> None:
    pixels = ask(server, "/tile/classes/all/1/1/1.png?z=3").pixels
    assert pixels.shape == (260 - 256, 400 - 256, 4)
    np.testing.assert_array_equal(pixels[..., 3] == 255, truth(made, 3)[256:, 256:] == 1)


def test_tile_of_the_source_is_the_array_between_black_and_white(made: Made, server: Server) -> None:
    pixels = ask(server, "/tile/source/0/1/0/1.png?z=5&low=100&high=1200").pixels
    array: Any = zarr.open_array(str(made.source), mode="r")
    values = np.asarray(array[5, 40:296, 256:400], np.float32)
    expected = np.rint(255 * np.clip((values - 100) / 1100, 0, 1))
    assert np.abs(pixels[..., 0] - expected).max() <= 1
    assert (pixels[..., 3] == 255).all()


def test_tile_of_probabilities_has_the_colours_of_the_preview(made: Made, server: Server) -> None:
    from matplotlib import colormaps

    pixels = ask(server, "/tile/probabilities/1/1/0/0.png?z=2").pixels
    expected = np.asarray(colormaps["viridis"](truth(made, 2)[:256, :256] * 255, bytes=True))
    np.testing.assert_array_equal(pixels, expected)


def test_coarse_tile_takes_every_second_voxel(made: Made, server: Server) -> None:
    # Of the pyramid nothing was written yet, so the finest level is read.
    pixels = ask(server, "/tile/classes/all/2/0/0.png?z=4").pixels
    assert pixels.shape == (130, 200, 4)
    np.testing.assert_array_equal(pixels[..., 3] == 255, truth(made, 4)[1::2, 1::2] == 1)


def test_what_was_never_written_is_hatched(tmp_path: Path, serving: Callable[[Path], Server]) -> None:
    server = serving(make(tmp_path, unwritten_rows=68).sink)
    pixels = np.concatenate([ask(server, f"/tile/unwritten/all/1/{row}/0.png?z=3").pixels for row in (0, 1)])
    hatched = pixels[..., 3] == 255
    assert hatched[192:].all()
    assert not hatched[:192].any()
    assert {tuple(colour) for colour in pixels[192:].reshape(-1, 4)} == {(255, 0, 255, 255), (0, 0, 0, 255)}
    voxel = ask(server, "/voxel.json?z=3&y=299&x=0").json
    assert voxel["classes"] == voxel["probabilities"] == "not written"


def test_voxel_under_the_pointer(made: Made, server: Server) -> None:
    found = ask(server, "/voxel.json?z=4&y=120&x=150").json
    array: Any = zarr.open_array(str(made.source), mode="r")
    assert found == {
        "source": str(array[4, 120, 150]),
        "classes": "1 bright",
        "probabilities": "0.000, 1.000",
    }


@pytest.mark.parametrize(
    "path",
    [
        "/../../../../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "//etc/passwd",
        "/page.html",
        "/tile/../1/0/0.png",
        "/tile/classes/all/1/0/..%2f0.png",
        "/tile/nothing/all/1/0/0.png",
        "/tile/classes/1/1/0/0.png",
        "/tile/source/1/1/0/0.png",
        "/tile/classes/all/3/0/0.png",
        "/tile/classes/all/4/0/0.png",
        "/tile/classes/all/1/9/0.png",
        "/tile/classes/all/1/-1/0.png",
        "/tile/classes/all/1/0/0.png?z=6",
        "/tile/classes/all/1/0/0.png?t=0",
        "/tile/classes/all/1/0/0.png?z=x",
        "/tile/source/0/1/0/0.png?low=nan&high=1",
        "/tile/source/0/1/0/0.png?low=1",
        "/tile/classes/all/99999999999999999999/0/0.png",
        "/voxel.json",
        "/voxel.json?y=0&x=0",
        "/contrast/9.json",
        "/zarr.json",
    ],
)
def test_anything_else_is_not_found(server: Server, path: str) -> None:
    assert ask(server, path) == Answer(404, "text/plain", b"not found")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "HEAD", "OPTIONS"])
def test_nothing_but_get(server: Server, method: str) -> None:
    assert ask(server, "/", method=method).status == 501


def test_only_this_machine_is_listened_to(server: Server) -> None:
    assert server.server_address[0] == "127.0.0.1"


def test_tile_reads_its_window_and_no_more(
    made: Made, serving: Callable[[Path], Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serving(made.sink)
    read: list[int] = []
    whole, piece = zarr.Array.__getitem__, zarr.Array.get_basic_selection

    def counted(self: Any, selection: Any) -> Any:
        values = whole(self, selection)
        read.append(np.asarray(values).size)
        return values

    def counted_piece(self: Any, selection: Any, *, out: Any) -> Any:
        read.append(out.as_ndarray_like().size)
        return piece(self, selection, out=out)

    monkeypatch.setattr(zarr.Array, "__getitem__", counted)
    monkeypatch.setattr(zarr.Array, "get_basic_selection", counted_piece)
    ask(server, "/tile/classes/all/1/0/1.png?z=3")
    ask(server, "/tile/source/0/1/0/1.png?z=3&low=0&high=1")
    assert sum(read) == 2 * 256 * 144


def test_tile_that_would_take_too_much_is_empty_and_one_at_full_size_never(
    made: Made, serving: Callable[[Path], Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layer, "MOST_DECODED", 1000)
    server = serving(made.sink)
    assert ask(server, "/tile/source/0/2/0/0.png") == Answer(204, "", b"")
    assert ask(server, "/tile/classes/all/2/0/0.png") == Answer(204, "", b"")
    assert ask(server, "/tile/source/0/1/0/0.png").pixels.shape == (256, 256, 4)


def test_chunks_are_counted_whole() -> None:
    window = ((10, 20), (60, 70))
    assert layer.decoded("czyx", window, (1, 8, 64, 64), (1, 1, 1, 1)) == 8 * 64 * 128
    assert layer.decoded("yx", ((0, 4096), (0, 4096)), (64, 64), (16, 16)) == 256 * 256


def test_result_is_shown_alone_where_the_source_is_gone(
    tmp_path: Path, serving: Callable[[Path], Server]
) -> None:
    alone = make(tmp_path)
    shutil.rmtree(alone.source)
    scene = ask(serving(alone.sink), "/scene.json").json
    assert "source" not in [each["name"] for each in scene["layers"]]
    assert scene["notes"][0].startswith("the source is not shown: There is no")


def test_damaged_chunk_is_said_and_others_are_shown(
    tmp_path: Path, serving: Callable[[Path], Server]
) -> None:
    damaged = make(tmp_path)
    chunk = damaged.source / "c" / "1" / "0" / "0"
    chunk.write_bytes(b"nonsense")
    server = serving(damaged.sink)
    answer = ask(server, "/tile/source/0/1/0/0.png?z=3&low=0&high=1")
    assert answer.status == 502
    assert len(answer.content.splitlines()) == 1
    assert ask(server, "/tile/classes/all/1/0/0.png?z=3").status == 200


def test_what_is_no_result_is_one_line(made: Made, tmp_path: Path, call_cli: Callable[..., Any]) -> None:
    for place, message in (
        (made.source, "not a result of unet-dask"),
        (tmp_path / "no", "There is nothing at"),
    ):
        outcome = call_cli("view", place, "--no-browser")
        assert (outcome.code, len(outcome.lines)) == (2, 1), outcome.stderr
        assert message in outcome.stderr


def test_port_that_is_taken_is_one_line(made: Made, call_cli: Callable[..., Any]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        outcome = call_cli("view", made.sink, "--no-browser", "--port", str(taken.getsockname()[1]))
    assert (outcome.code, len(outcome.lines)) == (2, 1), outcome.stderr
    assert "Choose another --port" in outcome.stderr


def test_interrupt_ends_it_well(made: Made) -> None:
    running = subprocess.Popen(
        [SCRIPT, "view", str(made.sink), "--no-browser"], stderr=subprocess.PIPE, text=True
    )
    assert running.stderr is not None
    lines = [running.stderr.readline(), running.stderr.readline()]
    running.send_signal(signal.SIGINT)
    rest = running.communicate(timeout=30)[1]
    assert running.returncode == 0
    assert "not complete" in lines[0]
    assert re.search(r"http://127\.0\.0\.1:\d+/\?token=[\w-]{43} ", lines[1])
    assert rest == ""
