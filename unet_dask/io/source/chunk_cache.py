"""What was read last, kept as it is stored: neighbouring regions share the chunks at their faces.

Zarr's own `CacheStore` (3.1.6, experimental) counts no value that is larger than its limit, and so grows with them;
and it fails when a key is evicted while another read waits for its lock.
"""

from __future__ import annotations

import os
from asyncio import Lock
from collections import OrderedDict
from typing import TYPE_CHECKING

from zarr.abc.store import Store
from zarr.storage import WrapperStore

from unet_dask.io import remote

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from zarr.abc.store import ByteRequest
    from zarr.core.buffer import Buffer, BufferPrototype

    from unet_dask.io.remote import Location

    #: Name of what was asked for: its key, the part of it, and the version that lay there.
    Name = tuple[str, str, Hashable]

#: Encoded bytes that a worker keeps: a row of a wave's regions, and the plan counts them.
LIMIT = 64 << 20


class ChunkCache(WrapperStore[Store]):
    """A store that remembers what it was asked for last.

    Where versions are not told it knows nothing of changes, so it must not outlive a run.

    Parameters
    ----------
    store : to read from
    limit : bytes to keep
    version : says of a key what changes when its value does; by default nothing
    """

    def __init__(
        self, store: Store, limit: int = LIMIT, version: Callable[[str], Hashable] = lambda key: None
    ) -> None:
        super().__init__(store)
        self._limit = limit
        self._version = version
        self._kept: OrderedDict[Name, Buffer] = OrderedDict()
        self._reading: dict[Name, Lock] = {}
        self._bytes = 0

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Return the value of a key, or a part of it, None where there is none."""
        name = key, repr(byte_range), self._version(key)
        if name in self._kept:
            return self._again(name)
        # A worker reads two regions side by side, which share chunks: who asks second waits for the first.
        lock = self._reading.setdefault(name, Lock())
        try:
            async with lock:
                if name in self._kept:
                    return self._again(name)
                found = await super().get(key, prototype, byte_range)
                # What was replaced in between belongs to another version than the one that was asked for.
                if found is not None and self._version(key) == name[2]:
                    self._keep(name, found)
                return found
        finally:
            if not lock.locked():  # nobody else waits
                self._reading.pop(name, None)

    def _again(self, name: Name) -> Buffer:
        """Return what was kept, the last to be let go of from now on."""
        self._kept.move_to_end(name)
        return self._kept[name]

    def _keep(self, name: Name, value: Buffer) -> None:
        """Keep a value, and let go of the oldest; never awaits, so no other read sees it half done."""
        size = len(value)
        if size > self._limit or name in self._kept:
            return
        self._kept[name] = value
        self._bytes += size
        while self._bytes > self._limit:
            _, oldest = self._kept.popitem(last=False)
            self._bytes -= len(oldest)


def file_versions(location: Location) -> Callable[[str], Hashable]:
    """Return what tells the versions of files of a local store; of another, what tells nothing.

    Folders above count as well: one that was moved away and back, with another in its place in between, has changed,
    and the files in it have not.
    """
    if not remote.is_local(location.url):
        return lambda key: None
    root = str(remote.local_path(location.url))

    def version(key: str) -> Hashable:
        folders = [key[:place] for place, letter in enumerate(key) if letter == "/"]
        try:
            found = os.stat(f"{root}/{key}")  # noqa: PTH116 # a thousand times a second
            above = [os.stat(f"{root}/{folder}") for folder in ("", *folders)]  # noqa: PTH116
        except OSError:
            return None
        times = tuple((each.st_ino, each.st_ctime_ns) for each in (found, *above))
        return found.st_size, found.st_mtime_ns, times

    return version
