"""Who is let in to the page of a result: who brings its token, under a name of this machine."""

from __future__ import annotations

import time
from http.client import HTTPConnection
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import pytest

from tests.results import make
from tests.viewer.test_view import ask, serve
from unet_dask.viewer.scene import Scene
from unet_dask.viewer.server import Server, view

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.results import Made


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make(tmp_path_factory.mktemp("guest"))


@pytest.fixture(scope="module")
def server(made: Made) -> Iterator[Server]:
    yield from serve(made.sink)


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "127.0.0.1",
        "evil.example:80",
        "localhost.evil.example:80",
        "x@localhost:80",
        "[::2]:80",
        "0:80",
    ],
)
def test_other_names_of_this_machine_are_refused(server: Server, host: str) -> None:
    assert ask(server, "/scene.json", host=host).status == 403
    assert ask(server, f"/?{server.guest.query}", host=host, cookie="").status == 403


@pytest.mark.parametrize("host", ["localhost:8080", "127.0.0.1:1", "[::1]:9000", "LOCALHOST:8080"])
def test_another_port_of_this_machine_may_lead_here(server: Server, host: str) -> None:
    assert ask(server, "/scene.json", host=host).status == 200


STRANGERS = {
    "nothing": ("/", ""),
    "tile": ("/tile/classes/all/1/0/0.png?z=3", ""),
    "nowhere": ("/no/such/page", ""),
    "empty-token": ("/?token=", ""),
    "guessed-token": (f"/?token={'A' * 43}", ""),
    "odd-token": ("/?token=%ff%00%C3%A9&token", ""),
    "empty-cookie": ("/scene.json", "{name}="),
    "guessed-cookie": ("/scene.json", "{name}=" + "A" * 43),
    "cookie-of-another-name": ("/scene.json", "unet-dask={token}"),
    "token-as-part": ("/?token={token}A", ""),
    "token-cut": ("/?x={token}", "{name}"),
}


@pytest.mark.parametrize(("path", "cookie"), STRANGERS.values(), ids=STRANGERS.keys())
def test_who_does_not_bring_the_token_is_refused_in_a_line(server: Server, path: str, cookie: str) -> None:
    name, _, token = server.guest.cookie.partition(";")[0].partition("=")
    path, cookie = (each.format(name=name, token=token) for each in (path, cookie))
    answer = ask(server, path, cookie=cookie)
    assert (answer.status, answer.kind) == (403, "text/plain")
    assert len(answer.content.splitlines()) == 1
    assert b"whole address" in answer.content


def test_who_brings_the_token_is_let_in_from_then_on(server: Server) -> None:
    connection = HTTPConnection("127.0.0.1", server.server_port, timeout=30)
    connection.request("GET", urlsplit(server.address).path + "?" + urlsplit(server.address).query)
    got = connection.getresponse()
    got.read()
    connection.close()
    kept = got.getheader("Set-Cookie", "")
    assert got.status == 200
    assert kept.endswith("; Path=/; HttpOnly; SameSite=Strict")
    assert got.getheader("Referrer-Policy") == "no-referrer"
    others = 'jupyter="a b"; {"x": 1}; =; unet-dask-00000000=old; '
    assert ask(server, "/scene.json", cookie=others + kept.partition(";")[0]).status == 200


def test_every_server_has_a_token_and_a_cookie_of_its_own(made: Made, server: Server) -> None:
    with Server(Scene(str(made.sink)), 0) as other:
        assert other.guest.query != server.guest.query
        assert other.guest.cookie.partition("=")[0] != server.guest.cookie.partition("=")[0]
    assert ask(server, f"/?{other.guest.query}", cookie=other.guest.cookie).status == 403


def test_browser_is_given_no_token_where_others_could_read_it(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[tuple[str, int, int, str]] = []

    def open_page(address: str) -> None:
        file = Path(unquote(urlsplit(address).path))
        opened.append((address, file.stat().st_mode, file.parent.stat().st_mode, file.read_text()))

    def serve_until_opened(self: Server) -> None:
        deadline = time.monotonic() + 60
        while not opened and time.monotonic() < deadline:
            time.sleep(0.01)
        raise KeyboardInterrupt

    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr("webbrowser.open", open_page)
    monkeypatch.setattr(Server, "serve_forever", serve_until_opened)
    told: list[str] = []
    view(str(made.sink), say=lambda label, text: told.append(text))
    ((address, file_mode, folder_mode, content),) = opened
    page = told[-1].split()[0]
    assert address.startswith("file:///")
    assert "token" not in address
    assert page in content
    assert (file_mode & 0o777, folder_mode & 0o777) == (0o600, 0o700)
    assert not Path(unquote(urlsplit(address).path)).parent.exists()
