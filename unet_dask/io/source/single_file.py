"""What all arrays share whose values lie in one file: it must be the same before and after a window is read."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

from unet_dask.errors import DataError
from unet_dask.io.remote import UnreachableError, one_line, shorten, wrap
from unet_dask.io.source.stamps import ChangedError, Look, file_at, file_of
from unet_dask.regular import IrregularError, open_regular

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
    def reopened(self) -> Iterator[tuple[BinaryIO, tuple[int, int, int, int]]]:
        """Yield the file, opened, and what it is; look at it once more when it was read, whatever came of that.

        Raises
        ------
        UnreachableError
            If it is gone.
        DataError
            If something else than a file is in its place.
        ChangedError
            If it is not what was found, or another one is in its place; what cannot be decoded may have been replaced.
        """
        try:
            file = open_regular(self.path)
        except IrregularError as error:
            raise DataError(f"{shorten(str(self.path))} is {error}, not a regular file.") from error
        except FileNotFoundError as error:
            raise UnreachableError(
                f"The image {shorten(str(self.path))} is no longer there. Check that its disk is mounted, and resume."
            ) from error
        with file:
            before = file_of(os.fstat(file.fileno()))
            self._require(before[:2] == self.version)
            try:
                yield file, before
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
