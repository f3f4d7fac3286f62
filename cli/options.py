"""What several commands share: types of parameters, and settings from a file."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from unet_dask.config import parse_bytes, parse_channels, parse_products, parse_sizes
from unet_dask.errors import OptionError

if TYPE_CHECKING:
    from collections.abc import Callable


class Parsed(click.ParamType):  # type: ignore[type-arg] # generic in click's stubs alone
    """A parameter that one of the library's parsers reads."""

    def __init__(self, name: str, parser: Callable[[str], Any]) -> None:
        self.name = name
        self._parser = parser

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return what the parser makes of a text."""
        if not isinstance(value, str):
            return value
        try:
            return self._parser(value)
        except OptionError as error:
            self.fail(str(error), param, ctx)


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


BYTES = Parsed("bytes", parse_bytes)
CHANNELS = Parsed("channels", parse_channels)
PRODUCTS = Parsed("products", parse_products)
SIZES = Parsed("sizes", parse_sizes)


def read_config(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """Take the settings of a TOML file as defaults, below the environment and the flags."""
    if value is None:
        return None
    try:
        settings = tomllib.loads(Path(value).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(f"The configuration {value} cannot be read: {error}.") from error
    except tomllib.TOMLDecodeError as error:
        raise OptionError(f"The configuration {value} is not TOML: {error}.") from error
    known = {each.name for each in ctx.command.params}
    settings = {name.replace("-", "_"): setting for name, setting in settings.items()}
    unknown = sorted(set(settings) - known)
    if unknown:
        raise OptionError(
            f"The configuration {value} has unknown settings: {', '.join(unknown)}. Known: "
            f"{', '.join(sorted(name for name in known if name))}."
        )
    ctx.default_map = {name: _text(setting) for name, setting in settings.items()}
    return value


def _text(setting: Any) -> str:  # any TOML value
    """Return a setting as a flag would give it, so that click refuses 1.5 workers instead of rounding them."""
    return ",".join(map(str, setting)) if isinstance(setting, list) else str(setting)
