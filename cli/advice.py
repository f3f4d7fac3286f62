"""What the user is told to type: her own command once more, so that it works when it is pasted whole."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from click.core import ParameterSource

if TYPE_CHECKING:
    from collections.abc import Iterator

    import click

    from unet_dask.run.progress import Board

#: The arguments of this command line, as they were given; set by `main`.
GIVEN = "unet_dask.arguments"


def once_more(context: click.Context, *, resume: bool) -> str:
    """Return the command that goes on with what was interrupted.

    It holds every argument as it was given, and the variables of the environment that settings came from, for they may
    have stood before the command. Secrets are not repeated on the screen: then the text says "the same command".

    Parameters
    ----------
    context : of the command
    resume : whether there is something to resume; else the same is begun again
    """
    from unet_dask.io.remote import redact

    same = "the same command" + " with --resume" * resume
    if GIVEN not in (context.obj or {}):  # called by itself, not by the program
        return same
    given = [each for each in context.obj[GIVEN] if each not in ("--resume", "--overwrite")]
    if resume:
        given.insert(given.index("--") if "--" in given else len(given), "--resume")
    variables = [f"{name}={shlex.quote(value)}" for name, value in _variables(context)]
    text = " ".join([*variables, *_program(), shlex.join(given)])
    if redact(text) != text or not text.isprintable():
        return same
    return text


@contextmanager
def interruptible(context: click.Context, display: Board) -> Iterator[None]:
    """Take down what is shown in the end; whoever interrupts a run is told how to go on."""
    try:
        yield
    except KeyboardInterrupt as stopped:
        display.close()
        how = f"{str(stopped) or 'interrupted'}; what is done is kept. Go on with: {once_more(context, resume=True)}"
        stopped.args = (how,)
        raise
    finally:
        display.close()


def _variables(context: click.Context) -> list[tuple[str, str]]:
    """Return the variables of the environment that the command's settings were taken from."""
    found = []
    for option in context.command.params:
        name = option.name or ""
        if context.get_parameter_source(name) is not ParameterSource.ENVIRONMENT or name == "overwrite":
            continue
        names = [option.envvar] if isinstance(option.envvar, str) else list(option.envvar or ())
        found += [(each, os.environ[each]) for each in names if os.environ.get(each)][:1]
    return found


def _program() -> list[str]:
    """Return how this program was called."""
    called = Path(sys.argv[0])
    if called.name == "__main__.py":
        return [shlex.quote(sys.executable), "-m", __package__ or "unet_dask_cli"]
    known = shutil.which("unet-dask")
    if called.name != "unet-dask" or (known and Path(known).absolute() == called.absolute()):
        return ["unet-dask"]
    return [shlex.quote(sys.argv[0])]
