"""What a field of a configuration says of itself, so that nobody else has to be taught about it.

A new option is one field. What it declares is asked by whoever needs it: the command line makes an option of it, the
fingerprint of a run takes its value, a report shows it, and a result that is opened again gives it back.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field, fields, replace
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from unet_dask.errors import OptionError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Setting:
    """What a field declares.

    Attributes
    ----------
    values : field of the fingerprint that it decides, "" if the values of a result do not depend on it. One that
        begins with "setting." holds the value as it is; any other is derived by the source, the mask or the plan
    restored : name under which a result says it; None for that of `values`, "" if it does not say it
    required : whether every fingerprint has it. One that came later is there where it is not the default, so that
        results of before are gone on with
    resumed : whether a run that goes on takes it from the one that was begun, unless it is said anew
    mendable : whether it may be changed where regions have failed
    shown : whether a report shows it; secrets in addresses are taken out there
    parse : of a text
    choices : that the command line has
    check : called with name and value, unless that is None; raises `OptionError`
    help : on the command line, where ``{words}`` stands for `words`
    short, metavar : a second name of the option, and what stands for its value
    words : that a shell completes, each with what it means
    path : whether it is a path or an address
    formerly : names that it had before, which are still understood and not shown
    name, default : of the field
    """

    values: str
    restored: str | None = None
    required: bool = False
    resumed: bool = False
    mendable: bool = False
    shown: bool = True
    parse: Callable[[str], Any] = str
    choices: tuple[str, ...] = ()
    check: Callable[[str, Any], None] | None = None
    help: str = ""
    short: str = ""
    metavar: str | None = None
    words: Callable[[], Mapping[str, str]] = dict
    path: bool = False
    formerly: tuple[str, ...] = ()
    name: str = ""
    default: Any = None

    @property
    def own(self) -> bool:
        """Whether the fingerprint has the value as it is."""
        return self.values.startswith("setting.")

    @property
    def recorded(self) -> str:
        """Name under which a result says it, "" if it does not."""
        return self.values if self.restored is None else self.restored

    def read(self, text: str) -> Any:  # whatever the field holds
        """Return the value that a text in a fingerprint stands for.

        Raises
        ------
        ValueError
            If it stands for none; the message is what is wanted.
        """
        known = ("False", "True") if isinstance(self.default, bool) else self.choices
        if known and text not in known:
            raise ValueError(f"one of {', '.join(known)}")
        try:
            return text == "True" if isinstance(self.default, bool) else self.parse(text)
        except (ValueError, OptionError) as error:
            raise ValueError(f"a value of {self.name}") from error


def setting(
    default: T, values: str, **says: Any
) -> T:  # fields of `Setting`, looked at when the class is made
    """Return a field of a dataclass, with its default and what it declares."""
    made: T = field(default=default, metadata={"setting": Setting(values, **says)})
    return made


def settings_of(config: Any) -> tuple[Setting, ...]:  # a configuration, or its class
    """Return what every field of a configuration declares."""
    return _declared(config if isinstance(config, type) else type(config))


@cache
def _declared(kind: Any) -> tuple[Setting, ...]:  # the class of a configuration
    return tuple(
        replace(said.metadata["setting"], name=said.name, default=said.default) for said in fields(kind)
    )


def by_present_names(given: Mapping[str, T], former: Mapping[str, str]) -> dict[str, T]:
    """Return what was said of settings by the names that they have now.

    Parameters
    ----------
    given : values by names, of now or of before
    former : names of now by those of before

    Raises
    ------
    OptionError
        If one setting is said by both of its names.

    Examples
    --------
    >>> by_present_names({"settle": 0.5, "width": 16}, {"settle": "freeze_norm_after"})
    {'freeze_norm_after': 0.5, 'width': 16}
    """
    for before, now in former.items():
        if before in given and now in given:
            raise OptionError(f"{before} is what {now} was called before. Say it once, as {now}.")
    return {former.get(name, name): value for name, value in given.items()}


def as_text(value: object) -> str:
    """Return a value as the option of the command line takes it."""
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def identity(config: Any) -> dict[str, str]:  # a configuration
    """Return the fields of the fingerprint that hold values as they are."""
    return {
        said.values: as_text(value)
        for said in settings_of(config)
        if said.own and ((value := getattr(config, said.name)) != said.default or said.required)
    }


def read_identity(kind: type[T], fingerprint: Mapping[str, str]) -> T:
    """Return a configuration with the values that a fingerprint holds as they are; all else is the default."""
    own = [said for said in settings_of(kind) if said.own and said.values in fingerprint]
    return kind(**{said.name: said.read(fingerprint[said.values]) for said in own})


def gone_on_with(config: T, recorded: Mapping[str, Any]) -> T:
    """Return the configuration of a run that goes on, with what it takes from the one that was begun."""
    taken = [
        said for said in settings_of(config) if said.resumed and getattr(config, said.name) == said.default
    ]
    return replace(config, **{said.name: recorded[said.recorded] for said in taken})  # type: ignore[type-var] # a dataclass


def restored(kind: type[T], fingerprint: Mapping[str, str], recorded: Mapping[str, Any]) -> T:
    """Return the configuration that a result was made with, as far as it says.

    Parameters
    ----------
    kind : of configuration
    fingerprint : of the run
    recorded : what the result says otherwise, by the names that settings declare
    """
    derived = [said for said in settings_of(kind) if said.recorded and not said.own]
    known = {said.name: recorded[said.recorded] for said in derived}
    return replace(read_identity(kind, fingerprint), **known)  # type: ignore[type-var] # a dataclass


def for_people(config: Any) -> dict[str, str]:  # a configuration
    """Return the settings for people; those that were left to the plan are not named. May hold secrets of addresses."""
    values = {said.name: getattr(config, said.name) for said in settings_of(config) if said.shown}
    return {
        name: as_text(value) for name, value in values.items() if value is not None and value is not False
    }


def nearest(name: str, known: Collection[str], otherwise: str) -> str:
    """Return what somebody may have meant by a name that is not known: the nearest that is, or other advice.

    Examples
    --------
    >>> nearest("worker", ["workers", "threads"], "There are two.")
    'Did you mean workers?'
    """
    near = difflib.get_close_matches(name, known, n=1)
    return f"Did you mean {near[0]}?" if near else otherwise
