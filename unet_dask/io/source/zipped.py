"""A Zarr store in a zip archive (.zarr.zip, .ozx): told by what is in it, and read where it lies through fsspec.

The store may be the archive, or a folder in it, as archivers make it. An archive is one file: any change of it may be
one of any chunk.
"""

from __future__ import annotations

import posixpath
import zipfile
from typing import TYPE_CHECKING

from unet_dask.errors import InputError
from unet_dask.io.remote import Location, one_line, printable, shorten
from unet_dask.io.source.node import CHUNK_LIMIT
from unet_dask.kinds import ZIP, kind_of

if TYPE_CHECKING:
    from pathlib import Path

#: Documents of Zarr.
_MARKERS = frozenset({"zarr.json", ".zgroup", ".zarray"})


def located(path: Path) -> tuple[Location, str] | None:
    """Return the store in the archive that a path is or leads into, and the path in the store; None if it is none.

    Raises
    ------
    InputError
        If the archive is damaged, or holds several stores.
    """
    archive = next((found for found in (path, *path.parents) if found.exists()), path)
    if not archive.is_file() or kind_of(archive) is not ZIP:
        return None
    roots = _roots(archive)
    if not roots:
        return None
    inner = path.relative_to(archive).as_posix()
    inner = "" if inner == "." else inner
    root = next((each for each in roots if f"{inner}/".startswith(f"{each}/")), None)
    if root is None and len(roots) == 1:
        return _store(archive, roots[0]), inner
    if root is None:
        shown = ", ".join(printable(each, 100) for each in roots[:8])
        raise InputError(
            f"{shorten(str(archive))} holds {len(roots)} Zarr stores: {shown}. Name one as {archive.name}/NAME."
        )
    return _store(archive, root), inner[len(root) :].strip("/")


def _store(archive: Path, root: str) -> Location:
    return Location(f"zip://{root}::{archive}")


def _roots(archive: Path) -> list[str]:
    """Return the folders of the topmost documents of Zarr in an archive, "" for the archive itself."""
    try:
        with zipfile.ZipFile(archive) as opened:
            entries = opened.infolist()
    except NotImplementedError as error:  # what zipfile says of an archive of a newer kind than it knows
        raise InputError(
            f"{shorten(str(archive))} is a zip archive of a kind that is not read: {one_line(error)}. Write it again "
            "without compression."
        ) from error
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise InputError(
            f"{shorten(str(archive))} is a zip archive that is damaged or was cut short: {one_line(error)}. Copy it "
            "again."
        ) from error
    for entry in entries:
        if entry.file_size > CHUNK_LIMIT and entry.compress_type != zipfile.ZIP_STORED:
            raise InputError(
                f"{shorten(str(archive))} holds {printable(entry.filename, 100)!r}, which unpacks to "
                f"{entry.file_size / 1024**3:.1f} GiB. Store what is in it without compression."
            )
    folders = {
        posixpath.dirname(entry.filename)
        for entry in entries
        if posixpath.basename(entry.filename) in _MARKERS
    }
    least = min((_depth(each) for each in folders), default=0)
    return sorted(each for each in folders if _depth(each) == least)


def _depth(folder: str) -> int:
    return len(folder.split("/")) if folder else 0
