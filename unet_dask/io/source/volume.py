"""Reading a source: find the array in a store, know its axes, read regions of it in canonical order.

Opening happens once, at planning, and looks at everything: the metadata, the choice of the array, the
axes. What travels to workers is a `SourceSpec`, from which each process opens the array once. A source is
never written: every array is opened with ``mode="r"``.
"""

from __future__ import annotations

import itertools
import posixpath
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from unet_dask import axes as axes_
from unet_dask.errors import InputError
from unet_dask.io import remote
from unet_dask.io.source import formats
from unet_dask.io.source.pieces import WITHOUT, Decoding
from unet_dask.io.source.protocol import SourceSpec, Wanted
from unet_dask.io.source.window import read_window

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from unet_dask.io.source.protocol import Found

__all__ = ["Source", "SourceSpec", "levels", "open_source", "read_window"]


@dataclass(frozen=True, slots=True)
class Source:
    """An image that can be read region by region, in canonical axes.

    Attributes
    ----------
    spec : what a worker needs to read it
    axes : canonical, `c` always present
    shape : in `axes`, after the choice of channels
    dtype : in native byte order
    chunks : what is read as a whole: the stored chunk, in `axes`; of a sharded array, the shard
    spacing : physical size of a pixel per axis of space and time, 1.0 if unknown
    unit : of the spacing, None if unknown
    translation : physical position of the first pixel
    name : of the image, for people
    origin_of_axes : where the axes were learnt, for people
    level : of the pyramid, None if there is none
    decoding : what reading it takes beside what is read
    channel_names : of the channels that are read, () if nobody named them
    """

    spec: SourceSpec
    axes: str
    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]
    chunks: tuple[int, ...]
    spacing: dict[str, float]
    unit: dict[str, str | None]
    translation: dict[str, float]
    name: str
    origin_of_axes: str
    level: int | None
    decoding: Decoding = WITHOUT
    channel_names: tuple[str, ...] = ()

    @property
    def sizes(self) -> dict[str, int]:
        """The shape by axis."""
        return axes_.by_axis(self.axes, self.shape)

    def read(self, window: tuple[slice, ...]) -> NDArray[np.generic]:
        """Return the values of a window: canonical order, native byte order, contiguous.

        Parameters
        ----------
        window : one slice per axis of `axes`, inside `shape`, without a step

        Raises
        ------
        DataError
            If a chunk is damaged.
        UnreachableError
            If the store does not answer.
        """
        return read_window(self.spec, window)

    def identity(self) -> dict[str, str]:
        """Return what makes this source this source, for the fingerprint of a run.

        "source.content" covers, of a local store, the path, size and time of change (ns) of every file
        of the array, at most 200 000 of them, and the first 8 MiB of 16 evenly spread ones; of a remote
        store, the first 8 MiB of 4 chunks. A change that leaves all of these alone is not seen.

        Raises
        ------
        UnreachableError
            If the store does not answer.
        """
        spec = self.spec
        return {
            "source.url": remote.source_aliases(spec.url),
            "source.key": spec.key,
            "source.shape": ",".join(map(str, self.shape)),
            "source.dtype": self.dtype.name,
            "source.axes": spec.axes,
            "source.channels": "all" if spec.channels is None else ",".join(map(str, spec.channels)),
            "source.metadata": spec.metadata,
            "source.content": formats.named(spec.format).digest(spec),
        }


def open_source(
    url: str | os.PathLike[str],
    *,
    key: str | None = None,
    axes: str | None = None,
    level: int | None = None,
    channels: Sequence[int | str] | None = None,
    dims: int | None = None,
    network_channels: int | None = None,
) -> Source:
    """Find the array that a path or URL means and learn all that planning needs of it.

    Parameters
    ----------
    url : of a store, or of a group or array in one
    key : path of a group or array below `url`
    axes : of the stored array, one letter per dimension; overrides what the store says
    level : of an OME-Zarr pyramid, the finest by default
    channels : numbers or names of the channels to read, all by default
    dims : spatial dimensions of the network, a hint for arrays that do not name their axes
    network_channels : channels of the network, a hint likewise

    Raises
    ------
    InputError
        If there is no such image, or not as described.
    """
    place = remote.location(url, "source")
    name = formats.format_of(place)
    found = formats.named(name).find(place, Wanted(key, axes, level, dims, network_channels))
    stored, picked = found.axes, _picked(found, channels)
    spec = SourceSpec(
        url=found.url,
        key=found.key,
        axes=stored,
        channels=picked,
        zarr_format=found.zarr_format,
        metadata=found.metadata,
        written=found.written,
        format=name,
    )
    order = axes_.canonical(stored)
    sizes = axes_.by_axis(stored, found.stored.shape)
    chunks = axes_.by_axis(stored, found.stored.unit)
    if picked is not None:
        sizes["c"] = len(picked)
        chunks["c"] = min(chunks.get("c", 1), len(picked))
    space = axes_.without_channel(order)
    return Source(
        spec=spec,
        axes=order,
        shape=tuple(sizes.get(axis, 1) for axis in order),
        dtype=np.dtype(found.stored.dtype).newbyteorder("="),
        chunks=tuple(max(chunks.get(axis, 1), 1) for axis in order),
        spacing={axis: found.spacing[stored.index(axis)] if found.spacing else 1.0 for axis in space},
        unit={axis: found.units[stored.index(axis)] if found.units else None for axis in space},
        translation={
            axis: found.translation[stored.index(axis)] if found.translation else 0.0 for axis in space
        },
        name=found.name,
        origin_of_axes=found.origin,
        level=found.level,
        decoding=found.stored.decoding,
        channel_names=_named(found, picked),
    )


def levels(source: Source) -> Iterator[Source]:
    """Yield a source and the coarser levels of its pyramid, the finest first."""
    yield source
    if source.level is None or not source.spec.key:
        return
    spec, group = source.spec, posixpath.dirname(source.spec.key)
    for level in itertools.count(source.level + 1):
        try:
            yield open_source(
                spec.url, key=group or None, axes=spec.axes, level=level, channels=spec.channels
            )
        except InputError:
            return


def _picked(found: Found, asked: Sequence[int | str] | None) -> tuple[int, ...] | None:
    if asked is None:
        return None
    channels = [each if isinstance(each, int) else _number(found, each) for each in asked]
    stored = found.axes
    count = axes_.by_axis(stored, found.stored.shape).get("c", 1)
    outside = [channel for channel in channels if not 0 <= channel < count]
    if outside or not channels:
        listed = ",".join(map(str, channels)) or "none"
        raise InputError(
            f"Channels {listed} were asked of {found.shown}, which has {count} ({stored}). Use --channels "
            f"with numbers from 0 to {count - 1}."
        )
    return tuple(int(channel) for channel in channels)


def _number(found: Found, name: str) -> int:
    """Return the number of a channel, by its name in any case."""
    names = [each.casefold() for each in found.channel_names]
    if found.channel_names.count(name) == 1:
        return found.channel_names.index(name)
    if names.count(name.casefold()) == 1:
        return names.index(name.casefold())
    known = ", ".join(remote.printable(each) for each in found.channel_names[:20])
    raise InputError(
        f"Channel {remote.printable(name)!r} was asked of {found.shown}, "
        + (
            f"whose channels are {known}. Choose by name or number."
            if known
            else "whose channels have no names. Choose them by number, such as --channels 0."
        )
    )


def _named(found: Found, picked: tuple[int, ...] | None) -> tuple[str, ...]:
    """Return the names of the channels that are read."""
    names = found.channel_names
    return names if picked is None or not names else tuple(names[channel] for channel in picked)
