"""Whether a path is of a network of others: a file of ONNX, or a package of the BioImage Model Zoo."""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

#: Names of the file that describes a package.
DESCRIPTIONS = ("rdf.yaml", "bioimageio.yaml", "model.yaml")


def brought(path: Path) -> bool:
    """Return whether a path is of a network of others, as far as its name and its neighbours tell."""
    if path.is_dir():
        return any((path / name).is_file() for name in DESCRIPTIONS)
    if path.suffix == ".zip" and path.is_file():
        return described_in(path) is not None
    return path.is_file() and (path.suffix == ".onnx" or path.name in DESCRIPTIONS)


def described_in(archive: Path) -> str | None:
    """Return the name of the description in a zip; None if it is no package."""
    try:
        with zipfile.ZipFile(archive) as opened:
            names = set(opened.namelist())
    except (OSError, zipfile.BadZipFile):
        return None
    return next((name for name in DESCRIPTIONS if name in names), None)
