"""The table that a result keeps of its objects, made while the run was: of exactly these objects, or nobody reads it.

It is a Parquet file beside the ledger, so it goes wherever the result goes, and with it when that is replaced. It says
of what it is: a digest of the fingerprint of the run and of the checksums of all that was measured. Nothing can be made
again without changing one of them, so a table that was left behind is known as such.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from unet_dask.durable import write
from unet_dask.errors import SinkError
from unet_dask.io.remote import one_line, printable, redact_url
from unet_dask.io.sink.place import RUN_FOLDER, is_local, locate, read_manifest
from unet_dask.ledger import Ledger
from unet_dask.measuring.columns import joined
from unet_dask.measuring.measurement import Measurement
from unet_dask.measuring.table import parquet_pieces, require_arrow
from unet_dask.regular import open_regular

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from unet_dask.io.sink.manifest import Manifest
    from unet_dask.measuring.columns import Columns

#: Name of the file, below the result.
TABLE = f"{RUN_FOLDER}/objects.parquet"
#: What the file says of itself, in its metadata.
_SAID = "unet_dask"
#: Numbers of a row group, which is in memory at once: no run writes more. A result may be a stranger's.
_MOST_NUMBERS = 1 << 28


def table_of(url: str) -> str:
    """Return where a result keeps its table, if it has one."""
    return f"{url.rstrip('/')}/{TABLE}"


def digest_of(manifest: Manifest, ledger: Ledger) -> str:
    """Return what a table is of: all that the objects, and what is measured of them, depend on."""
    said = hashlib.sha256(json.dumps(dict(manifest.fingerprint), sort_keys=True).encode())
    found = {each.key: each.checksums for each in ledger.unsorted() if each.level <= 0}
    for key in sorted(found):
        said.update(json.dumps([key, sorted(found[key].items())]).encode())
    return said.hexdigest()


def keep(
    url: str, digest: str, head: Columns, batches: Iterable[Columns], measured: Callable[[], Measurement]
) -> None:
    """Write the table of a result into it: whole under its name, or not at all.

    Parameters
    ----------
    url : path or URL of the result
    digest : see :func:`digest_of`
    head, batches : the columns, without rows, and the rows
    measured : returns what was counted, once all rows are written
    """

    def said() -> dict[str, str]:
        return {_SAID: json.dumps({"of": digest, "measured": measured().to_json()})}

    pieces, (fs, path) = parquet_pieces(head, batches, said), locate(table_of(url))
    if is_local(fs):
        write(path, pieces)
        return
    with TemporaryDirectory() as folder:
        whole = Path(folder, "table")
        write(whole, pieces)
        fs.put_file(str(whole), path)


def remove_table(url: str) -> None:
    """Remove the table of a result whose objects will be others, if it has one."""
    fs, path = locate(table_of(url))
    if fs.exists(path):
        fs.rm_file(path)


@dataclass(frozen=True)
class KeptTable:
    """The table of a result, opened.

    Attributes
    ----------
    url : of the result
    manifest : of the run
    measured : what was counted
    """

    url: str
    manifest: Manifest
    measured: Measurement
    _file: Any

    @property
    def source(self) -> str:
        """Path or URL of what was measured."""
        return self.manifest.source.url

    def given(
        self,
        path: Path | None,
        writer: Callable[[Columns, Iterable[Columns]], Iterator[bytes]] | None,
    ) -> Measurement:
        """Return what was measured, with the table; or write that to a file.

        Raises
        ------
        SinkError
            If it is damaged.
        """
        head = self._columns(self._file.schema_arrow.empty_table())
        if path is None or writer is None:
            return replace(self.measured, columns=joined(head, self._batches()))
        write(path, writer(head, self._batches()))
        return replace(self.measured, path=path)

    def _batches(self) -> Iterator[Columns]:
        for number in range(self._file.num_row_groups):
            try:
                table = self._file.read_row_group(number)
            except Exception as error:  # whatever pyarrow makes of a damaged page
                raise self._damaged(one_line(error)) from error
            yield self._columns(table)

    def _columns(self, table: Any) -> Columns:
        found = {name: self._values(name, table.column(name)) for name in table.column_names}
        if "label" not in found or not all(map(str.isprintable, found)):
            raise self._damaged("these are no columns of objects")
        return found

    def _values(self, name: str, column: Any) -> Any:  # an array of some type
        values = column.to_numpy()
        if name == "class":
            known = np.array([*map(printable, self.manifest.classes)])
            if not np.isin(values.astype(str), known).all():
                raise self._damaged("it has classes that the network has not")
            return values.astype(known.dtype)
        if values.dtype.kind not in "uifb" or column.null_count:
            raise self._damaged(f"{printable(name)} is no column of numbers")
        return values

    def _damaged(self, reason: str) -> SinkError:
        return SinkError(
            f"The table of {redact_url(self.url)} is damaged: {reason}. Remove {TABLE} in it, and objects are measured "
            "again."
        )


def keeps_table(url: str) -> bool:
    """Return whether a result is finished and keeps a table of exactly its objects."""
    with kept_table(url) as found:
        return found is not None


@contextmanager
def kept_table(url: str) -> Iterator[KeptTable | None]:
    """Open the table of a finished result; None if it has none of exactly its objects, or nobody can read it."""
    manifest = read_manifest(url)
    ledger = Ledger(f"{url.rstrip('/')}/{RUN_FOLDER}")
    if manifest is None or not ledger.complete():
        yield None
        return
    with ExitStack() as opened:
        table = None
        with suppress(Exception):  # there is none, or whatever pyarrow and strangers make of one
            fs, path = locate(table_of(url))
            file = opened.enter_context(open_regular(path) if is_local(fs) else fs.open(path, "rb"))
            found, digest = _understood(url, manifest, file)
            # What was missing when it was made, such as the source, may be at hand now.
            if digest == digest_of(manifest, ledger) and not found.measured.notes:
                table = found
        yield table


def _understood(url: str, manifest: Manifest, file: Any) -> tuple[KeptTable, str]:
    """Return a table that is read piece by piece, and of what it says that it is."""
    _, parquet = require_arrow()
    found = parquet.ParquetFile(file, page_checksum_verification=True)
    said = json.loads(found.metadata.metadata[_SAID.encode()])
    for group in map(found.metadata.row_group, range(found.num_row_groups)):
        if max(group.num_rows * group.num_columns, group.total_byte_size // 8) > _MOST_NUMBERS:
            raise ValueError("no run writes so much at a time")
    return KeptTable(url, manifest, Measurement.from_json(said["measured"]), found), said["of"]
