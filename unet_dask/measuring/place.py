"""Where a table or an export goes: known to be a place for one before anything is read."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from unet_dask.errors import OptionError
from unet_dask.io import remote

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def require_place(output: str | os.PathLike[str], others: Sequence[str]) -> Path:
    """Return the path of a file that can be written.

    Parameters
    ----------
    output : that somebody named
    others : places that it must neither be nor lie in: the result, and its source

    Raises
    ------
    OptionError
        If it is no place for a file, or lies in one of the others.
    """
    if not remote.is_local(output):
        raise OptionError(
            f"{remote.redact_url(str(output))} cannot be written: it is a URL. Name a local file with -o."
        )
    path = remote.local_path(output)
    for place in others:
        if remote.contains(place, str(path.absolute())):
            raise OptionError(
                f"{path} is, or would lie in, {remote.redact_url(place)}, which is only read. Name another file "
                "with -o."
            )
    reason = _reason(path)
    if reason:
        raise OptionError(f"{path} cannot be written: {reason}. Name another file with -o.")
    return path


def _reason(path: Path) -> str:
    """Return why a file cannot be written, "" if it can."""
    if path.is_dir():
        return "it is a folder"
    if not path.parent.is_dir():
        return f"there is no folder {path.parent}"
    return "" if os.access(path.parent, os.W_OK) else "its folder cannot be written"
