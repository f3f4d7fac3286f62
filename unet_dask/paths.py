"""One rule for every path that a user names: a leading ``~`` is a home folder, and ``file://`` is no part of it.

It holds for sources, models, masks, sinks, reports and pictures alike, on the command line and in the API, and is
that of fsspec, through which results are written. A file that is really called ``~`` is named as ``./~``.
"""

from __future__ import annotations

import os
from pathlib import Path

#: What stands before the path of this machine in a URL of it; `pathlib` makes one slash of two.
_LOCAL_SCHEMES = ("file://", "local://", "file:", "local:")


def is_local(place: str | os.PathLike[str]) -> bool:
    """Tell whether a path or URL is one of this machine.

    Examples
    --------
    >>> is_local("data/big.zarr"), is_local("file:///data/big.zarr"), is_local("s3://bucket/big.zarr")
    (True, True, False)
    """
    url = os.fspath(place)
    return url.startswith(_LOCAL_SCHEMES) or not ("://" in url or is_chained(url))


def is_chained(url: str) -> bool:
    """Tell whether a URL leads through several file systems, as ``simplecache::s3://bucket/big.zarr`` does."""
    return "::" in url


def archive_of(url: str | os.PathLike[str]) -> Path | None:
    """Return the local zip archive that a URL leads into, None of any other.

    Examples
    --------
    >>> archive_of("zip://a.zarr::/data/a.zip").as_posix(), archive_of("zip://::http://host/a.zip")
    ('/data/a.zip', None)
    """
    first, separator, rest = os.fspath(url).partition("::")
    return local_path(rest) if first.startswith("zip://") and separator and is_local(rest) else None


def local_path(place: str | os.PathLike[str]) -> Path:
    """Return the path that a local path or URL stands for.

    ``~/`` and ``~user/`` become home folders, where there is such a user; percent signs stay as they are, as in
    fsspec.

    Examples
    --------
    >>> local_path("file:///data/big.zarr/").as_posix(), local_path("./~").is_absolute()
    ('/data/big.zarr', True)
    """
    text = os.fspath(place)
    scheme = next((each for each in _LOCAL_SCHEMES if text.startswith(each)), "")
    # Not Path.expanduser: that one refuses names of unknown users, which are names of files to every shell.
    path = Path(os.path.expanduser(text[len(scheme) :]))  # noqa: PTH111
    # What is really called so stays what it is when it is read again.
    return path.absolute() if str(path).startswith("~") else path
