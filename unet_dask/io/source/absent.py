"""Chunks that were not there when they were asked for: Zarr reads them as fill value, and says nothing.

That is right where nothing was ever stored, and wrong where a disk was unmounted for a moment. So it is noted which
they were, for whoever reads a window, and compared with what lies there (:mod:`unet_dask.io.source.witness`).
"""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from zarr.abc.store import Store
from zarr.storage import WrapperStore

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zarr.abc.store import ByteRequest
    from zarr.core.buffer import Buffer, BufferPrototype

#: Of whoever is reading. Zarr's own thread, in which stores are asked, is handed the context of its caller.
_noted: ContextVar[set[str] | None] = ContextVar("absent chunks", default=None)


@contextmanager
def noted() -> Iterator[set[str]]:
    """Yield the keys, from the root of the store, that are found absent while the block is run."""
    found: set[str] = set()
    token = _noted.set(found)
    try:
        yield found
    finally:
        _noted.reset(token)


class NotedAbsences(WrapperStore[Store]):
    """A store that notes what it does not hold."""

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Return the value of a key, or a part of it, None where there is none."""
        found = await super().get(key, prototype, byte_range)
        absent = _noted.get()
        if found is None and absent is not None:
            absent.add(key)
        return found
