"""The source, and the mask, of a result that may be somebody else's: what it names is not opened unasked.

An address in a received file is a stranger's word. To call one tells whoever listens there who looks at the result, and
from where. So what lies on this machine is opened, and anything else only if the user named it herself, or said that
she trusts the addresses of this result.
"""

from __future__ import annotations

import re
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from unet_dask.errors import InputError, UnetDaskError
from unet_dask.io import remote
from unet_dask.io.source import formats, resolve
from unet_dask.io.source.mask import find_mask
from unet_dask.io.source.volume import open_source
from unet_dask.paths import archive_of

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from unet_dask.io.sink.manifest import Manifest
    from unet_dask.io.source.mask import Mask
    from unet_dask.io.source.volume import Source

#: Addresses that are called although they look like paths: shares of Windows, and "file://" with a host.
_CALLED = re.compile(r"[\\/]{2}|(?:file|local)://(?!/(?![\\/]))", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Consent:
    """What a user allows to be opened beyond this machine.

    Attributes
    ----------
    source : where she says that the source is; None for where the result says
    trusted : whether she trusts the addresses that the result names
    """

    source: str | None = None
    trusted: bool = False

    @property
    def elsewhere(self) -> bool:
        """Whether she named a place of the source herself."""
        return self.source is not None

    def require(self, address: str, what: str) -> None:
        """Raise unless an address that a result names may be opened.

        Parameters
        ----------
        address : path or URL
        what : it is of, such as "source"

        Raises
        ------
        InputError
            If it lies beyond this machine and she has not said yes, or is a device or a pipe.
        """
        if self.source is not None and remote.contains(self.source, address):
            return
        if not is_here(address):
            if self.trusted:
                return
            shown = remote.printable(remote.redact_url(address), 200)
            how = f"--source {shown}, or " if what == "source" else ""
            raise InputError(
                f"The result names the {what} {shown}; not opened, because it is not on this machine: give "
                f"{how}--trust-source if you trust who made the result."
            )
        _require_regular(address, what)


def consented(source: str | os.PathLike[str] | Consent | None) -> Consent:
    """Return what a caller allows who may just name the source."""
    if isinstance(source, Consent):
        return source
    return Consent(None if source is None else remote.location(source, "source"))


def is_here(address: str) -> bool:
    r"""Tell whether an address is a path of this machine, as far as that can be told without opening it.

    Examples
    --------
    >>> is_here("/data/a.zarr"), is_here("file:///data/a.zarr"), is_here("s3://bucket/a.zarr")
    (True, True, False)
    >>> is_here("file://host/a.zarr"), is_here(r"\\host\share"), is_here("zip::http://host/a.zip")
    (False, False, False)
    >>> is_here("zip://::/data/a.zip"), is_here("zip://::file://host/a.zip"), is_here(r"zip://::\\\\host\\share")
    (True, False, False)
    """
    archive = archive_of(address)
    address = address if archive is None else address.partition("::")[2]
    return remote.is_local(address) and not _CALLED.match(address) and "://" not in address[len("file://") :]


def _require_regular(address: str, what: str) -> None:
    """Raise if a local path is a pipe, a socket or a device, which may never answer."""
    path = archive_of(address) or remote.local_path(address)
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return  # whoever opens it says what is wrong
    if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
        raise InputError(
            f"The result names the {what} {remote.printable(path, 200)}, which is neither a folder nor a file. "
            "Name the right one with --source."
        )


def source_of(identity: Mapping[str, str], consent: Consent) -> Source:
    """Return the source of a run; one that has changed is still opened.

    Parameters
    ----------
    identity : fingerprint of the run
    consent : of whoever looks

    Raises
    ------
    InputError
        If it cannot, or may not, be opened.
    """
    address = identity["source.url"]
    if consent.source is None:
        consent.require(address, "source")
    chosen, key = identity["source.channels"], identity["source.key"]
    return open_source(
        address if consent.source is None else _store_of(consent.source, key),
        key=key or None,
        axes=identity["source.axes"],
        channels=None if chosen == "all" else tuple(map(int, chosen.split(","))),
    )


def _store_of(place: str, key: str) -> str:
    """Return the store that a place lies in, if it leads to the array of a key; else the place."""
    if not key or not remote.is_local(place) or not formats.reads_zarr(place):
        return place
    location, inner = resolve.locate(place, None)
    return location.url if inner and f"{key}/".startswith(f"{inner}/") else place


def mask_of(name: str | None, source: Source, consent: Consent) -> Mask | None:
    """Return the mask of a run over its source, None if it had none.

    Raises
    ------
    InputError
        If it cannot, or may not, be opened.
    """
    if name not in (None, "auto"):
        consent.require(str(name), "mask")
    return find_mask(name, source)


def mask_at_hand(manifest: Manifest, consent: Consent) -> tuple[Mask | None, str]:
    """Return the mask of a run, None if it had none; and why it is not at hand, "" if it is."""
    name = manifest.mask
    if name is None:
        return None, ""
    try:
        mask = mask_of(name, source_of(manifest.fingerprint, consent), consent)
        now = mask.identity() if mask else {}
    except UnetDaskError as error:
        return None, f"the mask is not at hand: {error}"
    identity = manifest.fingerprint
    different = ", ".join(field for field, value in now.items() if identity.get(field) != value)
    return (None, f"the mask has changed since the run ({different})") if different else (mask, "")


def changed(manifest: Manifest, source: Source, mask: Mask | None, *, elsewhere: bool = False) -> str:
    """Return in what a source, or the mask over it, differs from that of the run, "" if in nothing.

    Parameters
    ----------
    manifest : of the run
    source, mask : as they are now
    elsewhere : whether the source was moved or copied: its address, and when its files were written, are others then
    """
    identity = manifest.fingerprint
    now = source.identity() | (mask.identity() if mask else {})
    moved = {"source.url", "source.content", "mask.url", "mask.content"} if elsewhere else set()
    return ", ".join(name for name, value in now.items() if identity.get(name) != value and name not in moved)
