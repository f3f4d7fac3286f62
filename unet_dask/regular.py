"""Files that are files: a pipe, a device or a socket in the place of one is refused before anybody waits for it.

An archive from elsewhere can hold any of them, or links to them. Reading a pipe waits for a writer for ever, and
``/dev/zero`` never ends.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from pathlib import Path

_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
}
#: Without these, opening a pipe waits for its writer, and opening a terminal makes it ours.
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)


class IrregularError(ValueError):
    """What stands in the place of a file is none; the message says what it is."""


def open_regular(path: Path | str) -> BinaryIO:
    """Open a file to read its bytes, if it is a file.

    What is looked at is what was opened, so nothing can be put in its place in between.

    Raises
    ------
    IrregularError
        If it is a pipe, a socket, a device, a folder, or a link to one, or to nothing.
    OSError
        If it cannot be opened.
    """
    try:
        descriptor = os.open(path, _FLAGS)
    except FileNotFoundError as error:
        if os.path.islink(path):  # noqa: PTH114 # of text, too
            raise IrregularError("a link to nothing") from error
        raise
    except OSError as error:
        if error.errno == errno.ENXIO:  # what opening a socket, or a device that is not there, comes to
            raise IrregularError("a socket or a device") from error
        raise
    kind = stat.S_IFMT(os.fstat(descriptor).st_mode)
    if kind != stat.S_IFREG:
        os.close(descriptor)
        raise IrregularError(_KINDS.get(kind, "no regular file"))
    return os.fdopen(descriptor, "rb")


def require_regular(path: Path | str) -> None:
    """Raise like `open_regular` unless a path is that of a file, for readers that open it themselves."""
    open_regular(path).close()
