"""Pickles that make a folder when they are opened, in every wrapping that model files come in."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import shutil
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class _Call:
    """Pickles into a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self._call = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self._call


def gadgets(canary: Path) -> dict[str, Any]:
    """Return what makes the canary when it is unpickled, by name."""
    import builtins
    import importlib
    import subprocess

    text = str(canary)
    code = f"import os; os.makedirs({text!r}, exist_ok=True)"
    return {
        "mkdir": _Call(os.mkdir, text),
        "makedirs": _Call(os.makedirs, text),
        "system": _Call(os.system, f"mkdir -p {text}"),
        "exec": _Call(exec, code),
        "eval": _Call(eval, f"__import__('os').makedirs({text!r}, exist_ok=True)"),
        "popen": _Call(subprocess.getoutput, f"mkdir -p {text}"),
        "path": _Call(Path.mkdir, canary),
        "open": _Call(builtins.open, text, "w"),
        "copy": _Call(shutil.copy, os.devnull, text),
        "nested": {"state_dict": [_Call(os.mkdir, text)], "import": _Call(importlib.import_module, "os")},
    }


def _zip(data: bytes, compression: int) -> bytes:
    """Return a checkpoint as torch writes it since 1.6."""
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", compression) as archive:
        archive.writestr("archive/data.pkl", data)
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/data/0", bytes(64))
    return held.getvalue()


def _behind_a_header(data: bytes) -> bytes:
    """Return a pickle that begins as a safetensors file does."""
    return len(data).to_bytes(8, "little") + data


WRAPPINGS: dict[str, Callable[[bytes], bytes]] = {
    "pkl": lambda data: data,
    "pt": lambda data: _zip(data, zipfile.ZIP_STORED),
    "pth": lambda data: gzip.compress(_zip(data, zipfile.ZIP_DEFLATED)),
    "safetensors": _behind_a_header,
}


def hostile(canary: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the name and content of hostile files: every gadget in every wrapping, in alternating protocols."""
    for number, (name, gadget) in enumerate(gadgets(canary).items()):
        data = pickle.dumps(gadget, protocol=(0, 2, 4, 5)[number % 4])
        for suffix, wrap in WRAPPINGS.items():
            yield f"{name}.{suffix}", wrap(data)
