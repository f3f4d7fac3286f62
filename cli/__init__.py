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

from unet_dask.errors import UnetDaskError

from .interrupt import heeded

#: Command -> module of this package that defines it. A module is imported when its command is used.
_COMMANDS = {
    "segment": "Segment a Zarr volume into a Zarr group.",
    "train": "Train a U-Net from a few annotated images.",
    "init": "Make an untrained network.",
    "evaluate": "Score a prediction against its truth.",
    "verify": "Check that a result is whole and right.",
    "info": "Say what a store, a model file or a result is.",
    "preview": "Draw a result over its source as a PNG.",
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
        command: click.Command = getattr(importlib.import_module(f".{cmd_name}", __package__), cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


@click.group(
    cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "UNET_DASK"}
)
@click.version_option(package_name="unet-dask")
def group() -> None:
    """Segment microscopy volumes larger than memory with the 2015 U-Net, from Zarr to Zarr."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 2 input or usage, 3 lost, 4 incomplete, 130 interrupted."""
    try:
        with heeded():
            code: Any = group.main(arguments, prog_name="unet-dask", standalone_mode=False)
    except BaseException as error:  # the last line of defence: a traceback is shown only when asked for
        if "--debug" in (sys.argv[1:] if arguments is None else arguments):
            traceback.print_exc()
        code = _explain(error)
    _leave(code if isinstance(code, int) else 0)


def _explain(error: BaseException) -> int:
    """Print what went wrong in one line and return the exit code."""
    match error:
        case click.exceptions.Exit():
            return int(error.exit_code)
        case click.UsageError():
            text, code = f"{error.format_message()} {_help_hint(error)}", 2
        case click.ClickException():
            text, code = error.format_message(), 2
        case click.Abort() | KeyboardInterrupt():
            text, code = "interrupted; what is done is kept, --resume goes on", 130
        case UnetDaskError():
            text, code = str(error), error.exit_code
        case MemoryError():
            text, code = "out of memory; what is done is kept, use a smaller --memory and --resume", 3
        case _:
            text, code = f"{type(error).__name__}: {error}. An error of unet-dask itself; see --debug", 3
    click.echo(f"unet-dask: {' '.join(text.split())}", err=True)
    return code


def _help_hint(error: click.UsageError) -> str:
    return f"Try {error.ctx.command_path} --help." if error.ctx else "Try unet-dask --help."


def _leave(code: int) -> None:
    """Exit without waiting for the interpreter to take down libraries it no longer needs."""
    sys.stdout.flush()
    sys.stderr.flush()
    if os.environ.get("UNET_DASK_SLOW_EXIT"):
        sys.exit(code)
    os._exit(code)
