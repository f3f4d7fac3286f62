"""Who is let in to the page: whoever has its address with the token, and then the browser that came with it.

Every user of a machine reaches its loopback interface, so the address that is told to the user ends in a random
token. The browser that brings it gets a cookie, and the page takes the token out of its address. Requests that name
another host than this machine are refused even so: a page from elsewhere could have its own name mean this machine,
and then a browser would bring it whatever this server answers. The port is not compared: behind `ssh -L` it is another.
"""

from __future__ import annotations

import hmac
import re
import secrets
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

if TYPE_CHECKING:
    from email.message import Message

_THIS_MACHINE = re.compile(r"(?:127\.0\.0\.1|localhost|\[::1\]):\d{1,5}", re.ASCII | re.IGNORECASE)


class Guest:
    """The one who is let in, by a token that is new for every server."""

    def __init__(self) -> None:
        self._token = secrets.token_urlsafe(32)
        # Cookies of all ports of a machine lie in one jar: those of two results must not take each other's place.
        self._name = f"unet-dask-{secrets.token_hex(4)}"

    @property
    def query(self) -> str:
        """What an address has to end with."""
        return f"token={self._token}"

    @property
    def cookie(self) -> str:
        """What a browser has to keep: no script can read it, and no page from elsewhere has it sent."""
        return f"{self._name}={self._token}; Path=/; HttpOnly; SameSite=Strict"

    def refusal(self, path: str, headers: Message) -> str:
        """Return why a request is refused, in a line; nothing if it is not.

        Parameters
        ----------
        path : of the request, with its query
        headers : of the request
        """
        if not _THIS_MACHINE.fullmatch(headers.get("Host", "")):
            return "this server has another name"
        if self.shows_token(path) or self._is_token(self._kept(headers)):
            return ""
        return "this page opens at the whole address that unet-dask view has printed, with its token"

    def shows_token(self, path: str) -> bool:
        """Return whether an address has the token."""
        return self._is_token(dict(parse_qsl(path.partition("?")[2])).get("token", ""))

    def _kept(self, headers: Message) -> str:
        """Return what the browser has kept for this server."""
        # Not http.cookies, which gives all up at one cookie that it cannot read, and others of this machine set theirs.
        pairs = (each.split("=", 1) for line in headers.get_all("Cookie", []) for each in line.split(";"))
        return next(
            (pair[1].strip() for pair in pairs if len(pair) == 2 and pair[0].strip() == self._name), ""
        )

    def _is_token(self, text: str) -> bool:
        # The time that it takes does not tell how much was right.
        return hmac.compare_digest(text.encode(errors="replace"), self._token.encode())
