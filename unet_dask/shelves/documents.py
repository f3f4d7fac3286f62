"""The metadata documents of groups in a folder, each changed in one step, and the copies that groups around keep.

Readers trust these copies, the consolidated metadata, without a look at the groups themselves.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from unet_dask.durable import write
from unet_dask.regular import open_regular

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    Document = dict[str, Any]

#: Documents of a node, by the version of Zarr.
_NAMES = {2: (".zgroup", ".zarray", ".zattrs"), 3: ("zarr.json",)}
#: Documents of any node.
DOCUMENTS = frozenset(name for names in _NAMES.values() for name in names)


def attributes_of(folder: Path, zarr_format: int) -> Document:
    """Return the attributes of a node; {} if it has none, or there is no node."""
    document = _read(folder / (".zattrs" if zarr_format == 2 else "zarr.json"))
    found = document if zarr_format == 2 else document.get("attributes", {})
    return found if isinstance(found, dict) else {}


def write_attributes(folder: Path, zarr_format: int, attributes: Document) -> None:
    """Write the attributes of a group, which is made if it is not there."""
    if zarr_format == 2:
        if not (folder / ".zgroup").exists():
            _write(folder / ".zgroup", {"zarr_format": 2})
        _write(folder / ".zattrs", attributes)
        return
    document = _read(folder / "zarr.json") or {"zarr_format": 3, "node_type": "group"}
    _write(folder / "zarr.json", document | {"attributes": attributes})


def renew_copies(groups: Iterable[Path], shelf: Path, zarr_format: int) -> None:
    """Renew what groups around a shelf keep of it, in those that keep anything.

    Parameters
    ----------
    groups : around it
    shelf : a group
    zarr_format : of all
    """
    for group in (shelf, *groups):
        place = group / (".zmetadata" if zarr_format == 2 else "zarr.json")
        document = _read(place)
        outer = document if zarr_format == 2 else document.get("consolidated_metadata")
        kept = outer.get("metadata") if isinstance(outer, dict) else None
        if not isinstance(outer, dict) or not isinstance(kept, dict):
            continue
        inner = shelf.relative_to(group).as_posix()
        before = "" if inner == "." else f"{inner}/"
        others = {key: value for key, value in kept.items() if not f"{key}/".startswith(before)}
        copies = _copies_v2(shelf, before) if zarr_format == 2 else _copies_v3(shelf, before)
        outer["metadata"] = others | dict(copies)
        _write(place, document)


def _nodes(shelf: Path) -> Iterator[Path]:
    """Yield a shelf, what it holds, and what that holds: below are chunks."""
    yield shelf
    for entry in sorted(shelf.iterdir()):
        if entry.is_dir():
            yield entry
            yield from (inner for inner in sorted(entry.iterdir()) if inner.is_dir())


def _copies_v2(shelf: Path, before: str) -> Iterator[tuple[str, Document]]:
    for node in _nodes(shelf):
        for name in _NAMES[2]:
            if (node / name).is_file():
                yield before + (node / name).relative_to(shelf).as_posix(), _read(node / name)


def _copies_v3(shelf: Path, before: str) -> Iterator[tuple[str, Document]]:
    for node in _nodes(shelf):
        document = _read(node / "zarr.json")
        key = (before + node.relative_to(shelf).as_posix()).removesuffix("/.").removesuffix("/")
        if not document or key == ".":  # a group keeps no copy of its own document
            continue
        if document.get("node_type") == "group":
            document["consolidated_metadata"] = {"kind": "inline", "must_understand": False, "metadata": {}}
        yield key, document


def _read(place: Path) -> Document:
    """Return a document, {} if there is none.

    Raises
    ------
    ValueError
        If it is not JSON.
    """
    try:
        with open_regular(place) as file:
            found = json.loads(file.read())
    except (FileNotFoundError, NotADirectoryError):
        return {}
    return found if isinstance(found, dict) else {}


def _write(place: Path, document: Document) -> None:
    mode = place.stat().st_mode & 0o777 if place.exists() else 0o666
    write(place, [json.dumps(document, indent=2).encode()], mode=mode)
