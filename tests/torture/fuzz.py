"""Damage by structure: JSON documents whose values are exchanged for hostile ones, and bytes that are not the same."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from random import Random

#: What nobody expects in a document.
HOSTILE: tuple[Any, ...] = (
    None,
    True,
    False,
    -1,
    0,
    1,
    1 << 31,
    1 << 63,
    1 << 70,
    -0.5,
    1e308,
    float("nan"),
    float("inf"),
    "",
    " ",
    "0",
    "/",
    "..",
    "../../../etc/passwd",
    "/etc/passwd",
    "c:\\windows",
    "\0",
    "\n\r\x1b[31m",
    "\ud800",
    "é" * 300,
    "x" * 100_000,
    "pickle",
    "json2",
    "object",
    "|O",
    ">u2",
    "float8",
    "bytes",
    "zstd",
    "gzip",
    "blosc",
    "sharding_indexed",
    "transpose",
    "numcodecs.pickle",
    "space",
    "time",
    "micrometer",
    [],
    [[]],
    [0],
    [0, 0],
    [-1, -1],
    [1, 1],
    [1 << 40, 1 << 40],
    ["y", "x"],
    [None],
    {},
    {"name": "pickle"},
    {"id": "pickle"},
    {"name": "zstd", "configuration": {"level": 99, "checksum": "yes"}},
)


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every value in a document."""
    yield path
    if isinstance(value, dict):
        for key in value:
            yield from _places(value[key], (*path, key))
    elif isinstance(value, list):
        for number, each in enumerate(value):
            yield from _places(each, (*path, number))


def _nested(depth: int) -> Any:
    made: Any = 0
    for _ in range(depth):
        made = [made]
    return made


def mutated(document: Any, draw: Random) -> Any:  # noqa: C901 # a case for each change
    """Return a document with one to three changes."""
    changed = copy.deepcopy(document)
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        places = [path for path in _places(changed) if path]
        if not places:
            return changed
        *above, last = draw.choice(places)
        inner = changed
        for step in above:
            inner = inner[step]
        match draw.choice(("hostile", "hostile", "hostile", "gone", "near", "twice", "deep", "extra")):
            case "hostile":
                inner[last] = copy.deepcopy(draw.choice(HOSTILE))
            case "gone":
                del inner[last]
            case "near":
                inner[last] = _near(inner[last], draw)
            case "twice" if isinstance(inner, list):
                inner.append(copy.deepcopy(inner[last]))
            case "deep":
                inner[last] = _nested(draw.choice((10, 100, 400)))
            case _ if isinstance(inner, dict):
                inner[draw.choice(("x", "", "must_understand", "name", "__class__"))] = draw.choice(HOSTILE)
    return changed


def _near(value: Any, draw: Random) -> Any:
    """Return a value that could be right."""
    if type(value) is int:
        return value + draw.choice((-1, 1, 7))
    if isinstance(value, float):
        return value * draw.choice((-1.0, 0.5, 2.0))
    if isinstance(value, str) and value:
        at = draw.randrange(len(value))
        return value[:at] + draw.choice("abcxyz019|<>") + value[at + 1 :]
    if isinstance(value, list) and value:
        return draw.sample(value, len(value))
    return value


def document(data: bytes, draw: Random) -> bytes:
    """Return the bytes of a document after its structure, or its bytes, were changed."""
    if draw.random() < 0.8:
        return json.dumps(mutated(json.loads(data), draw)).encode("utf-8", "surrogatepass")
    return draw.choice(
        (
            lambda: damaged(data, draw),
            lambda: b"",
            lambda: b"[" * 100_000,
            lambda: b"\xff\xfe" + data,
            lambda: data + data,
            lambda: b" " * (17 << 20) + data,
            lambda: b"{" + b'"a":1,' * 10_000 + b'"b":2}',
        )
    )()


def damaged(data: bytes, draw: Random) -> bytes:
    """Return bytes that are not the same any more: flipped, overwritten, cut, longer, or something else."""
    changed = bytearray(data)
    at = draw.randrange(max(len(data), 1))
    match draw.choice(("flip", "flip", "burst", "cut", "longer", "noughts", "noise", "empty", "twice")):
        case "flip" if data:
            changed[at] ^= 1 << draw.randrange(8)
        case "burst":
            changed[at : at + 16] = draw.randbytes(16)
        case "cut":
            del changed[at:]
        case "longer":
            changed += draw.randbytes(draw.randint(1, 40))
        case "noughts":
            changed[at : at + 64] = bytes(len(changed[at : at + 64]))
        case "noise":
            changed[:] = draw.randbytes(draw.randint(1, 200))
        case "empty":
            changed.clear()
        case _:
            changed *= 2
    return bytes(changed)
