"""The settings of a run, and all that anybody has to know of them: each field declares it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from unet_dask.choices import AUTO, Averaging, BackendName, Device, Precision, words
from unet_dask.errors import OptionError
from unet_dask.part import parse_part
from unet_dask.setting import by_present_names, nearest, setting, settings_of
from unet_dask.texts import (
    FIT,
    Extent,
    parse_bytes,
    parse_channels,
    parse_extent,
    parse_level,
    parse_products,
    parse_sizes,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Voxels along one axis of a tile, a region or a chunk.
_MOST_ALONG = (1 << 31) - 1


def _products() -> dict[str, str]:
    from unet_dask.products import PRODUCTS  # the command line has not loaded arrays yet

    return {name: (kind.__doc__ or "").partition("\n")[0] for name, kind in PRODUCTS.items()}


def _are_products(_: str, value: tuple[str, ...]) -> None:
    known = _products()
    unknown = [each for each in value if each not in known]
    if unknown or not value:
        raise OptionError(
            f"There is no product {', '.join(map(repr, unknown)) or 'named'}. Use one or more of: {', '.join(known)}."
        )


def _one_of(what: str, *allowed: str) -> dict[str, Any]:
    """Return what a setting declares that is one of a few words."""

    def check(_: str, value: str) -> None:
        if value not in allowed:
            raise OptionError(f"There is no {what} {value!r}. Use one of: {', '.join(allowed)}.")

    return {"choices": allowed, "check": check}


def _at_least_one(name: str, value: int) -> None:
    if value < 1:
        raise OptionError(f"A run needs at least one of its {name}, not {value}.")


def _not_negative(name: str, value: float) -> None:
    if not 0 <= value < 1 << 15:
        raise OptionError(f"--{name.replace('_', '-')} goes from 0 to 32767 pixels, not {value}.")


def _is_share(name: str, value: float) -> None:
    if not 0 < value <= 1:
        raise OptionError(f"--{name} is above 0 and at most 1, not {value}.")


def _is_extent(name: str, value: int | Extent) -> None:
    if not isinstance(value, Extent) and not 0 <= value <= _MOST_ALONG:
        raise OptionError(f"--{name.replace('_', '-')} goes from 0 to {_MOST_ALONG} pixels, not {value}.")


def _are_sizes(name: str, value: tuple[int, ...]) -> None:
    """Raise unless sizes are such that their products can be computed with."""
    if any(not 1 <= size <= _MOST_ALONG for size in value):
        raise OptionError(
            f"Sizes of --{name} go from 1 to {_MOST_ALONG}, and one of {', '.join(map(str, value))} does not. Write "
            "one per axis, like 128,512,512."
        )


def _is_part(_: str, value: str) -> None:
    parse_part(value)


_SIZES: dict[str, Any] = {"parse": parse_sizes, "check": _are_sizes}


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentConfig:
    """Everything that `segment` can be told beside source, sink and model.

    What a field declares is all that others know of it, see :class:`unet_dask.setting.Setting`; None leaves a choice
    to the run.
    """

    workers: int | None = setting(
        None,
        values="",
        parse=int,
        check=_at_least_one,
        short="-j",
        help="Local worker processes [one per GPU, else per 2 cores].",
    )
    threads: int | None = setting(
        None,
        values="",
        parse=int,
        check=_at_least_one,
        help="Threads of each worker's network [the cores, shared out].",
    )
    scheduler: str | None = setting(
        None, values="", metavar="ADDRESS", help="Run on a Dask cluster that is already running."
    )
    scheduler_file: str | None = setting(
        None, values="", path=True, metavar="FILE", help="The same, from the scheduler's file."
    )
    cluster: str | None = setting(
        None,
        values="",
        help="Run on workers that are jobs, as your jobqueue.yaml describes them.",
        **_one_of("kind of cluster", "slurm"),
    )
    device: str = setting("auto", values="plan.device", choices=(AUTO, *words(Device)), help="[auto]")
    precision: str = setting(
        "auto",
        values="plan.precision",
        resumed=True,
        choices=(AUTO, *words(Precision)),
        help="[auto]",
    )
    backend: str = setting(
        "torch",
        values="setting.backend",
        required=True,
        choices=words(BackendName),
        help="What runs the network.",
    )
    products: tuple[str, ...] = setting(
        ("classes",),
        values="plan.products",
        parse=parse_products,
        check=_are_products,
        words=_products,
        help="One or more of {words} [classes].",
    )
    #: "uint8" is for probabilities scaled to 0-254. A result says it by the types of its products.
    probability_dtype: str = setting(
        "float32",
        values="plan.products",
        restored="",
        help="uint8 is scaled to 0-254.",
        **_one_of("probability type", "float32", "uint8"),
    )
    objects: str = setting(
        "auto",
        values="setting.objects",
        choices=("auto", "components", "cells", "neurites"),
        help="How objects are made [as the model says].",
    )
    threshold: float | None = setting(
        None,
        values="setting.threshold",
        parse=float,
        check=_is_share,
        metavar="0.6",
        help="Mean affinity from which on basins are one neurite [as the model says].",
    )
    fill_holes: str | None = setting(
        None,
        values="setting.fill_holes",
        choices=("yes", "no"),
        help="Whether holes become part of the object around them [as the model says].",
    )
    #: Of an area or a volume, a run takes the pixels of its source, and its fingerprint these.
    min_size: int | Extent | None = setting(  # noqa: RUF009 # as all fields
        None,
        values="setting.min_size",
        parse=parse_extent,
        check=_is_extent,
        metavar="PIXELS|30um2",
        help="Smallest object that is kept [as the model says].",
    )
    split: float | None = setting(
        None,
        values="setting.split",
        parse=float,
        check=_not_negative,
        metavar="PIXELS",
        help="Split objects at waists that are so much thinner than what lies on both sides [as the model says].",
    )
    connect: str | None = setting(
        None,
        values="setting.connect",
        choices=("z", "none"),
        help="Whether objects of a 2-D network go on from plane to plane [as the model says].",
    )
    numbers: str = setting(
        "places",
        values="setting.numbers",
        choices=("places", "dense"),
        help="Number of an object: the place of its first pixel, or counted from 1 [places].",
    )
    measure: bool = setting(
        False,
        values="setting.measure",
        resumed=True,
        help="Keep a table of the objects in the result, made while the run is.",
    )
    key: str | None = setting(None, values="source.key", short="-k", metavar="PATH", help="Array in a group.")
    axes: str | None = setting(
        None, values="source.axes", help="Axes of the source, such as zyx or yxc [from its metadata]."
    )
    #: A result says it by the key of its array.
    level: int | str | None = setting(
        None,
        values="source.key",
        restored="",
        parse=parse_level,
        words=lambda: {FIT: "whose pixels are nearest in size to those that the model learnt"},
        metavar="N|fit",
        help="Level of a multiscale image [0]; fit takes the one whose pixels are as large as the model's.",
    )
    channels: tuple[int | str, ...] | None = setting(
        None,
        values="source.channels",
        parse=parse_channels,
        help="Channels to use, by number or name, such as 0,2 or DAPI,GFP [all].",
    )
    #: "z0:z1,y0:y1,x0:x1", or "t 0:1, y 0:64" with named axes; either end may be left out.
    roi: str | None = setting(
        None,
        values="plan.roi",
        metavar="z0:z1,y0:y1,x0:x1",
        help="Part of the volume [all]; of some axes: 't 0:1, y 0:64'.",
    )
    #: Path of a Zarr array of what to segment, at any resolution; "auto" finds what is not empty on a coarse level.
    mask: str | None = setting(
        None,
        values="mask.url",
        path=True,
        words=lambda: {"auto": "what is not empty"},
        metavar="PATH|auto",
        help="What to segment; the rest is background [everything].",
    )
    tta: str = setting(
        "none",
        values="setting.tta",
        required=True,
        help="Average over symmetries of the image [none].",
        **_one_of("test-time averaging", *words(Averaging)),
    )
    nan: str = setting(
        "stop",
        values="setting.nan",
        required=True,
        mendable=True,
        help="What to do with NaN and infinity [stop].",
        **_one_of("rule for NaN", "stop", "zero"),
    )
    #: Bytes that one worker may use.
    memory: int | None = setting(
        None,
        values="",
        restored="memory",
        resumed=True,
        parse=parse_bytes,
        metavar="8GiB",
        help="Memory one worker may use [up to 4GiB; with a GPU 32].",
    )
    #: Voxels per axis along which the network looks, like the region; chunks have one per spatial axis.
    tile: tuple[int, ...] | None = setting(
        None,
        values="plan.tile",
        metavar="512,512",
        help="What a tile contributes [chosen by the plan].",
        **_SIZES,
    )
    region: tuple[int, ...] | None = setting(
        None,
        values="plan.region",
        metavar="2048,2048",
        help="What a task computes [chosen by the plan].",
        **_SIZES,
    )
    chunks: tuple[int, ...] | None = setting(
        None,
        values="plan.chunks",
        metavar="512,512",
        help="Chunks of the result [512; in 3-D 128].",
        **_SIZES,
    )
    #: The source, or the rule for NaN, was changed where regions had failed, and nowhere else; what was computed from
    #: what has changed is done again.
    source_fixed: bool = setting(
        False,
        values="",
        formerly=("mended",),
        help="With --resume: the source was repaired where regions failed.",
    )
    part: str | None = setting(
        None,
        values="",
        check=_is_part,
        metavar="I/N",
        help="Be one of N drivers that share the result, such as 2/8.",
    )

    def __post_init__(self) -> None:
        for each in settings_of(self):
            value = getattr(self, each.name)
            if each.check is not None and value is not None:
                each.check(each.name, value)
        if len(list(filter(None, (self.scheduler, self.scheduler_file, self.cluster)))) > 1:
            raise OptionError("A cluster is named by one of --scheduler, --scheduler-file and --cluster.")

    @property
    def elsewhere(self) -> bool:
        """Whether the run is on a cluster of others, and not on workers of this machine."""
        return bool(self.scheduler or self.scheduler_file or self.cluster)


def configured(config: SegmentConfig | None, settings: Mapping[str, Any]) -> SegmentConfig:
    """Return a configuration with settings from a notebook over it, where texts are read as on the command line."""
    known = {each.name: each for each in settings_of(config or SegmentConfig)}
    former = {before: each.name for each in known.values() for before in each.formerly}
    given = by_present_names({name: value for name, value in settings.items() if value is not None}, former)
    unknown = sorted(set(given) - set(known))
    if unknown:
        hint = nearest(unknown[0], known, f"There are: {', '.join(known)}.")
        raise OptionError(f"There is no setting {', '.join(unknown)}. {hint}")
    for name, value in given.items():
        if isinstance(value, list):
            given[name] = tuple(value)
        elif isinstance(value, str) and known[name].parse not in (int, float):
            given[name] = known[name].parse(value)
    return replace(config or SegmentConfig(), **given)


def format_bytes(number: float) -> str:
    """Return bytes for people, in binary units.

    Examples
    --------
    >>> format_bytes(3 * 2**30), format_bytes(512)
    ('3.0 GiB', '512 B')
    """
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(number) < 1024:
            return f"{number:.0f} B" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} TiB"
