"""The table of a run over many images, a row each, beside their results: `images.csv`."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

import fsspec

from unet_dask.durable import write
from unet_dask.errors import SinkError, SinkLostError
from unet_dask.io.remote import redact_url
from unet_dask.io.sink.place import is_local, locate

if TYPE_CHECKING:
    from collections.abc import Iterable

    from unet_dask.many.outcome import Row
    from unet_dask.part import Part

#: Columns, by which an earlier table is known too.
COLUMNS = ("image", "status", "objects", "seconds", "reason", "result", "source", "key")


def table_of(output: str, part: Part | None) -> str:
    """Return the path or URL of the table of a folder of results; each part has a table of its own."""
    name = "images.csv" if part is None else f"images.{part.number}-of-{part.count}.csv"
    return f"{output}/{name}"


def require_place(table: str) -> None:
    """Refuse to replace what is no table of ours.

    Raises
    ------
    SinkError
        If there is such a file.
    """
    head = ",".join(COLUMNS).encode()
    fs, path = locate(table)
    if fs.exists(path) and (fs.isdir(path) or bytes(fs.cat_file(path, start=0, end=len(head))) != head):
        raise SinkError(
            f"{redact_url(table)} is not a table of unet-dask, and its place is needed for one. Move it, or name "
            "another folder with -o."
        )


def write_table(table: str, rows: Iterable[Row]) -> None:
    """Write a row for each image.

    Raises
    ------
    SinkLostError
        If it cannot be written.
    """
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(COLUMNS)
    for row in rows:
        said = row.to_json() | {"seconds": f"{row.seconds:.2f}"}
        lines.writerow("" if said[name] is None else said[name] for name in COLUMNS)
    data = text.getvalue().encode("utf-8", "backslashreplace")
    fs, path = locate(table)
    try:
        if is_local(fs):
            write(path, [data])
        else:
            with fsspec.open(table, "wb") as file:
                file.write(data)
    except OSError as error:
        raise SinkLostError(
            f"The table {redact_url(table)} cannot be written: {error.strerror or error}. The results are as they are; "
            "--resume writes it again."
        ) from error
