"""Settings from the environment and from files take the names of the options; unknown ones are refused.

`segment --probability-dtype uint8` is `UNET_DASK_SEGMENT_PROBABILITY_DTYPE=uint8` and `probability-dtype = "uint8"`
in a file, where `probability_dtype` says the same. Names of before that rule are still understood.
"""

from __future__ import annotations

import os
import tomllib
from typing import TYPE_CHECKING, Any

import click

from unet_dask.errors import OptionError
from unet_dask.model.named import FOLDERS
from unet_dask.paths import local_path
from unet_dask.setting import nearest

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

_PREFIX = "UNET_DASK_"
#: No settings of a command: where models lie; and, in tests of this program, whether the interpreter ends itself.
_OTHERS = frozenset({FOLDERS, "UNET_DASK_SLOW_EXIT"})


def plain_name(option: click.Parameter) -> str:
    """Return the name of an option as settings have it: that of its long form, with underscores."""
    long = next((each for each in option.opts if each.startswith("--")), None)
    return (long.removeprefix("--") if long else option.name or "").replace("-", "_")


def _names(option: click.Parameter) -> list[str]:
    """Return the names by which an option is known in the environment and in files; the first is that of now."""
    return list(dict.fromkeys((plain_name(option), option.name or "", *getattr(option, "formerly", ()))))


def name_variables(command: click.Command, name: str) -> None:
    """Give every option of a command the variable that it can be set by, and those that it had before.

    Options that another command has lent keep theirs.
    """
    for option in command.params:
        if isinstance(option, click.Option) and not option.envvar:
            option.envvar = [f"{_PREFIX}{name}_{each}".upper() for each in _names(option)]


def require_known_variables(commands: Mapping[str, click.Command]) -> None:
    """Refuse variables of the environment that look like a setting and are none.

    Parameters
    ----------
    commands : all, by name, with their variables named

    Raises
    ------
    OptionError
        If there is one, with the nearest that exists.
    """
    given = sorted(name for name in os.environ if name.startswith(_PREFIX) and name not in _OTHERS)
    if not given:
        return
    preferred, old = [], set()
    for command in commands.values():
        for option in command.params:
            names = list(option.envvar or ()) if isinstance(option, click.Option) else []
            preferred += names[:1]
            old |= set(names[1:])
    for name in given:
        if name not in preferred and name not in old:
            raise OptionError(
                f"The environment has {name}, which is no setting. "
                f"{_nearest(name, preferred, 'UNET_DASK_SEGMENT_WORKERS')}"
            )


def read_settings(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """Take the settings of a TOML file as defaults, below the environment and the flags."""
    if value is None:
        return None
    try:
        settings = tomllib.loads(local_path(value).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        kind = "is not TOML" if isinstance(error, tomllib.TOMLDecodeError) else "cannot be read"
        raise OptionError(f"The configuration {value} {kind}: {error}.") from error
    others = [each for each in ctx.command.params if each is not param]
    names = {name: each.name or "" for each in others for name in reversed(_names(each))}
    preferred = sorted(map(plain_name, others))
    ctx.default_map = {
        names[_known(key, setting, names, preferred, value)]: _text(setting)
        for key, setting in settings.items()
    }
    return value


def _known(key: str, setting: Any, names: Collection[str], preferred: list[str], path: str) -> str:
    """Return a key of a file as a name of a setting; of others, the nearest of the preferred names is proposed."""
    name = key.replace("-", "_")
    if isinstance(setting, dict):
        raise OptionError(
            f"The configuration {path} has a table [{key}]; settings stand without one, such as workers = 4."
        )
    if name not in names:
        raise OptionError(
            f"The configuration {path} has the unknown setting {key!r}. {_nearest(name, preferred, 'workers')}"
        )
    return name


def _nearest(name: str, known: list[str], example: str) -> str:
    return nearest(name, known, f"Settings are named as the options are, such as {example}.")


def _text(setting: Any) -> str:  # any TOML value
    """Return a setting as a flag would give it, so that click refuses 1.5 workers instead of rounding them."""
    return ",".join(map(str, setting)) if isinstance(setting, list) else str(setting)
