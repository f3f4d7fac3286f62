"""The images of a folder, and their order as planes of a stack: that of the numbers in their names."""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING

from unet_dask.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

TIFF = frozenset({".tif", ".tiff"})
SUFFIXES = TIFF | {".png"}
#: The last number in a name.
NUMBER = re.compile(r"\d+(?=\D*$)")


def listed(folder: Path) -> list[Path]:
    """Return the images in a folder, sorted by name; hidden files are none.

    Raises
    ------
    InputError
        If there is none.
    """
    found = sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and not path.is_dir()
    )
    if not found:
        raise InputError(f"The folder {folder} holds no image (.tif, .tiff or .png).")
    return found


def in_order(folder: Path) -> list[Path]:
    """Return the images in a folder as a stack: in the order of the numbers in their names.

    Raises
    ------
    InputError
        If there are several, and not all are of one name with different numbers.
    """
    files = listed(folder)
    if len(files) == 1:
        return files
    numbers = [number_of(stem(path)) for path in files]
    names = {NUMBER.sub("#", stem(path)) for path in files}
    if None in numbers or len(set(numbers)) < len(files) or len(names) > 1:
        raise InputError(
            f"The files of {folder} ({files[0].name}, {files[1].name}) are not numbered, so their order as a stack is "
            "unknown. Number them, or pair them with a folder of files of the same names."
        )
    return sorted(files, key=lambda path: int(number_of(stem(path)) or 0))


def stem(path: Path) -> str:
    """Return the name of an image without its suffixes; letters with accents come composed.

    Examples
    --------
    >>> from pathlib import Path
    >>> stem(Path("a.ome.TIF")), stem(Path("a.b.png"))
    ('a', 'a.b')
    """
    plain = unicodedata.normalize("NFC", path.stem)
    return plain[:-4] if path.suffix.lower() in TIFF and plain.lower().endswith(".ome") else plain


def number_of(name: str) -> str | None:
    """Return the last number in a name, without zeros before it; None if there is none."""
    found = NUMBER.search(name)
    return str(int(found[0])) if found else None
