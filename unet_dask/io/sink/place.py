"""The place where a sink stands, or shall stand: free, ours, somebody else's, or in use.

All that could destroy something is decided here: what counts as ours, what is removed and in which order. Who may
write is decided by the locks. A sink is ours by a mark in the attributes of its root group, and complete as a store
once its manifest is there.
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any

import fsspec
from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from unet_dask.durable import sync_folder
from unet_dask.errors import SinkError, SinkLostError, UnetDaskError
from unet_dask.io.remote import redact_url
from unet_dask.io.sink.manifest_parser import LARGEST, parse, parse_json
from unet_dask.products import PRODUCTS
from unet_dask.regular import IrregularError, open_regular

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from zarr.core.common import JSON

    from unet_dask.io.sink.manifest import Manifest

RUN_FOLDER = "_unet_dask"
#: The manifest's place in the attributes of the run's node, and the mark of a sink of ours in the root's.
MARK = "unet_dask"
#: The manifest's checksum of itself.
_SEAL = "checksum"
#: Beginning of the names of files in the run's folder while drivers hold parts of the sink.
LOCK = "lock"
#: Beginning of the names of what stands in the run's folder for the sessions of drivers.
SESSION = "session-"
#: Where numbers of objects lie until those of all regions are known and joined.
NUMBERS = f"{RUN_FOLDER}/numbers"
#: Where objects lie in their final shape until all are known, if their last numbers depend on all of them.
SHAPED = f"{RUN_FOLDER}/shaped"
#: Arrays like that of the objects, which no result keeps.
ASIDE = (NUMBERS, SHAPED)
#: Beginning of the names of objects by which drivers and workers try whether a place can be written.
_PROBE = ".unet-dask-probe-"


def read_manifest(url: str) -> Manifest | None:
    """Return the manifest of a sink, or None where there is none (yet).

    Raises
    ------
    SinkError
        If something that is no sink of ours stands there, or the manifest is damaged or makes no sense.
    """
    if not exists(url):
        return None
    require_ours(url)
    fs, path = locate(url)
    if not fs.exists(f"{path}/{RUN_FOLDER}/zarr.json"):
        return None
    return bare_manifest(url)


def bare_manifest(url: str) -> Manifest:
    """Return the manifest of a sink whose root group need not be whole.

    Raises
    ------
    SinkError
        If there is none, or it is damaged or makes no sense.
    """
    fs, path = locate(url)
    manifest = _attribute(fs, f"{path}/{RUN_FOLDER}")
    if not is_whole(manifest):
        raise SinkError(
            f"The manifest of the run in {redact_url(url)} is damaged, so the run cannot be resumed. Restore "
            f"{RUN_FOLDER}/zarr.json from a copy, or start over with --overwrite."
        )
    return parse(manifest, url)


def result_manifest(url: str) -> Manifest | None:
    """Return the manifest of a result that was completely created, None for anything else.

    Raises
    ------
    SinkError
        If it is a result whose manifest is damaged or makes no sense.
    """
    try:
        if not exists(url):
            return None
        require_ours(url)
    except (OSError, ValueError, ImportError):
        return (
            None  # no result of ours, or no place that fsspec can reach: whoever opens it says what is wrong
        )
    return read_manifest(url)


def is_unfinished(url: str) -> bool:
    """Return whether a sink of ours was never completely created."""
    try:
        return exists(url) and read_manifest(url) is None
    except (OSError, ValueError, ImportError):
        return False  # as above


def sealed(manifest: Mapping[str, object]) -> dict[str, JSON]:
    """Return a manifest as plain JSON, with a checksum of itself: everything else that is read trusts it."""
    plain = json.loads(json.dumps({name: value for name, value in manifest.items() if name != _SEAL}))
    return {**plain, _SEAL: hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()}


def is_whole(manifest: object) -> bool:
    """Return whether something is a manifest, every word of it as it was written."""
    return (
        isinstance(manifest, dict)
        and {"fingerprint", "plan", "arrays", _SEAL} <= set(manifest)
        and sealed(manifest)[_SEAL] == manifest[_SEAL]
    )


@contextmanager
def refusals_told(url: str) -> Iterator[None]:
    """Tell in one line of whatever a file system refuses that nobody below has a better word for.

    Raises
    ------
    SinkLostError
        In place of an error of the system that has a number; errors of the network between processes have none.
    """
    try:
        yield
    except OSError as error:
        if isinstance(error, UnetDaskError) or error.errno is None:
            raise
        raise SinkLostError(
            f"The run that writes {redact_url(url)} was refused {error.filename or 'a file'}: {error.strerror}. What "
            "is done is kept; mend the cause and --resume."
        ) from error


def require_manifest(url: str) -> Manifest:
    """Return the manifest of a result that somebody wants to see.

    Raises
    ------
    SinkError
        If there is none.
    """
    if not exists(url):
        raise SinkError(f"There is nothing at {redact_url(url)}. Name a result of unet-dask segment.")
    manifest = read_manifest(url)
    if manifest is None:
        raise SinkError(
            f"{redact_url(url)} was never completely created, so there is nothing to draw. Run segment again."
        )
    return manifest


def exists(url: str) -> bool:
    """Return whether anything stands at the sink's place; an empty folder does not count."""
    fs, path = locate(url)
    fs.invalidate_cache()
    if not fs.exists(path):
        return False
    return not fs.isdir(path) or bool(names_in(fs, path))


def require_ours(url: str) -> None:
    """Raise unless what stands at the sink's place is a sink, complete or not.

    A run that was killed in its first or in its last moment leaves the run's folder and no manifest; what a power cut
    leaves of the root's metadata may have lost its bytes, or its name.

    Raises
    ------
    SinkError
        If something else stands there.
    """
    fs, path = locate(url)
    if _attribute(fs, path) is not None:
        return
    unfinished = RUN_FOLDER in names_in(fs, path) and not fs.exists(f"{path}/{RUN_FOLDER}/zarr.json")
    if unfinished and {*names_in(fs, path)} <= _ours() and _is_void(fs, f"{path}/zarr.json"):
        return
    raise SinkError(
        f"{redact_url(url)} exists and is not a result of unet-dask, so it is neither resumed nor overwritten. Name "
        "another place with -o, or remove it yourself."
    )


def _ours() -> set[str]:
    """Return the names of what lies in a sink."""
    return {"zarr.json", RUN_FOLDER, *PRODUCTS}


def require_replaceable(url: str) -> None:
    """Raise unless what stands at the sink's place is a sink and holds nothing else.

    Raises
    ------
    SinkError
        If it is not ours, or somebody put something of her own into it.
    """
    require_ours(url)
    foreign = sorted({*names_in(*locate(url))} - _ours())
    if foreign:
        raise SinkError(
            f"{redact_url(url)} holds {', '.join(foreign[:3])}, which unet-dask did not write, so it is not "
            "overwritten. Move that elsewhere, or name another place with -o."
        )


def remove(url: str) -> None:
    """Remove a sink of ours, complete or not; refuses anything else, and anything else in it.

    The manifest goes first and the mark of a sink last: killed in between, what is left is never resumed, and
    still known as ours.

    Raises
    ------
    SinkError
        If it is not ours, holds something that is not ours, or cannot be removed.
    """
    if not exists(url):
        return
    require_replaceable(url)
    fs, path = locate(url)
    try:
        inner = [
            name
            for name in names_in(fs, f"{path}/{RUN_FOLDER}")
            if name != "zarr.json" and not name.startswith(LOCK)
        ]
        doomed = (
            f"{RUN_FOLDER}/zarr.json",
            *(f"{RUN_FOLDER}/{name}" for name in inner),
            *PRODUCTS,
            "zarr.json",
        )
        for name in doomed:
            if fs.exists(f"{path}/{name}"):
                fs.rm(f"{path}/{name}", recursive=True)
                if name == doomed[0] and isinstance(fs, LocalFileSystem):  # first on the disk, too
                    sync_folder(f"{path}/{RUN_FOLDER}")
        if isinstance(fs, LocalFileSystem):  # what was half-written when a creation was killed
            for stray in (*Path(path).glob("zarr.*.partial"), *Path(path, RUN_FOLDER).glob("*.partial")):
                stray.unlink()
    except OSError as error:
        raise SinkError(
            f"The sink {redact_url(url)} cannot be removed: {error.strerror or error}."
        ) from error


def why_unwritable(url: str) -> str:
    """Return why a sink cannot be written from this process, "" if it can.

    Of a local sink that is not there yet, the nearest folder above it is tried.
    """
    fs, path = locate(url)
    if isinstance(fs, MemoryFileSystem):
        return "it would lie in the memory of one process, where others do not see it"
    # Processes of one number on several machines may try one place at the same time.
    trial = f"{path}{_PROBE}{os.getpid()}-{os.urandom(4).hex()}"
    try:
        if isinstance(fs, LocalFileSystem):
            folder = Path(path)
            while not folder.exists() and folder != folder.parent:
                folder = folder.parent
            with TemporaryFile(
                dir=folder
            ) as file:  # without a name, where that can be: a kill leaves nothing
                file.write(b"unet-dask")
        else:
            fs.pipe_file(trial, b"unet-dask")
            fs.rm_file(trial)
    except NotImplementedError:
        return "its file system cannot be written"
    except OSError as error:
        return str(error.strerror or error)
    return ""


def sweep(url: str) -> None:
    """Remove what killed writers left behind: partial files that no reader looks at.

    Nobody may be writing: a partial file may be one that is about to get its name.
    """
    fs, path = locate(url)
    if isinstance(fs, LocalFileSystem):
        for stray in Path(path).rglob("*.partial"):
            stray.unlink(missing_ok=True)


def locate(url: str) -> tuple[AbstractFileSystem, str]:
    """Return fsspec's file system and the path of a sink in it."""
    try:
        fs, path = fsspec.core.url_to_fs(url)
    except (ValueError, ImportError) as error:
        raise SinkError(
            f"The sink {redact_url(url)} cannot be opened: {error}. Use a path, or a URL such as s3://bucket/out.zarr."
        ) from error
    return fs, str(path).rstrip("/")


def is_local(fs: AbstractFileSystem) -> bool:
    """Return whether a file system is one of this machine."""
    return isinstance(fs, LocalFileSystem)


def names_in(fs: AbstractFileSystem, path: str) -> list[str]:
    """Return the names in a folder, without what is half-written and what others try the place with."""
    if not fs.isdir(path):
        return []
    names = [str(each).rstrip("/").rpartition("/")[2] for each in fs.ls(path, detail=False)]
    return [name for name in names if not name.endswith(".partial") and not name.startswith(_PROBE)]


def _is_void(fs: AbstractFileSystem, path: str) -> bool:
    """Return whether a file is not there, or has lost its bytes: none are left, or noughts."""
    try:
        return not _content(fs, path).strip(b"\0")
    except FileNotFoundError:
        return True
    except (OSError, IrregularError):
        return False


def _attribute(fs: AbstractFileSystem, path: str) -> Any:  # any JSON
    """Return our attribute of a Zarr node, None if there is none or the node is damaged."""
    try:
        return read_document(fs, path)["attributes"][MARK]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def read_document(fs: AbstractFileSystem, path: str) -> Any:  # any JSON
    """Return the document of a Zarr node in a sink, which may be a stranger's.

    Raises
    ------
    OSError
        If there is none.
    ValueError
        If it is not sound JSON.
    """
    return parse_json(_content(fs, f"{path}/zarr.json"))


def _content(fs: AbstractFileSystem, path: str) -> bytes:
    """Return the bytes of a document, which of a local store has to be a file; of one that is too large, a part."""
    if not is_local(fs):
        return bytes(fs.cat_file(path, start=0, end=LARGEST + 1))
    with open_regular(path) as file:
        return file.read(LARGEST + 1)
