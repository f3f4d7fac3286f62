"""Which files of two folders belong together: equal names, else the last number in them, else their order."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from unet_dask.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

TIFF = frozenset({".tif", ".tiff"})
_SUFFIXES = TIFF | {".png"}


def is_zarr(path: Path) -> bool:
    """Tell whether a local path is a Zarr array or group."""
    return any((path / name).exists() for name in ("zarr.json", ".zarray", ".zgroup"))


def is_folder(path: Path) -> bool:
    """Tell whether a path is a folder of images, which a Zarr store is not."""
    return path.is_dir() and not is_zarr(path)


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
        if path.suffix.lower() in _SUFFIXES and not path.name.startswith(".")
    )
    if not found:
        raise InputError(f"The folder {folder} holds no image (.tif, .tiff or .png).")
    return found


def keyed(left: list[Path], right: list[Path]) -> tuple[dict[str, Path], dict[str, Path]] | None:
    """Return two lists of files by the key that tells them apart and pairs at least one of each.

    Returns
    -------
    files by name without suffix, else by the last number in the name; None if neither does

    Examples
    --------
    >>> from pathlib import Path
    >>> pair = keyed([Path("t001.tif"), Path("t002.tif")], [Path("man_seg002.tif")])
    >>> pair and sorted(pair[0]), pair and sorted(pair[1])
    (['1', '2'], ['2'])
    """
    for key in (_stem, _number):
        by_key = {str(key(path)): path for path in left}, {str(key(path)): path for path in right}
        unique = all(len(one) == len(files) for one, files in zip(by_key, (left, right), strict=True))
        if unique and "None" not in {**by_key[0], **by_key[1]} and by_key[0].keys() & by_key[1].keys():
            return by_key
    return None


def _stem(path: Path) -> str:
    return path.stem


def _number(path: Path) -> str | None:
    numbers: list[str] = re.findall(r"\d+", path.stem)
    return str(int(numbers[-1])) if numbers else None
