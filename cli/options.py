"""Types of parameters that several commands share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from unet_dask.config import SegmentConfig
from unet_dask.errors import OptionError
from unet_dask.model.named import named_models
from unet_dask.paths import local_path
from unet_dask.setting import settings_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import TypeVar

    from unet_dask.setting import Setting

    Command = TypeVar("Command", bound=Callable[..., Any])


class Parsed(click.ParamType):  # type: ignore[type-arg] # generic in click's stubs alone
    """A parameter that one of the library's parsers reads; the shell completes a list of the words it knows."""

    def __init__(
        self, name: str, parser: Callable[[str], Any], words: Callable[[], Mapping[str, str]] = dict
    ) -> None:
        self.name = name
        self._parser = parser
        self._words = words

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return what the parser makes of a text."""
        if not isinstance(value, str):
            return value
        try:
            return self._parser(value)
        except OptionError as error:
            self.fail(str(error), param, ctx)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Return the words that the last one of a list may become."""
        before, comma, last = incomplete.rpartition(",")
        words = {word: means for word, means in self._words().items() if word.startswith(last)}
        return [CompletionItem(f"{before}{comma}{word}", help=means) for word, means in words.items()]


class Named(click.ParamType):  # type: ignore[type-arg] # generic in click's stubs alone
    """A path, an URL, or one of some names; the shell completes names and files."""

    name = "path"

    def __init__(self, names: Callable[[], Iterable[str]] = tuple) -> None:
        self._names = names

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Return the names that fit, and word that files do too; the shell looks for those."""
        names = [CompletionItem(name) for name in self._names() if name.startswith(incomplete)]
        return [CompletionItem(incomplete, type="file"), *names]


class LocalFile(Named):
    """A path of this machine, of which ``~`` and ``file://`` are taken by the rule of the library."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path that a text stands for."""
        return local_path(value) if isinstance(value, str) else value


class OneOf(click.Choice):  # type: ignore[type-arg] # generic in click's stubs alone
    """One of some words that are not imported before somebody needs them."""

    def __init__(self, words: Callable[[], Iterable[str]]) -> None:
        self._words = words
        self.case_sensitive = True

    @property
    def choices(self) -> tuple[str, ...]:  # type: ignore[override] # an attribute, which would be filled too early
        """The words."""
        return tuple(self._words())


class Declared(click.Option):
    """An option of a setting.

    Parameters
    ----------
    words : that its help names, and that are not imported before somebody reads it
    formerly : names that the setting had before: taken on the command line, and not shown
    """

    def __init__(
        self,
        *arguments: Any,
        words: Callable[[], Iterable[str]],
        formerly: tuple[str, ...] = (),
        **settings: Any,
    ) -> None:
        super().__init__(*arguments, **settings)
        self._words = words
        self.formerly = formerly

    def add_to_parser(self, parser: Any, ctx: click.Context) -> None:  # click's parser is private to it
        """Let the parser take the names of before as well."""
        shown = self.opts
        self.opts = [*shown, *(f"--{name.replace('_', '-')}" for name in self.formerly)]
        super().add_to_parser(parser, ctx)
        self.opts = shown

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """Return the option and its help, with the words in it."""
        if self.help and "{words}" in self.help:
            self.help = self.help.replace("{words}", ", ".join(self._words()))
        return super().get_help_record(ctx)


def of_settings(*names: str, but: tuple[str, ...] = ()) -> Callable[[Command], Command]:
    """Let a command be told settings of a run, by options that their fields declare.

    Parameters
    ----------
    names : of the fields; none for all
    but : of those that are left out
    """
    chosen = [
        each
        for each in settings_of(SegmentConfig)
        if each.name not in but and (not names or each.name in names)
    ]

    def decorated(command: Command) -> Command:
        for each in reversed(chosen):
            command = _option(each)(command)
        return command

    return decorated


def _option(said: Setting) -> Callable[[Command], Command]:
    """Return the option of a setting."""
    flags = [*([said.short] if said.short else []), f"--{said.name.replace('_', '-')}"]
    kind: dict[str, Any] = (
        {"is_flag": True, "default": None}
        if isinstance(said.default, bool)
        else {"type": _type(said), "metavar": said.metavar}
    )
    return click.option(
        *flags, help=said.help, cls=Declared, words=said.words, formerly=said.formerly, **kind
    )


def _type(said: Setting) -> Any:  # what click takes for a type
    if said.choices:
        return click.Choice(said.choices)
    if said.path:
        return Named(said.words)
    return said.parse if said.parse in (str, int, float) else Parsed(said.name, said.parse, said.words)


def of_source(command: Callable[..., Any]) -> Callable[..., Any]:
    """Let a command be told where the source of a result is, or that the addresses in it may be called."""
    for option in (
        click.option(
            "--trust-source", "trusted", is_flag=True, help="Open remote addresses that the result names."
        ),
        click.option(
            "--source",
            metavar="PATH|URL",
            help="Where the source is [as the result says, if on this machine].",
        ),
    ):
        command = option(command)
    return command


def of_objects(command: Callable[..., Any]) -> Callable[..., Any]:
    """Let a command that goes through all objects of a result be told where the source is, and how to go."""
    command = of_source(command)
    for option in (
        click.option("-j", "--workers", type=int, help="Threads that read and add up [the cores]."),
        click.option("--no-source", is_flag=True, help="Do not measure grey values of the source."),
    ):
        command = option(command)
    return command


def refuse_beside(other: str, **given: object) -> None:
    """Refuse options that say nothing without another, rather than pass over them."""
    for name, value in given.items():
        if value:
            raise click.UsageError(f"--{name.replace('_', '-')} goes with {other}.")


def common(*, quiet: str = "No progress.", printed: str = "the outcome") -> Callable[[Command], Command]:
    """Let a command be told what every command is: to be quiet, to show tracebacks, to print JSON.

    Parameters
    ----------
    quiet : what `--quiet` does
    printed : what `--json` prints

    Returns
    -------
    decorator of a command that takes `quiet` and `as_json`; `--debug` is for whoever calls the command
    """

    def decorated(command: Command) -> Command:
        for option in (
            click.option(
                "--json", "as_json", is_flag=True, help=f"Print {printed} as JSON on standard output."
            ),
            click.option("--debug", is_flag=True, expose_value=False, help="Show tracebacks."),
            click.option("-q", "--quiet", is_flag=True, help=quiet),
        ):
            command = option(command)
        return command

    return decorated


#: A path or URL, which the library reads by its one rule.
PATH = Named()
#: A path of this machine.
FILE = LocalFile()
MODEL = Named(named_models)
