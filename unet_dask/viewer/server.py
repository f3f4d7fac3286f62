"""The server behind the page: for one user of this machine, and of nothing but what the page asks for.

No path of a request is ever a path of the file system: a request is a page, a description, a tile or a voxel of the
one result that is shown, or it is not found. Who may ask, :mod:`unet_dask.viewer.guest` decides.
"""

from __future__ import annotations

import html
import json
import math
import os
import re
import sys
import webbrowser
from contextlib import contextmanager, nullcontext
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from threading import Thread
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlsplit

from unet_dask import private
from unet_dask.errors import OptionError
from unet_dask.io.remote import one_line
from unet_dask.io.source.received import consented
from unet_dask.viewer import paint
from unet_dask.viewer.guest import Guest
from unet_dask.viewer.layer import TooFarOutError
from unet_dask.viewer.scene import NotShownError, Scene, Where

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from unet_dask.io.source.received import Consent

_HOST = "127.0.0.1"
_TILE = re.compile(r"/tile/([a-z]+)/([a-z0-9]+)/(\d{1,12})/(\d{1,12})/(\d{1,12})\.png", re.ASCII)
_CONTRAST = re.compile(r"/contrast/([a-z0-9]+)\.json", re.ASCII)
#: A file that leads to the page.
_LEADS_ON = """<!doctype html>
<meta charset="utf-8"><meta name="referrer" content="no-referrer"><title>unet-dask</title>
<meta http-equiv="refresh" content="0; url={0}"><a href="{0}">the result</a>
"""
#: Nothing from elsewhere is loaded or asked, whatever a result may hold.
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def view(
    sink: str,
    *,
    port: int = 0,
    browser: bool = True,
    source: str | Consent | None = None,
    say: Callable[[str, str], None] = lambda label, text: None,
) -> None:
    """Serve a page that shows a result, until Ctrl-C.

    Parameters
    ----------
    sink : path or URL of a result, complete or not
    port : to listen at, on this machine alone; 0 for any that is free
    browser : whether to open the page
    source : path or URL of the source; None for where the result says, if that is on this machine. A
        :class:`unet_dask.io.source.received.Consent` can say more
    say : called with label and text of what the user should know

    Raises
    ------
    SinkError
        If there is no result of ours.
    OptionError
        If the port is taken.
    """
    scene = Scene(sink, consented(source))
    with Server(scene, port) as server:
        try:
            for note in scene.notes:
                say("note", note)
            say("page", f"{server.address} (Ctrl-C ends it)")
            with _opened(server.address) if browser and _has_screen() else nullcontext():
                server.serve_forever()
        except KeyboardInterrupt:
            return


@contextmanager
def _opened(address: str) -> Iterator[None]:
    """Open the page in the browser, whose arguments everybody may read: it is given a file that leads there."""
    with private.folder() as folder:
        file = folder / "view.html"
        private.write(file, _LEADS_ON.format(html.escape(address)).encode())
        Thread(target=webbrowser.open, args=(file.as_uri(),), daemon=True).start()
        yield


def _has_screen() -> bool:
    """Return whether there is a screen to open a browser on: one in the terminal would take the terminal."""
    return sys.platform != "linux" or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))


class Server(ThreadingHTTPServer):
    """Serves one scene to this machine.

    Parameters
    ----------
    scene : to show
    port : 0 for any that is free

    Raises
    ------
    OptionError
        If the port is taken.
    """

    daemon_threads = True
    block_on_close = False  # Ctrl-C does not wait for a tile

    def __init__(self, scene: Scene, port: int) -> None:
        self.scene = scene
        self.guest = Guest()
        try:
            super().__init__((_HOST, port), _Handler)
        except OSError as error:
            raise OptionError(
                f"The page cannot be served at port {port}: {error.strerror or error}. Choose another --port, or "
                "none for any that is free."
            ) from error

    @property
    def address(self) -> str:
        """URL of the page, with the token that lets its reader in."""
        return f"http://{_HOST}:{self.server_port}/?{self.guest.query}"

    def handle_error(self, request: object, client_address: object) -> None:  # socketserver's signature
        """Say nothing: a browser that goes away is no news."""


class _Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    server: Server
    protocol_version = "HTTP/1.1"
    server_version = "unet-dask"
    sys_version = ""
    timeout = 60

    def do_GET(self) -> None:  # http.server's name
        """Answer with the page or a part of it."""
        if refusal := self.server.guest.refusal(self.path, self.headers):
            self._send(HTTPStatus.FORBIDDEN, "text/plain", refusal.encode())
            return
        try:
            kind, content = self._answer()
        except TooFarOutError:
            self._send(HTTPStatus.NO_CONTENT, "", b"")
        except NotShownError:
            self._send(HTTPStatus.NOT_FOUND, "text/plain", b"not found")
        except Exception as error:  # a damaged chunk, a source that does not answer: drivers raise anything
            self._send(HTTPStatus.BAD_GATEWAY, "text/plain", one_line(error).encode())
        else:
            self._send(HTTPStatus.OK, kind, content)

    def _answer(self) -> tuple[str, bytes]:
        """Return type and content of what was asked for."""
        asked = urlsplit(self.path)
        options = dict(parse_qsl(asked.query))
        scene = self.server.scene
        match asked.path:
            case "/":
                return "text/html; charset=utf-8", files(__package__).joinpath("page.html").read_bytes()
            case "/scene.json":
                return _json(scene.describe())
            case "/voxel.json":
                return _json(scene.voxel(_number(options, "y"), _number(options, "x"), **_plane(options)))
            case "/object.json":
                return _json(_object(scene, options))
        if found := _CONTRAST.fullmatch(asked.path):
            return _json(scene.contrast(found[1]))
        if found := _TILE.fullmatch(asked.path):
            where = Where(int(found[3]), int(found[4]), int(found[5]), **_plane(options))
            contrast = (_level(options, "low"), _level(options, "high")) if "low" in options else None
            return "image/png", paint.png(scene.tile(found[1], found[2], where, contrast))
        raise NotShownError(asked.path)

    def _send(self, status: HTTPStatus, kind: str, content: bytes) -> None:
        self.send_response(status)
        if kind:
            self.send_header("Content-Type", kind)
        if status != HTTPStatus.NO_CONTENT:
            self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")  # a run may be under way
        self.send_header("Content-Security-Policy", _POLICY)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        self.send_header("Referrer-Policy", "no-referrer")
        if status == HTTPStatus.OK and self.server.guest.shows_token(self.path):
            self.send_header("Set-Cookie", self.server.guest.cookie)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 # http.server's name
        """Write no log: the terminal is the user's."""


def _object(scene: Scene, options: dict[str, str]) -> Mapping[str, str | int]:
    """Return where the object of a number is, or what is told of the one at a place."""
    if "number" in options:
        return scene.object_of(_number(options, "number"))
    return scene.object_at(_number(options, "y"), _number(options, "x"), **_plane(options))


def _plane(options: dict[str, str]) -> dict[str, int]:
    return {axis: _number(options, axis) for axis in "tz" if axis in options}


def _number(options: dict[str, str], name: str) -> int:
    """Return a whole number that was given in a request."""
    text = options.get(name, "")
    if not re.fullmatch(r"\d{1,19}", text, re.ASCII):
        raise NotShownError(name)
    return int(text)


def _level(options: dict[str, str], name: str) -> float:
    """Return a value of the source that was given in a request."""
    try:
        value = float(options.get(name, ""))
    except ValueError as error:
        raise NotShownError(name) from error
    if not math.isfinite(value):
        raise NotShownError(name)
    return value


def _json(value: object) -> tuple[str, bytes]:
    return "application/json", json.dumps(value).encode()
