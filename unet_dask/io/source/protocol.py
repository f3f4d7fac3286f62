"""What a format of images has to offer, so that every command can read it.

A format is a module with the functions of :class:`Format`. It says whether a place is its own, finds the array that is
meant there, and opens it in any process. Everything else is the same for all formats and lies elsewhere: windows and
channels in `window`, planning's view in `volume`, masks, statistics, the look at what has changed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NoReturn, Protocol

from unet_dask.io import remote

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from unet_dask.io.source.pieces import Decoding
    from unet_dask.io.source.stamps import Look


@dataclass(frozen=True, slots=True, repr=False)
class SourceSpec:
    """All that a worker needs to read a source: small, picklable, hashable.

    Attributes
    ----------
    url : path or fsspec URL of the root of the store, or of the file; secrets in it are not shown by `repr`
    key : path of the array in it, "" if the root is the array
    axes : of the stored array, in its order, such as "yxc"
    channels : the channels to read, in this order; None for all
    zarr_format : 2 or 3; 0 of other formats
    metadata : SHA-256 of what describes the array, so that a changed array is a different spec
    written : time of change (ns) of that, by which an array of the same description is known; 0 for any
    format : name of the format, see `formats`
    """

    url: str
    key: str
    axes: str
    channels: tuple[int, ...] | None
    zarr_format: int
    metadata: str
    written: int = 0
    format: str = "zarr"

    def __repr__(self) -> str:
        return (
            f"SourceSpec(url={remote.redact_url(self.url)!r}, key={self.key!r}, axes={self.axes!r}, "
            f"channels={self.channels!r}, zarr_format={self.zarr_format!r}, metadata={self.metadata[:12]!r})"
        )


@dataclass(frozen=True, slots=True)
class Wanted:
    """What was said of the image to open.

    Attributes
    ----------
    key : path of a group or array below the place, of a series or level in a file
    axes : of the stored array, one letter per dimension; overrides what the place says
    level : of a pyramid; None for the finest, or the one that `key` names
    dims, network_channels : of the network, hints for arrays that do not name their axes
    """

    key: str | None = None
    axes: str | None = None
    level: int | None = None
    dims: int | None = None
    network_channels: int | None = None


class Stored(Protocol):
    """An opened array, in its own order of axes."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Stored shape."""

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """Type of the values, in any byte order."""

    @property
    def unit(self) -> tuple[int, ...]:
        """What lies in one file or segment, and is best read together: a shard, a chunk, a tile, a strip."""

    @property
    def decoding(self) -> Decoding:
        """What reading takes beside what is read."""

    @property
    def facts(self) -> Mapping[str, object]:
        """What to tell of how it is stored, as JSON, for `info`."""

    def look(self, selection: tuple[slice, ...]) -> Look | None:
        """Look at the files that hold a part, one slice per axis; None where there are no files."""

    def read(self, selection: tuple[slice, ...]) -> tuple[NDArray[np.generic], Look | None]:
        """Return a part of the values, and the files that it was read from.

        Raises
        ------
        ChangedError
            If these files changed meanwhile; to read them again may help.
        Exception
            Whatever a decoder raises; `refuse` makes our own error of it.
        """

    def refuse(self, window: str, error: BaseException) -> NoReturn:
        """Raise our own error for what went wrong in reading a window, which is told in words."""


@dataclass(frozen=True, slots=True)
class Found:
    """The array that is meant, and all that its format knows of it.

    Attributes
    ----------
    url, key, zarr_format, metadata, written : as in `SourceSpec`
    axes : one letter per stored axis
    origin : where the axes were learnt, for people
    stored : the array, opened
    spacing, translation : physical size of a pixel and position of the first one, per stored axis; None if unknown
    units : per stored axis
    name : of the image, for people
    level : of its pyramid, None if there is none
    channel_names : of the stored channels, () if nobody named them
    shown : the array as messages show it
    """

    url: str
    key: str
    zarr_format: int
    metadata: str
    written: int
    axes: str
    origin: str
    stored: Stored
    name: str
    shown: str
    spacing: Sequence[float] | None = None
    translation: Sequence[float] | None = None
    units: Sequence[str | None] | None = None
    level: int | None = None
    channel_names: tuple[str, ...] = field(default=())


class Format(Protocol):
    """What the module of a format defines.

    Attributes
    ----------
    SUFFIXES : of the names of its files or folders, the longest first; they are left out where a result is named
    """

    SUFFIXES: tuple[str, ...]

    def holds(self, path: Path) -> bool:
        """Tell whether a file or folder is of this format, by its first bytes or what lies in it."""

    def find(self, place: str, wanted: Wanted) -> Found:
        """Return the array that is meant by a place and what was said of it.

        Raises
        ------
        InputError
            If there is no such image, or not as described.
        """

    def opened(self, spec: SourceSpec, *, keep: bool) -> Stored:
        """Return the array of a spec, in any process.

        Parameters
        ----------
        spec : of the array
        keep : whether to keep what was read last

        Raises
        ------
        DataError
            If the array is gone, or another one is in its place.
        """

    def digest(self, spec: SourceSpec) -> str:
        """Return a digest of what the array holds, cheap enough to take before every run.

        Raises
        ------
        UnreachableError
            If it cannot be looked at.
        """

    def levels(self, spec: SourceSpec) -> list[dict[str, object]]:
        """Return path and shape of every level of the pyramid, the finest first, for `info`; [] if there is none."""
