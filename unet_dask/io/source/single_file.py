"""What all arrays share whose values lie in one file: it must be the same before and after a window is read."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

from unet_dask.errors import DataError
from unet_dask.io.remote import one_line, shorten, wrap
from unet_dask.io.source.stamps import ChangedError, Look, file_at, file_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO


class SingleFile:
    """An array in one file.

    Attributes
    ----------
    path : of the file
    version : its size and time of change (ns) when it was found
    """

    path: Path
    version: tuple[int, int]

    def look(self, _: tuple[slice, ...]) -> Look:
        """Look at the file, which holds every part."""
        return Look({self.path.name: file_at(str(self.path))}, {})

    @contextmanager
    def unchanged(self, file: BinaryIO) -> Iterator[tuple[int, int, int, int]]:
        """Yield what the open file is, and look at it once more when it was read, whatever came of that.

        Raises
        ------
        ChangedError
            If it is not what was found, or another one is in its place; what cannot be decoded may have been replaced.
        """
        before = file_of(os.fstat(file.fileno()))
        self._require(before[:2] == self.version)
        try:
            yield before
        finally:
            now = file_of(os.fstat(file.fileno()))
            self._require(before == now == file_at(str(self.path)))

    def _require(self, same: bool) -> None:
        if not same:
            raise ChangedError(
                f"The image {shorten(str(self.path))} was changed since it was opened. Put back what it was, and "
                "resume."
            )

    def refuse(self, window: str, error: BaseException) -> NoReturn:
        """Raise our own error for what went wrong in reading a window."""
        wrap(
            error,
            f"Cannot decode the window {window} of {shorten(str(self.path))}: the file is damaged or was cut short "
            f"({type(error).__name__}: {one_line(error)}). Copy it again.",
            DataError,
        )
