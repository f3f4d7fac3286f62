"""Where the commands write: lines that every terminal can show, and a reader who may go away.

A pipe whose reader has left ends the command in silence, as it ends any program: with 141. Standard error that takes
nothing more, because its disk is full, ends nothing: what it would say is lost, the work is not.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from unet_dask.errors import UnetDaskError
from unet_dask.printable import visible

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TextIO

#: Exit code of a program that was ended by SIGPIPE, as shells have it.
READER_GONE = 141
#: Seconds between lines of progress.
_EVERY = 5.0


class OutputError(UnetDaskError):
    """Standard output cannot be written."""


def prepare() -> None:
    """Make standard output and error such that writing to them fails for no letter and goes to no other file.

    What was closed (`>&-`) becomes the null device: else the next file that is opened, perhaps a ledger, would take
    its number, and what any library says would be written into that.
    """
    with contextlib.suppress(OSError):
        while (lowest := os.open(os.devnull, os.O_RDWR)) < 3:
            os.set_inheritable(lowest, True)
        os.close(lowest)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115 # for as long as we run
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def say(line: object) -> None:
    """Write a line about the work to standard error."""
    _tolerant(sys.stderr, visible(line))


def show(line: object) -> None:
    """Write a line of what was asked for to standard output.

    Raises
    ------
    OutputError
        If it cannot be written; a reader that has gone is a `BrokenPipeError`.
    """
    try:
        _write(sys.stdout, visible(line))
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(f"Standard output cannot be written: {error.strerror or error}.") from error


def fact(label: str, text: object, *, err: bool = False) -> None:
    """Write what something is: a label, right-aligned, and a text."""
    (say if err else show)(f"{label:>18}  {text}")


def progress(what: str, *, quiet: bool = False) -> Callable[[int, int], None]:
    """Return a function that says every few seconds how much of something is done."""
    spoke = time.monotonic()

    def tell(done: int, total: int) -> None:
        nonlocal spoke
        if not quiet and time.monotonic() - spoke >= _EVERY:
            spoke = time.monotonic()
            say(f"{done} of {total} {what}")

    return tell


def reader_gone() -> bool:
    """Return whether nobody reads standard output or standard error any more."""
    return any(_gone(number) for number in (1, 2))


def _gone(number: int) -> bool:
    if not hasattr(select, "poll"):
        return False
    watched = select.poll()
    watched.register(number, 0)
    return any(happened & select.POLLERR for _, happened in watched.poll(0))


def flush() -> int:
    """Write what is left in the buffers, and return the exit code that this asks for: 0 if it went well."""
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.flush()
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        return _dropped(READER_GONE)
    except OSError as error:
        _tolerant(sys.stderr, f"unet-dask: Standard output cannot be written: {error.strerror or error}.")
        return _dropped(OutputError.exit_code)
    except ValueError:  # closed by somebody
        return 0
    return 0


def _dropped(code: int) -> int:
    """Let the interpreter find nothing to complain about when it flushes once more."""
    null = os.open(os.devnull, os.O_WRONLY)
    with contextlib.suppress(OSError, ValueError):
        os.dup2(null, sys.stdout.fileno())
    return code


def _write(stream: TextIO, line: str) -> None:
    stream.write(f"{line}\n")
    stream.flush()


def _tolerant(stream: TextIO, line: str) -> None:
    try:
        _write(stream, line)
    except BrokenPipeError:
        raise
    except OSError as error:
        if error.errno == errno.EPIPE:
            raise
