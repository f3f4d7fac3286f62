"""The command line: parse, call one verb, render its events, turn errors into one line and an exit code.

No command holds logic, and no module here imports a heavy library before a command runs.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from typing import Any

import click
from click.shell_completion import shell_complete

from unet_dask.errors import UnetDaskError

from . import terminal
from .advice import GIVEN
from .interrupt import heeded
from .settings import name_variables, require_known_variables

#: Exit code of an error that nobody foresaw. Not 3: scripts would resume for ever.
_OURS = 1
#: Exit code of a program that was ended by SIGINT, as shells have it.
_INTERRUPTED = 130
_COMPLETE = "_UNET_DASK_COMPLETE"

#: Command -> module of this package that defines it. A module is imported when its command is used.
_COMMANDS = {
    "segment": "Segment a Zarr volume into a Zarr group.",
    "batch": "Write the script of an array of batch jobs.",
    "train": "Train a U-Net from a few annotated images.",
    "init": "Make an untrained network.",
    "evaluate": "Score a prediction against its truth.",
    "verify": "Check that a result is whole and right.",
    "info": "Say what a store, a model file or a result is.",
    "convert": "Write an image of any format as OME-Zarr.",
    "preview": "Draw a result over its source as a PNG.",
    "objects": "Make the objects of a result again, by another rule.",
    "measure": "Write a table of the objects of a result.",
    "export": "Write outlines or pictures of objects for other programs.",
    "export-model": "Write a model as a graph of ONNX for other programs.",
    "view": "Look at a result in the browser.",
    "demo": "Make a large image, segment it, show the result.",
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are used, so that --help is fast."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # click's signature
        """Return the names of all commands, in the order of a user's way."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        if cmd_name not in _COMMANDS:
            return None
        name = cmd_name.replace("-", "_")
        command: click.Command = getattr(importlib.import_module(f".{name}", __package__), name)
        name_variables(command, cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="unet-dask")
@click.pass_context
def group(context: click.Context) -> None:
    """Segment microscopy volumes larger than memory with the 2015 U-Net, from Zarr to Zarr."""
    commands = {name: group.get_command(context, name) for name in _COMMANDS}
    require_known_variables({name: each for name, each in commands.items() if each})


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 2 input or usage, 3 lost, 4 incomplete, 130 interrupted."""
    terminal.prepare()
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        with heeded():
            code = _run(given)
    except BaseException as error:  # the last line of defence: a traceback is shown only when asked for
        code = _ended(error, debug="--debug" in given)
    _leave(code)


def _run(given: list[str]) -> int:
    """Do what a command line says, and return its exit code."""
    if instruction := os.environ.get(_COMPLETE):  # the shell asks what may follow
        return shell_complete(group, {}, "unet-dask", _COMPLETE, instruction)
    with group.make_context("unet-dask", given, obj={GIVEN: given}) as context:
        code: Any = group.invoke(context)
    return code if isinstance(code, int) else 0


def _ended(error: BaseException, *, debug: bool) -> int:
    """Say why a command ended, and return the exit code."""
    try:
        if isinstance(error, click.exceptions.NoArgsIsHelpError):
            for line in error.format_message().splitlines():
                terminal.say(line)
            return 2
        if isinstance(error, click.exceptions.Exit):
            return int(error.exit_code)
        if isinstance(error, SystemExit):
            return error.code if isinstance(error.code, int) else int(error.code is not None)
        if isinstance(error, BrokenPipeError) and terminal.reader_gone():
            return terminal.READER_GONE
        if debug:
            traceback.print_exception(error)
        text, code = _explained(error)
        terminal.say(f"unet-dask: {' '.join(text.split())}")
    except BrokenPipeError:
        return terminal.READER_GONE
    return code


def _explained(error: BaseException) -> tuple[str, int]:
    """Return what went wrong in one line, and the exit code."""
    stopped = _stopped(error)
    match error:
        case UnetDaskError() if stopped is None:
            text, code = str(error), error.exit_code
        case _ if stopped is not None:
            text, code = str(stopped) or "interrupted", getattr(stopped, "exit_code", _INTERRUPTED)
        case click.UsageError():
            text, code = f"{error.format_message()} {_help_hint(error)}", 2
        case click.ClickException():
            text, code = error.format_message(), 2
        case MemoryError():
            text, code = "out of memory; what is done is kept, use a smaller --memory and --resume", 3
        case OSError():
            where = type(error).__name__ if error.filename is None else str(error.filename)
            text, code = f"{where}: {error.strerror or error}.", 2
        case _:
            text, code = f"{type(error).__name__}: {error}. An error of unet-dask itself; see --debug", _OURS
    return text, code


def _stopped(error: BaseException | None) -> BaseException | None:
    """Return the interruption that an error is, or that it came of: libraries wrap one that meets their import."""
    seen = 0
    while error is not None and seen < 20:
        if isinstance(error, KeyboardInterrupt | click.Abort):
            return error
        error, seen = error.__cause__ or error.__context__, seen + 1
    return None


def _help_hint(error: click.UsageError) -> str:
    return f"Try {error.ctx.command_path} --help." if error.ctx else "Try unet-dask --help."


def _leave(code: int) -> None:
    """Exit without waiting for the interpreter to take down libraries it no longer needs."""
    code = terminal.flush() or code
    if os.environ.get("UNET_DASK_SLOW_EXIT"):
        sys.exit(code)
    os._exit(code)
