"""Where a report goes: known to be a place for one before the run begins, and written when it is over."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from unet_dask.durable import write
from unet_dask.errors import OptionError
from unet_dask.io import remote
from unet_dask.report.page import MARK
from unet_dask.run.events import Remark

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def require_place(report: str, source: str, sink: str) -> Path:
    """Return the path of a report that can be written.

    Raises
    ------
    OptionError
        If it is no place for a file, lies in the data or the result, or holds something else than a report.
    """
    if not remote.is_local(report):
        raise OptionError(
            f"The report {remote.redact_url(report)} cannot be written: it is a URL. Name a local file with --report."
        )
    path = remote.local_path(report)
    for name, place in (("source", source), ("sink", sink)):
        if remote.contains(place, str(path.absolute())) or remote.contains(str(path.absolute()), place):
            raise OptionError(
                f"The report {path} would lie in the {name} {remote.redact_url(place)}, or in its place. Name "
                "another file with --report."
            )
    reason = _reason(path)
    if reason:
        raise OptionError(f"The report {path} cannot be written: {reason}. Name another file with --report.")
    return path


def write_page(path: Path, page: Callable[[], str], on_event: Callable[[Remark], object], kept: str) -> None:
    """Write a report; if it cannot be, say so in one line and nothing more: the run is over, and is worth more.

    Parameters
    ----------
    path : of the file
    page : makes it
    on_event : called with a remark
    kept : what is as it was all the same
    """
    try:
        write(path, [page().encode()])
    except Exception as error:  # whatever it is
        on_event(Remark(f"the report {path} could not be written: {remote.one_line(error)}; {kept}"))


def _reason(path: Path) -> str:
    """Return why a report cannot be written, "" if it can."""
    try:
        if path.is_dir():
            return "it is a folder"
        if not path.parent.is_dir():
            return "there is no such folder"
        if not os.access(path.parent, os.W_OK):
            return "its folder cannot be written"
        if path.exists() and path.stat().st_size:
            with path.open("rb") as file:
                if file.read(len(MARK)) != MARK.encode():
                    return "there is another file, which is not a report of unet-dask"
    except OSError as error:
        return str(error.strerror or error)
    return ""
