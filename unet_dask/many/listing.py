"""Which images a command means: what it names, what matches a pattern, and what lies in plates and folders."""

from __future__ import annotations

import glob
import posixpath
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from unet_dask.errors import InputError, OptionError, SinkError
from unet_dask.io import remote
from unet_dask.io.sink import place as places
from unet_dask.io.source import collection, formats

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from unet_dask.io.source.collection import Member


@dataclass(frozen=True, slots=True)
class Image:
    """One of the images of a run.

    Attributes
    ----------
    name : in reports, and of its result, with slashes
    source : path or URL of its store or file
    key : of the image in there, None if that is not said
    """

    name: str
    source: str
    key: str | None = None


@dataclass(frozen=True, slots=True)
class _Named:
    """An image that something in a command stands for.

    Attributes
    ----------
    source, key : as in :class:`Image`
    stem : of the file or store, "" if that goes without saying
    within : name in a plate, a folder or a file with several series; "" for an image by itself
    """

    source: str
    key: str | None
    stem: str
    within: str = ""

    def name(self, *, root: str | None, whole: bool) -> str:
        """Return its name: below the folder of all images if that is given, with the suffix of its file if asked."""
        file = posixpath.basename(_plain(self.source)) if whole else self.stem
        above = "" if root is None else posixpath.relpath(posixpath.dirname(_plain(self.source)), root)
        return posixpath.join("" if above == "." else above, *filter(None, (file, self.within)))


def is_pattern(text: str) -> bool:
    """Tell whether a text is a pattern of names, and no name itself.

    In a URL a question mark begins a query, and brackets may hold an address, so that only ``*`` makes it a pattern.

    Examples
    --------
    >>> is_pattern("fields/a?.tif"), is_pattern("https://host/a.zarr?sig=x*y"), is_pattern("s3://bucket/*.zarr")
    (True, False, True)
    """
    if remote.is_local(text):
        return glob.has_magic(text) and not remote.local_path(text).exists()
    return "*" in text.partition("?")[0]


def images_of(
    sources: Sequence[str], *, key: str | None = None, series: int | None = None, each: bool = False
) -> list[Image] | None:
    """Return the images that a command means, each once; None if that is one image and nothing that could hold more.

    Parameters
    ----------
    sources : paths, URLs or patterns such as ``fields/*.tif``
    key : path of a group below each
    series : number of an image of each converted file; None for all
    each : whether pictures of a folder are images by themselves, even if they could be planes of a stack

    Raises
    ------
    InputError
        If a pattern matches nothing, a document is damaged, or there is no such series.
    """
    many = len(sources) > 1 or is_pattern(sources[0])
    found: list[_Named] = []
    for text, place in _matched(sources):
        members = None if series is not None else collection.members(place, key, each=each)
        if series is not None:
            key = collection.series_key(place, series)
        if members is None:
            found.append(_Named(place, key, _stem(place, key)))
        else:
            many = True
            found += _all_of(members, place, alone=len(sources) == 1 and not is_pattern(text))
    return _named(found) if many else None


def only(source: str, key: str | None) -> Image:
    """Return an image that is by itself."""
    return Image(_stem(source, key), source, key)


def _matched(sources: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield each source as it was written, with each place that it means."""
    for text in sources:
        if not is_pattern(text):
            yield text, text
            continue
        matches = [place for place in _matches(text) if not _is_result(place)]
        if not matches:
            raise InputError(
                f"Nothing matches {remote.redact_url(text)!r}. Check the pattern, and where you are."
            )
        yield from ((text, place) for place in matches)


def _matches(pattern: str) -> list[str]:
    """Return what matches a pattern, sorted, without what is hidden."""
    if remote.is_local(pattern):
        return sorted(glob.glob(str(remote.local_path(pattern)), recursive=True))  # noqa: PTH207 # of any folder
    files, path = remote.Location(pattern).files()
    return [str(files.unstrip_protocol(place)) for place in sorted(map(str, files.glob(path)))]


def _is_result(place: str) -> bool:
    """Tell whether a place holds a result of ours: a pattern or a folder that holds one does not mean it."""
    try:
        return formats.reads_zarr(place) and places.result_manifest(place) is not None
    except SinkError:
        return True


def _all_of(members: Sequence[Member], place: str, *, alone: bool) -> Iterator[_Named]:
    """Yield the images of a plate or a folder; of one that is alone, the name goes without saying."""
    for member in members:
        if member.key:
            yield _Named(member.place, member.key, "" if alone else _stem(place, None), member.name)
        elif not _is_result(member.place):
            yield _Named(member.place, None, _stem(member.place, None))


def _stem(place: str, key: str | None) -> str:
    """Return the name of a file or store without its suffix, and what is meant in it."""
    name = formats.stem(posixpath.basename(_plain(place)))
    return ".".join((name, *key.strip("/").split("/"))) if key else name


def _plain(place: str) -> str:
    """Return a path or URL with slashes, as names are made of it: absolute, without secrets."""
    if remote.is_local(place):
        return Path(remote.local_path(place)).absolute().as_posix()
    return remote.redact_url(place).rstrip("/")


def _named(found: Sequence[_Named]) -> list[Image]:
    """Return images with names that differ, on file systems that ignore case too: as short as they can be.

    Raises
    ------
    OptionError
        If that cannot be.
    """
    once = list({(remote.source_aliases(each.source), each.key or ""): each for each in found}.values())
    root = _common([posixpath.dirname(_plain(each.source)) for each in once])
    for below, whole in ((None, False), (root, False), (root, True)):
        names = [each.name(root=below, whole=whole) for each in once]
        if len({name.casefold() for name in names}) == len(once) and not any(
            ".." in name.split("/") for name in names
        ):
            return [Image(name, each.source, each.key) for name, each in zip(names, once, strict=True)]
    raise OptionError(
        "Some of these images have the same name, or names that differ in case alone, so their results would lie in "
        "one place. Segment them apart, each with its own -o."
    )


def _common(folders: Sequence[str]) -> str:
    """Return the folder that all others lie in; the first part of their addresses if they have none in common."""
    try:
        return posixpath.commonpath(folders)
    except ValueError:  # an address and a path
        return ""
