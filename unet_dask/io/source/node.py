"""The metadata documents of a Zarr hierarchy, versions 2 and 3, read with bounds and checked.

A store may come from anywhere. What matters for choosing an array is checked here, before Zarr sees the
store: that documents are JSON objects of sane size, that an array is numeric, that one chunk fits into
memory, and that no codec can run code.
"""

from __future__ import annotations

import json
import math
import posixpath
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from unet_dask.errors import InputError
from unet_dask.io.remote import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from unet_dask.io.remote import Location

#: Bytes of one decoded chunk (reliability: bombs).
CHUNK_LIMIT = 2 * 1024**3

#: Values of an array, and its values along one axis; more than the disks of the world hold overflow what counts them.
_MOST_VALUES, _MOST_ALONG = 1 << 56, 1 << 31
#: Axes of an array, of which an image has five, and some may have a size of 1.
_MOST_AXES = 16

_V3_TYPES = re.compile(r"bool|u?int(8|16|32|64)|float(16|32|64)")
_V2_TYPES = re.compile(r"[<>|=]?(b1|[iu][1248]|f[248])")
_V2_NAMES = {"b": "bool", "i": "int", "u": "uint", "f": "float"}
#: How deep and how wide a group is searched for its arrays.
_SEARCH_DEPTH = 6
_SEARCH_NODES = 512

Json = dict[str, object]
NodeKind = Literal["array", "group"]


@dataclass(frozen=True, slots=True, repr=False)
class Node:
    """A group or an array, as its documents describe it.

    Attributes
    ----------
    location : root of the store
    key : path in the store, "" for the root
    kind : "array" or "group"
    zarr_format : 2 or 3
    document : bytes of the documents that describe it
    metadata : the parsed document
    attributes : the user's attributes
    """

    location: Location
    key: str
    kind: NodeKind
    zarr_format: Literal[2, 3]
    document: bytes
    metadata: Json
    attributes: Json

    @property
    def is_array(self) -> bool:
        """Whether it holds values, and no other nodes."""
        return self.kind == "array"

    @property
    def is_image(self) -> bool:
        """Whether it is the group of an OME-Zarr image."""
        return not self.is_array and "multiscales" in self.ome

    @property
    def shown(self) -> str:
        """The node as messages show it."""
        return self.location.describe(self.key)

    @property
    def ome(self) -> Json:
        """The attributes of OME-Zarr: below "ome" since 0.5, at the top before."""
        inner = self.attributes.get("ome")
        return inner if isinstance(inner, dict) else self.attributes

    @property
    def shape(self) -> tuple[int, ...]:
        """Stored shape.

        Raises
        ------
        InputError
            If it is no list of whole numbers.
        """
        return _sizes(self, self.metadata.get("shape"), "shape", least=0)

    @property
    def dtype_name(self) -> str:
        """Name of the data type, for messages; foreign types as the document has them."""
        name = self.metadata.get("dtype" if self.zarr_format == 2 else "data_type")
        if self.zarr_format == 2 and isinstance(name, str) and _V2_TYPES.fullmatch(name):
            code = name.lstrip("<>|=")
            return "bool" if code == "b1" else f"{_V2_NAMES[code[0]]}{8 * int(code[1])}"
        if isinstance(name, str):
            return printable(name)
        kind = name.get("name") if isinstance(name, dict) else None
        return printable(kind) if kind else "structured"

    @property
    def dimension_names(self) -> list[Any] | None:
        """Names of the dimensions: Zarr v3's own, else those of xarray."""
        names = self.metadata.get("dimension_names") or self.attributes.get("_ARRAY_DIMENSIONS")
        return names if isinstance(names, list) and len(names) == len(self.shape) else None


def read_node(location: Location, key: str) -> Node | None:
    """Return the node at `key`, or None if neither version of Zarr has one there.

    Raises
    ------
    InputError
        If a document is damaged.
    """
    current = _document(location, key, "zarr.json")
    if current is not None:
        return _node_v3(location, key, *current)
    kinds: tuple[tuple[str, NodeKind], ...] = ((".zarray", "array"), (".zgroup", "group"))
    for name, kind in kinds:
        old = _document(location, key, name)
        if old is not None:
            raw, metadata = old
            extra = _document(location, key, ".zattrs") or (b"", {})
            return Node(
                location=location,
                key=key,
                kind=kind,
                zarr_format=2,
                document=raw + b"\n" + extra[0],
                metadata=metadata,
                attributes=extra[1],
            )
    return None


def _node_v3(location: Location, key: str, raw: bytes, metadata: Json) -> Node:
    kind, attributes = metadata.get("node_type"), metadata.get("attributes", {})
    if kind not in ("array", "group") or not isinstance(attributes, dict):
        raise InputError(
            f"{location.describe(posixpath.join(key, 'zarr.json'))} is damaged: it describes neither an "
            f"array nor a group. Restore it from a copy, or write the store again."
        )
    return Node(location, key, kind, 3, raw, metadata, attributes)


def _document(location: Location, key: str, name: str) -> tuple[bytes, Json] | None:
    """Return a JSON object, as bytes and parsed, or None if it is not there."""
    path = posixpath.join(key, name)
    raw = location.read(path)
    if raw is None:
        return None
    try:
        parsed = json.loads(raw)
    except (ValueError, RecursionError) as error:
        start = " ".join(raw[:24].decode("utf-8", "replace").split())
        raise InputError(
            f"{location.describe(path)} is damaged: it holds no JSON but begins with {start!r}. Restore it "
            f"from a copy, or write the store again."
        ) from error
    if not isinstance(parsed, dict):
        raise InputError(
            f"{location.describe(path)} is damaged: it holds JSON that is no object. Restore it from a copy, "
            f"or write the store again."
        )
    return raw, parsed


def _sizes(node: Node, value: object, what: str, *, least: int) -> tuple[int, ...]:
    if isinstance(value, list) and all(type(size) is int and least <= size < 1 << 63 for size in value):
        return tuple(value)
    raise InputError(
        f"The metadata of {node.shown} is damaged: its {what} is not a list of whole numbers. Restore it "
        f"from a copy, or write the store again."
    )


def descend(root: Node) -> Iterator[Node]:
    """Yield the nodes below a group, breadth first, in order of their paths, none below an array.

    An OME-Zarr image is yielded as one group; its levels and labels are not. Where the service cannot
    list, the children come from consolidated metadata if there are any.
    """
    wave, seen = [root], 0
    for _ in range(_SEARCH_DEPTH):
        below: list[Node] = []
        for group in wave:
            for name in _child_names(group):
                child = read_node(root.location, posixpath.join(group.key, name))
                seen += 1
                if child is not None:
                    yield child
                    below.append(child)
                if seen >= _SEARCH_NODES:
                    return
        wave = [node for node in below if not (node.is_array or node.is_image)]


def _child_names(group: Node) -> list[str]:
    listed = group.location.names(group.key)
    names = [name for name in listed if not name.startswith((".", "__")) and name != "zarr.json"]
    return names or _consolidated(group)


def _consolidated(group: Node) -> list[str]:
    if group.zarr_format == 3:
        inline = group.metadata.get("consolidated_metadata")
        found = inline.get("metadata") if isinstance(inline, dict) else None
    else:
        document = _document(group.location, group.key, ".zmetadata")
        found = document[1].get("metadata") if document else None
    keys = found if isinstance(found, dict) else {}
    first = {str(key).split("/")[0] for key in keys}
    return sorted(name for name in first if name and not name.startswith("."))


def check_array(node: Node) -> None:
    """Refuse an array that no network can be run on, or that is not safe to open.

    Raises
    ------
    InputError
        If it is not numeric, has no dimension or more than can be, or a codec could run code.
    """
    pattern = _V2_TYPES if node.zarr_format == 2 else _V3_TYPES
    name = node.metadata.get("dtype" if node.zarr_format == 2 else "data_type")
    if not (isinstance(name, str) and pattern.fullmatch(name)):
        raise InputError(
            f"The array {node.shown} holds {node.dtype_name} values, which are no image: use bool, integers "
            f"of 8 to 64 bits or floats of 16 to 64 bits. Convert it, or choose another array with --key."
        )
    if any("pickle" in codec for codec in _codecs(node.metadata)):
        raise InputError(
            f"The array {node.shown} is stored with the codec 'pickle', which can run code on reading. Write "
            f"it again with zstd, if you trust where it came from."
        )
    shape = node.shape
    require_sizes(shape, f"The array {node.shown}")
    if len(shape) < 2:
        raise InputError(
            f"The array {node.shown} has the shape {node.shape}, and an image has both y and x. Choose "
            f"another array with --key."
        )


def require_sizes(shape: tuple[int, ...], shown: str) -> None:
    """Refuse a shape that no disk holds.

    Raises
    ------
    InputError
        Naming the array, as `shown`.
    """
    if len(shape) > _MOST_AXES or max(shape, default=0) > _MOST_ALONG or math.prod(shape) > _MOST_VALUES:
        raise InputError(
            f"{shown} claims the shape {printable(shape)}, which no disk holds: its metadata is "
            f"damaged or forged. Restore it from a copy, or write the store again."
        )


def _codecs(metadata: object) -> Iterator[str]:
    """Yield every codec name anywhere in an array's document, nested ones included."""
    pending = [metadata]
    while pending:
        part = pending.pop()
        if isinstance(part, dict):
            yield from (part[key] for key in ("id", "name") if isinstance(part.get(key), str))
            pending.extend(value for key, value in part.items() if key != "attributes")
        elif isinstance(part, list):
            pending.extend(part)
