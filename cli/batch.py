"""``unet-dask batch``."""

from __future__ import annotations

import copy
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from unet_dask.config import SegmentConfig

from .options import Parsed, common
from .segment import default_sink, segment
from .settings import name_variables
from .terminal import fact, show

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from unet_dask.batch.needs import Needs
    from unet_dask.batch.slurm import Array

#: What jobs of an array are not told: the number of their part is their own, they share a place that none of them may
#: clear, and each has workers on its own machine.
_NOT_LENT = {
    "part",
    "overwrite",
    "resume",
    "dry_run",
    "scheduler",
    "scheduler_file",
    "cluster",
    "as_json",
    "quiet",
    "debug",
}
#: What is for this command alone, or has a place of its own in the script; what a file of settings says is written out.
_OWN = {"sources", "sink", "config", "parts", "slurm", "seconds", *_NOT_LENT}


class Lending(click.Command):
    """A command that also has options of another one, and keeps what was said of them word by word."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take the arguments, and note the words."""
        ctx.meta[__name__], _, _ = self.make_parser(ctx).parse_args(list(args))
        return super().parse_args(ctx, args)


def _time(text: str) -> int:
    from unet_dask.batch.slurm import parse_time

    return parse_time(text)


def _with_options_of(command: click.Command, name: str) -> Callable[[click.Command], click.Command]:
    """Let a command have the options of another one, which keep their variables."""
    name_variables(command, name)

    def decorated(borrower: click.Command) -> click.Command:
        borrower.params[:0] = [copy.copy(each) for each in command.params if each.name not in _NOT_LENT]
        return borrower

    return decorated


@_with_options_of(segment, "segment")
@click.command(cls=Lending, short_help="Write the script of an array of batch jobs.")
@click.option("--parts", type=click.IntRange(min=1), required=True, help="Jobs that share the work.")
@click.option("--slurm", is_flag=True, help="For Slurm, the only batch system that is known.")
@click.option(
    "--time",
    "seconds",
    type=Parsed("time", _time),
    metavar="4:00:00",
    help="Time limit of a job [from the plan].",
)
@common(quiet="Do not say what jobs ask for.", printed="the script and what jobs ask for")
@click.pass_context
def batch(
    context: click.Context,
    /,
    *,
    parts: int,
    slurm: bool,
    seconds: int | None,
    quiet: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Write a script to standard output, whose jobs segment SOURCE together: an image, or many.

    \b
    unet-dask batch big.zarr --parts 8 --slurm > job.sh
    unet-dask batch big.zarr -m membranes.safetensors --products classes,instances --parts 8 --slurm > job.sh
    unet-dask batch big.zarr --device cuda --time 4:00:00 --parts 4 --slurm > job.sh
    sbatch job.sh

    A job asks for cores or GPUs, memory and time from the plan of its part; it goes on by itself after its time limit,
    and the last one completes the result. All other options are those of segment, and go into the script.
    """  # noqa: D301 # click takes the escaped b for "keep these lines"
    if not slurm:
        raise click.UsageError("Say for which batch system: --slurm is the only one that is known.")
    array, needs = _planned(context, given, parts, seconds)
    text = array.script(needs)
    if as_json:
        show(json.dumps({"script": text, **needs.to_json()}))
        return
    for line in text.splitlines():
        show(line)
    if not quiet:
        _say(text, parts, needs)


def _say(text: str, parts: int, needs: Needs) -> None:
    """Say what the array is, beside the script."""
    from unet_dask.batch.slurm import as_time
    from unet_dask.io.remote import redact

    fact("array", f"{parts} jobs, each of {needs.describe()}, {as_time(needs.seconds)}", err=True)
    if redact(text) != text:
        fact("note", "an address in the script holds a secret: keep the file to yourself", err=True)
    if sys.stdout.isatty():
        fact("next", "write it to a file, as by > job.sh, and submit that: sbatch job.sh", err=True)


def _planned(
    context: click.Context, given: dict[str, Any], parts: int, seconds: int | None
) -> tuple[Array, Needs]:
    """Return what the array does, and what its jobs ask for."""
    from unet_dask.batch.needs import needs_of_image, needs_of_images
    from unet_dask.batch.slurm import Array
    from unet_dask.io.remote import is_local
    from unet_dask.model.file import DEFAULT_MODEL

    from . import many

    sources, sink, model = given["sources"], given["sink"], given["model"] or DEFAULT_MODEL
    config = SegmentConfig(
        **{name: given[name] for name in SegmentConfig.__dataclass_fields__ if given.get(name) is not None}
    )
    asked = many.asked_for(sources, sink, config, {**given, "resume": True, "overwrite": False})
    if asked is not None:
        output = asked.output + "/"
        needs = needs_of_images(asked, model, parts, seconds)
    else:
        source = many.series_of(sources[0], given["series"])
        output = sink or default_sink(source)
        needs = needs_of_image(source, model, config, parts, seconds)
    arguments = [["-o", output], *_arguments(context, needs), *([["--resume"]] if asked else [])]
    array = Array(_program(), sources, arguments, output, parts, str(Path.cwd()), remote=not is_local(output))
    return array, needs


def _arguments(context: click.Context, needs: Needs) -> Iterator[list[str]]:
    """Yield the options of `segment`: what was said, and what jobs would otherwise find on their machines."""
    settled = dict(needs.settings)
    for option in context.command.params:
        words = _said(context, option)
        if words:
            name = words[0].removeprefix("--")
            if words[1:] != ["auto"] or name not in settled:
                settled.pop(name, None)
                yield words
    yield from ([f"--{name}", value] for name, value in settled.items())


def _said(context: click.Context, option: click.Parameter) -> list[str]:
    """Return an option of `segment` and its value, wherever it was said, as it was written; nothing of what was not."""
    if option.name in _OWN or option.name is None:
        return []
    source = context.get_parameter_source(option.name)
    if source is ParameterSource.COMMANDLINE:
        word = context.meta[__name__][option.name]
    elif source is ParameterSource.ENVIRONMENT:
        word = option.resolve_envvar_value(context)
    elif source is ParameterSource.DEFAULT_MAP:
        word = context.lookup_default(option.name)
    else:
        return []
    if getattr(option, "is_flag", False):
        return option.opts[-1:] if context.params[option.name] else []
    return [option.opts[-1], str(word)]


def _program() -> list[str]:
    """Return the words that are this program on a machine with the same folders."""
    script = Path(sys.executable).with_name("unet-dask")
    return [str(script)] if os.access(script, os.X_OK) else [sys.executable, "-m", "unet_dask"]
