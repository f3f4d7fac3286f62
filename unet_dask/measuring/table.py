"""Tables as files, piece by piece: CSV from the standard library, Parquet through pyarrow."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any

from unet_dask.errors import OptionError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from numpy.typing import NDArray

    from unet_dask.measuring.columns import Columns

#: Rows of a CSV that are text at a time.
_ROWS = 1 << 14


def csv_pieces(head: Columns, batches: Iterable[Columns]) -> Iterator[bytes]:
    """Yield a table as CSV: a line of names, then a line per object; numbers as they are read back exactly.

    Parameters
    ----------
    head : the columns, without rows
    batches : the rows
    """
    yield _lines([tuple(head)])
    for batch in batches:
        count = len(next(iter(batch.values())))
        for first in range(0, count, _ROWS):
            yield _lines(zip(*(_texts(each[first : first + _ROWS]) for each in batch.values()), strict=True))


def _lines(rows: Iterable[tuple[object, ...]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def _texts(values: NDArray[Any]) -> list[Any]:
    if values.dtype.kind == "b":
        return ["true" if value else "false" for value in values.tolist()]
    if values.dtype == "f4":  # the shortest text that float32 reads back
        return [str(value) for value in values]
    return list(values.tolist())


class _Drain(io.RawIOBase):
    """A file that keeps what is written to it until somebody takes that away."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self._size = 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._size

    def write(self, data: Any) -> int:
        piece = bytes(data)
        self.pieces.append(piece)
        self._size += len(piece)
        return len(piece)

    def take(self) -> Iterator[bytes]:
        pieces, self.pieces = self.pieces, []
        yield from pieces


def parquet_pieces(
    head: Columns, batches: Iterable[Columns], said: Callable[[], Mapping[str, str]] = dict
) -> Iterator[bytes]:
    """Yield a table as Parquet, a row group for each batch, with a checksum of every page.

    Parameters
    ----------
    head : the columns, without rows
    batches : the rows
    said : returns what the file says of itself, once all rows are written
    """
    arrow, parquet = require_arrow()
    drain, schema = _Drain(), arrow.table(head).schema
    with parquet.ParquetWriter(drain, schema, write_page_checksum=True) as writer:
        for batch in batches:
            writer.write_table(arrow.table(batch, schema=schema))
            yield from drain.take()
        writer.add_key_value_metadata(dict(said()))
    yield from drain.take()


def require_arrow(otherwise: str = "write .csv") -> Any:
    """Return pyarrow and its module for Parquet.

    Parameters
    ----------
    otherwise : what to do without

    Raises
    ------
    OptionError
        If it is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise OptionError(
            f"Parquet is written by pyarrow, which is not installed. Install unet-dask[tables], or {otherwise}."
        ) from error
    return pyarrow, pyarrow.parquet


#: How tables are written, by the end of the name of the file.
WRITERS: dict[str, Callable[[Columns, Iterable[Columns]], Iterator[bytes]]] = {
    ".csv": csv_pieces,
    ".parquet": parquet_pieces,
}


def require_writer(suffix: str) -> Callable[[Columns, Iterable[Columns]], Iterator[bytes]]:
    """Return what writes a table, known to work here.

    Raises
    ------
    OptionError
        If there is no such kind of table, or what writes it is not installed.
    """
    writer = WRITERS.get(suffix.lower())
    if writer is None:
        raise OptionError(
            f"A table is not written as {suffix or 'a file without an ending'}. Name a file that ends in "
            f"{' or '.join(WRITERS)}."
        )
    if writer is parquet_pieces:
        require_arrow()
    return writer
