"""Where a store is: folders and URLs, read byte by byte, compared and shown without their secrets.

Zarr reads the chunks. The few metadata documents are read here instead, with a bound on their size and
with one kind of error for whatever the file system underneath raises, because Zarr answers a damaged
document with a dozen foreign exceptions. Credentials come from the environment or from fsspec's
configuration, never as values; those inside a URL work but are never shown.
"""

from __future__ import annotations

import errno
import gzip
import os
import posixpath
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, cast
from urllib.parse import parse_qsl, urlsplit

from unet_dask.errors import InputError, OptionError
from unet_dask.paths import is_chained, is_local, local_path
from unet_dask.regular import IrregularError, open_regular

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

__all__ = [
    "METADATA_LIMIT",
    "Location",
    "UnreachableError",
    "contains",
    "is_local",
    "is_unreachable",
    "local_path",
    "location",
    "one_line",
    "printable",
    "redact",
    "redact_url",
    "shorten",
    "source_aliases",
    "wrap",
]

#: Bytes of one metadata document; a larger one is no metadata (reliability: bombs).
METADATA_LIMIT = 16 * 1024**2

#: Schemes that mean the same service.
_SAME_SCHEME = {"s3a": "s3", "gcs": "gs", "abfs": "az", "adl": "az"}
_DEFAULT_PORT = {"http": 80, "https": 443}
#: Packages whose exceptions mean that the service, not the data, is at fault.
_NETWORK_PACKAGES = frozenset(
    {"aiohttp", "aiobotocore", "botocore", "s3fs", "gcsfs", "adlfs", "azure", "google", "requests", "urllib3"}
)
#: The scheme of a URL. Without the bound, a stranger's word of 100 000 letters would be searched for minutes.
_SCHEME = r"[A-Za-z][\w+.-]{0,30}"
#: A URL in running text; one that is chained to it with "::" is a match of its own.
_URL_IN_TEXT = re.compile(rf"(?P<scheme>{_SCHEME})://(?P<rest>(?:(?!::{_SCHEME}://)[^\s'\"])*)")


class UnreachableError(OSError, InputError):  # OSError first: its __new__ is the one that can be unpickled
    """The store did not answer or refused; trying again may help, unlike with damaged data."""


def location(place: str | os.PathLike[str], what: str) -> str:
    """Return a path or URL as text, without ``~`` and ``file://``.

    Parameters
    ----------
    place : what a caller named
    what : what it is to be, such as "sink"

    Raises
    ------
    OptionError
        If it is neither a path nor a URL, but perhaps an array, or an argument in the wrong place.
    """
    if isinstance(place, str | os.PathLike):
        text = str(place)
        plain = not is_local(text) or str(local_path(text)) == str(Path(text))
        return text if plain else str(local_path(text))
    raise OptionError(f"The {what} must be the path or URL of a store, not a {type(place).__name__}.")


def redact(text: str) -> str:
    """Return `text` with the user, password, query and fragment of every URL in it removed.

    Examples
    --------
    >>> redact("https://me:secret@host/big.zarr?X-Amz-Signature=secret")
    'https://host/big.zarr'
    """

    def clean(match: re.Match[str]) -> str:
        rest = match["rest"]
        host = re.split(r"[/?#]", rest, maxsplit=1)[0]
        if "@" in host:
            rest = rest[host.rindex("@") + 1 :]
        elif re.search(r":(?!\d*$)", host) and not host.startswith("["):
            rest = rest.rpartition("@")[2]  # no port follows: a password that holds a slash
        return f"{match['scheme']}://{re.split(r'[?#]', rest, maxsplit=1)[0]}"

    return _URL_IN_TEXT.sub(clean, text)


def redact_url(url: str) -> str:
    """Return `url` as it can be shown; unlike running text, all of it is one URL.

    Examples
    --------
    >>> redact_url("https://me:sec'ret@host/big.zarr")
    'https://host/big.zarr'
    """
    return redact(re.sub(r"[\s'\"]", "_", url)) if "://" in url else url


def one_line(error: BaseException) -> str:
    """Return what a foreign error says: one line, no secrets, at most 200 characters."""
    return printable(" ".join(redact(str(error)).split()) or type(error).__name__, 200)


def shorten(path: str) -> str:
    """Return a quoted path for messages, of which the middle is left out if it is very long."""
    return repr(path if len(path) <= 400 else f"{path[:200]}...{path[-197:]}")


def printable(text: object, limit: int = 60) -> str:
    r"""Return text from a stranger's metadata for a message: one line, no control characters, bounded.

    Examples
    --------
    >>> print(printable("two\nlines"))
    two\nlines
    """
    shown = repr(str(text))[1:-1]
    return shown if len(shown) <= limit else f"{shown[: limit - 3]}..."


def wrap(error: BaseException, message: str, kind: type[InputError] = InputError) -> NoReturn:
    """Raise `message` as our error, from `error` unless that one would show a secret.

    Raises
    ------
    InputError
        Always, of the given `kind`.
    """
    raise kind(message) from (error if redact(str(error)) == str(error) else None)


def is_unreachable(error: BaseException) -> bool:
    """Tell whether `error` came from the file system or the network, not from decoding."""
    if isinstance(error, gzip.BadGzipFile):
        return False
    return isinstance(error, OSError) or type(error).__module__.split(".")[0] in _NETWORK_PACKAGES


def source_aliases(url: str | os.PathLike[str]) -> str:
    """Return one spelling for all the ways to write a location.

    A local path becomes its real path: symbolic links, ``..``, a trailing slash and ``file://`` vanish. A
    URL loses user, query and default port.

    Examples
    --------
    >>> source_aliases("S3://bucket/a/../big.zarr/?versionId=1")
    's3://bucket/big.zarr'
    """
    text = os.fspath(url)
    if is_local(text):
        return os.path.realpath(local_path(text))
    if is_chained(text):
        return redact(text).rstrip("/")
    parts = urlsplit(text)
    scheme = _SAME_SCHEME.get(parts.scheme.lower(), parts.scheme.lower())
    host = parts.netloc.rpartition("@")[2]
    if scheme in _DEFAULT_PORT:
        host = host.lower().removesuffix(f":{_DEFAULT_PORT[scheme]}")
    path = posixpath.normpath(f"/{host}/{parts.path}".replace("//", "/")).lstrip("/")
    return f"{scheme}://{path}"


def contains(outer: str | os.PathLike[str], inner: str | os.PathLike[str]) -> bool:
    """Tell whether `inner` is the location `outer` or lies in it, however the two are written.

    Examples
    --------
    >>> contains("s3://bucket/big.zarr", "s3://bucket/big.zarr/labels/"), contains("a/b.zarr", "a/b.zarr2")
    (True, False)
    """
    above, below = source_aliases(outer), source_aliases(inner)
    if is_local(above) != is_local(below):
        return False
    if below == above or below.startswith(above.rstrip("/") + "/"):
        return True
    return is_local(above) and any(_same_file(above, part) for part in (Path(below), *Path(below).parents))


def _same_file(one: str, other: Path) -> bool:
    """Tell whether two existing paths are one folder: bind mounts, file systems that ignore case."""
    try:
        return Path(one).samefile(other)
    except OSError:
        return False


@dataclass(frozen=True, slots=True, repr=False)
class Location:
    """The root of a store, local or not, whose documents can be read and listed.

    Attributes
    ----------
    url : path or fsspec URL
    """

    url: str

    def __repr__(self) -> str:
        return f"Location({redact_url(self.url)!r})"

    @property
    def shown(self) -> str:
        """The location as messages show it."""
        return str(local_path(self.url)) if is_local(self.url) else redact_url(self.url)

    def describe(self, key: str) -> str:
        """Return the name of a node for messages."""
        return shorten(posixpath.join(self.shown, key) if key else self.shown)

    def read(self, key: str, limit: int = METADATA_LIMIT) -> bytes | None:
        """Return the bytes of an object, or None if there is none.

        Raises
        ------
        InputError
            If the object is larger than `limit` bytes.
        UnreachableError
            If the file system or service refuses or does not answer.
        """
        content = self.sample(key, limit + 1)
        if content is not None and len(content) > limit:
            raise InputError(
                f"{self.describe(key)} is larger than {limit // 1024**2} MiB, which is more than the "
                f"metadata of an array can need. Check that the store is sound."
            )
        return content

    def sample(self, key: str, count: int) -> bytes | None:
        """Return at most the first `count` bytes of an object, or None if there is none.

        Raises
        ------
        InputError
            If something else than a file is there.
        UnreachableError
            If the file system or service refuses or does not answer.
        """
        try:
            return self._read(key, count)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None
        except IrregularError as error:
            raise InputError(
                f"{self.describe(key)} is {error}, not a regular file. Restore it from a copy."
            ) from error
        except Exception as error:  # drivers raise anything
            self.refuse(error)

    def _read(self, key: str, count: int) -> bytes:
        if is_local(self.url):
            with open_regular(local_path(self.url) / key) as file:
                # Python sets aside what it is asked for: a bound of 16 MiB would cost as much for every document.
                return file.read(min(count, os.fstat(file.fileno()).st_size))
        files, root = self.files()
        return cast("bytes", files.cat_file(posixpath.join(root, key), start=0, end=count))[:count]

    def names(self, key: str) -> list[str]:
        """Return the sorted names below a folder; empty where the service cannot list.

        Raises
        ------
        UnreachableError
            If a local folder cannot be read.
        """
        if is_local(self.url):
            try:
                return sorted(entry.name for entry in os.scandir(local_path(self.url) / key))
            except (FileNotFoundError, NotADirectoryError):
                return []
            except OSError as error:
                self.refuse(error)
        try:
            files, root = self.files()
            found = files.ls(posixpath.join(root, key), detail=False)
        except Exception:  # a service that cannot list is not an error: see the docstring
            return []
        return sorted({posixpath.basename(str(name).rstrip("/")) for name in found})

    def files(self) -> tuple[AbstractFileSystem, str]:
        """Return fsspec's file system and the path of the root in it.

        Raises
        ------
        InputError
            If the driver of the scheme is unknown or not installed.
        """
        import fsspec

        try:
            url, options = self.options()
            return cast("tuple[AbstractFileSystem, str]", fsspec.core.url_to_fs(url, **options))
        except Exception as error:  # drivers raise anything
            self.refuse(error)

    def options(self) -> tuple[str, dict[str, object]]:
        """Return the URL without its query, and the options that send the query with every request.

        A signed query belongs to each object of the store, not to its root.
        """
        parts = urlsplit(self.url)
        if parts.scheme not in _DEFAULT_PORT or not parts.query:
            return self.url, {}
        return parts._replace(query="").geturl(), {"params": dict(parse_qsl(parts.query))}

    def refuse(self, error: BaseException) -> NoReturn:
        """Raise our error for a foreign one met while reaching the store.

        Raises
        ------
        InputError
            If a driver is missing or the URL is malformed.
        UnreachableError
            If the service refused or did not answer.
        """
        where = shorten(self.shown)
        if isinstance(error, InputError):
            raise error
        if isinstance(error, ImportError):
            scheme = urlsplit(self.url).scheme
            wrap(
                error,
                f"Cannot open {where}: the driver for {scheme}:// is not installed ({one_line(error)}). "
                f"Install {_extra(scheme)}.",
            )
        if isinstance(error, ValueError) and "Protocol not known" in str(error):
            wrap(
                error,
                f"Cannot open {where}: fsspec knows no scheme {urlsplit(self.url).scheme!r}. "
                f"Use a path, or a URL such as s3://bucket/big.zarr.",
            )
        if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM):
            wrap(
                error,
                f"Cannot read {where}: permission denied. Ask for read access to every file in it.",
                UnreachableError,
            )
        if is_local(self.url):
            reason = getattr(error, "strerror", None) or one_line(error)
            wrap(error, f"Cannot read {where}: {reason}. Check the path and the disk.", UnreachableError)
        wrap(
            error,
            f"Cannot reach {where}: {one_line(error)} ({type(error).__name__}). Check the address, the "
            f"network and the credentials.",
            UnreachableError,
        )


def _extra(scheme: str) -> str:
    extra = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs", "http": "http", "https": "http"}.get(scheme)
    return f"unet-dask[{extra}]" if extra else "the fsspec driver that it names"
