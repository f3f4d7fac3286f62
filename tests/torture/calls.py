"""Calls on files below a folder, told one by one to a watch that may refuse them.

Everything that Python code does there goes through here: ours, Zarr's and fsspec's. It holds for this process
alone, so runs that are watched have their workers in threads.
"""

from __future__ import annotations

import builtins
import io
import os
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self
from unittest import mock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: What may be refused, as every file system may refuse it.
KINDS = ("open", "read", "write", "fsync", "rename", "link", "mkdir", "unlink", "rmdir", "truncate", "list")


@dataclass(frozen=True, slots=True)
class Call:
    """One call.

    Attributes
    ----------
    name : one of `KINDS`, or "close" of a file that was written
    path : of the file or folder
    target : of a rename or a link
    """

    name: str
    path: str
    target: str = ""


class Watch(Protocol):
    """What is told of every call."""

    def before(self, call: Call) -> None:
        """Hear of a call that is about to be made; what is raised here is raised to the caller."""

    def after(self, call: Call) -> None:
        """Hear of a call that was made."""


class _Writer:
    """A file that is open for writing."""

    def __init__(self, file: Any, path: str, made: Callable[..., Any]) -> None:
        self._file = file
        self._path = path
        self._made = made

    def write(self, data: Any) -> Any:
        return self._made(Call("write", self._path), self._file.write, data)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def close(self) -> None:
        if not self._file.closed:
            self._made(Call("close", self._path), self._file.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *details: object) -> None:
        self.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def _where(path: Any, folder: int | None = None) -> str:
    """Return the absolute path that a call means; a descriptor stands for what it was opened on."""
    if isinstance(path, int):
        return str(Path(f"/proc/self/fd/{path}").readlink())
    text = os.fsdecode(path)
    return os.path.join(_where(folder), text) if folder is not None else os.path.abspath(text)  # noqa: PTH100, PTH118


@contextmanager
def watched(root: Path, watch: Watch) -> Iterator[None]:  # noqa: C901 # a small function for each way in
    """Tell a watch of every call below a folder."""
    within = f"{os.path.realpath(root)}/"
    turn = (
        threading.RLock()
    )  # a call and what is noted of it are one: the order of the notes is that of the calls

    def made(call: Call, function: Callable[..., Any], *arguments: Any, **more: Any) -> Any:
        if not f"{call.path}/".startswith(within):
            return function(*arguments, **more)
        with turn:
            watch.before(call)
            result = function(*arguments, **more)
            watch.after(call)
            return result

    def patched(name: str, kind: str) -> Any:
        real = getattr(os, name)

        def call(path: Any = ".", *arguments: Any, **more: Any) -> Any:
            folder = more.get("dir_fd")
            target = _where(arguments[0]) if kind in ("rename", "link") else ""
            return made(Call(kind, _where(path, folder), target), real, path, *arguments, **more)

        return mock.patch.object(os, name, call)

    real_open = io.open

    def opened(file: Any, mode: str = "r", *arguments: Any, **more: Any) -> Any:
        if isinstance(file, int):
            return real_open(file, mode, *arguments, **more)
        path = _where(file)
        if not f"{path}/".startswith(within):
            return real_open(file, mode, *arguments, **more)
        if not set(mode) & set("wax+"):
            return made(Call("read", path), real_open, file, mode, *arguments, **more)
        return _Writer(made(Call("open", path), real_open, file, mode, *arguments, **more), path, made)

    calls = {
        "open": "open",
        "write": "write",
        "pwrite": "write",
        "fsync": "fsync",
        "replace": "rename",
        "rename": "rename",
        "link": "link",
        "mkdir": "mkdir",
        "unlink": "unlink",
        "remove": "unlink",
        "rmdir": "rmdir",
        "truncate": "truncate",
        "scandir": "list",
        "listdir": "list",
    }
    patches = [patched(name, kind) for name, kind in calls.items()]
    patches += [mock.patch.object(io, "open", opened), mock.patch.object(builtins, "open", opened)]
    for patch in patches:
        patch.start()
    try:
        yield
    finally:
        for patch in reversed(patches):
            patch.stop()
