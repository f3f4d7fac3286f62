"""Sources over HTTP and in memory, one spelling for a location, and nothing secret in sight."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import threading
import time
import traceback
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import zarr

from unet_dask.errors import InputError
from unet_dask.io.remote import UnreachableError, contains, redact, redact_url, source_aliases
from unet_dask.io.source.volume import Source, open_source

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

CANARY = "CANARY7f3a"
NO_RANGES = "answer with whole files"


def cut(content: bytes, first: str, last: str) -> bytes:
    """Return the part that a Range header means; without `first`, `last` counts from the end (RFC 9110)."""
    if not first:
        return content[-int(last) :]
    return content[int(first) : int(last) + 1 if last else None]


class Files(BaseHTTPRequestHandler):
    """A folder over HTTP with ranges, as object stores serve it: no listing, 404 for what is not there."""

    root: Path
    asked: list[str]
    broken: list[str]
    silent: list[str]

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        self.asked.append(query)
        target = self.root / path.lstrip("/")
        while any(part in path for part in self.silent):
            time.sleep(0.1)
        if any(part in path for part in self.broken):
            self.reply(500, b"")
        elif "private" in path and CANARY not in query:
            self.reply(403, b"")
        elif not target.is_file():
            self.reply(404, b"")
        else:
            content = target.read_bytes()
            asked = "" if NO_RANGES in self.asked else self.headers.get("Range", "")
            found = re.fullmatch(r"bytes=(\d*)-(\d*)", asked)
            self.reply(206 if found else 200, cut(content, found[1], found[2]) if found else content)

    def reply(self, status: int, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *args: Any) -> None:
        pass


class Server:
    def __init__(self, root: Path) -> None:
        self.asked: list[str] = []
        self.broken: list[str] = []
        self.silent: list[str] = []
        lists = {"asked": self.asked, "broken": self.broken, "silent": self.silent}
        handler = type("Handler", (Files,), {"root": root, **lists})
        #: Parts of paths: "broken" ones are answered with an error, "silent" ones never.
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.host = f"127.0.0.1:{self.server.server_port}"
        self.url = f"http://{self.host}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    running = Server(tmp_path)
    yield running
    running.server.shutdown()
    running.server.server_close()


def numbers(*shape: int) -> NDArray[np.uint16]:
    return np.random.default_rng(5).integers(1, 1000, shape).astype(np.uint16)


def write(path: Path | str, **options: Any) -> NDArray[np.uint16]:
    values = numbers(9, 7)
    made = zarr.create_array(str(path), **{"shape": (9, 7), "chunks": (4, 4), "dtype": "u2", **options})
    made[...] = values
    return values


def whole(source: Source) -> NDArray[Any]:
    return source.read(tuple(slice(0, size) for size in source.shape))


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"zarr_format": 2}, id="v2"),
        pytest.param({"zarr_format": 3}, id="v3"),
        pytest.param({"shards": (8, 8)}, id="v3-sharded"),
    ],
)
def test_http_is_read_as_the_folder_is(tmp_path: Path, server: Server, options: dict[str, Any]) -> None:
    values = write(tmp_path / "a.zarr", **options)
    assert np.array_equal(whole(open_source(f"{server.url}/a.zarr"))[0], values)


def test_http_path_goes_into_the_store(tmp_path: Path, server: Server) -> None:
    zarr.open_group(str(tmp_path / "a.zarr"), mode="w")
    values = write(tmp_path / "a.zarr", name="volumes/raw")
    source = open_source(f"{server.url}/a.zarr/volumes/raw")
    assert (source.spec.url, source.spec.key) == (f"{server.url}/a.zarr", "volumes/raw")
    assert np.array_equal(whole(source)[0], values)


def test_group_over_http_is_listed_by_its_consolidated_metadata(tmp_path: Path, server: Server) -> None:
    zarr.open_group(str(tmp_path / "a.zarr"), mode="w", zarr_format=2)
    write(tmp_path / "a.zarr", name="raw", zarr_format=2)
    zarr.consolidate_metadata(str(tmp_path / "a.zarr"))
    assert open_source(f"{server.url}/a.zarr").spec.key == "raw"


def test_group_that_cannot_be_listed_asks_for_the_key(tmp_path: Path, server: Server) -> None:
    zarr.open_group(str(tmp_path / "a.zarr"), mode="w")
    write(tmp_path / "a.zarr", name="raw")
    with pytest.raises(InputError, match=r"no array was found in it\. Name the array with --key"):
        open_source(f"{server.url}/a.zarr")


def test_signed_query_goes_with_every_request(tmp_path: Path, server: Server) -> None:
    (tmp_path / "private").mkdir()
    values = write(tmp_path / "private" / "a.zarr")
    source = open_source(f"{server.url}/private/a.zarr?sig={CANARY}")
    assert np.array_equal(whole(source)[0], values)
    assert set(server.asked) == {f"sig={CANARY}"}


def test_server_error_is_no_fill_value(tmp_path: Path, server: Server) -> None:
    write(tmp_path / "a.zarr")
    source = open_source(f"{server.url}/a.zarr")
    server.broken.append("/c/1/1")
    with pytest.raises(UnreachableError, match=r"Cannot reach 'http://.*500.*Check the address") as caught:
        whole(source)
    assert "\n" not in str(caught.value)


def test_service_that_loses_the_store_is_no_fill_value(tmp_path: Path, server: Server) -> None:
    write(tmp_path / "a.zarr")
    source = open_source(f"{server.url}/a.zarr")
    whole(source)
    (tmp_path / "a.zarr").rename(tmp_path / "away")
    with pytest.raises(UnreachableError, match="no longer there"):
        whole(source)


def test_identity_over_http_changes_with_a_chunk(tmp_path: Path, server: Server) -> None:
    write(tmp_path / "a.zarr")
    before = open_source(f"{server.url}/a.zarr").identity()
    zarr.open_array(str(tmp_path / "a.zarr"), mode="r+")[0, 0] = 0
    after = open_source(f"{server.url}/a.zarr").identity()
    assert {name for name in before if before[name] != after[name]} == {"source.content"}


def test_memory_is_read() -> None:
    values = write("memory://tests/a.zarr", overwrite=True)
    assert np.array_equal(whole(open_source("memory://tests/a.zarr"))[0], values)


def test_only_array_of_a_group_in_memory_is_found() -> None:
    zarr.open_group("memory://tests/g.zarr", mode="w")
    write("memory://tests/g.zarr", name="raw", overwrite=True)
    assert open_source("memory://tests/g.zarr").spec.key == "raw"


def test_file_url_is_the_path(tmp_path: Path) -> None:
    write(tmp_path / "a.zarr")
    assert open_source(f"file://{tmp_path}/a.zarr").spec == open_source(tmp_path / "a.zarr").spec


def test_zip_is_read_through_fsspec(tmp_path: Path) -> None:
    with zarr.storage.ZipStore(tmp_path / "a.zip", mode="w") as store:
        made = zarr.create_array(store, shape=(9, 7), chunks=(9, 7), dtype="u2")
        made[...] = numbers(9, 7)
    assert np.array_equal(whole(open_source(f"zip://::{tmp_path}/a.zip"))[0], numbers(9, 7))


def has(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


@pytest.mark.parametrize(
    ("url", "message"),
    [
        pytest.param(
            "memory://nothing/a.zarr", "There is no Zarr store at 'memory://nothing/a.zarr'", id="memory"
        ),
        pytest.param(
            "odd://bucket/a.zarr", "fsspec knows no scheme 'odd'. Use a path, or", id="unknown-scheme"
        ),
        pytest.param(
            "http://127.0.0.1:9/a.zarr", "Cannot reach 'http://127.0.0.1:9/a.zarr'", id="nobody-listens"
        ),
        pytest.param(
            "s3://bucket/a.zarr",
            r"the driver for s3:// is not installed.*unet-dask\[s3\]",
            id="s3",
            marks=pytest.mark.skipif(has("s3fs"), reason="s3fs is installed"),
        ),
        pytest.param(
            "gs://bucket/a.zarr",
            r"the driver for gs:// is not installed.*unet-dask\[gcs\]",
            id="gs",
            marks=pytest.mark.skipif(has("gcsfs"), reason="gcsfs is installed"),
        ),
    ],
)
def test_remote_refusal_is_one_line(url: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        open_source(url)
    assert "\n" not in str(caught.value)


def test_server_that_ignores_ranges_is_named(tmp_path: Path, server: Server) -> None:
    write(tmp_path / "a.zarr", shards=(8, 8))
    source = open_source(f"{server.url}/a.zarr")
    server.asked.append(NO_RANGES)
    with pytest.raises(InputError, match="or the service ignores byte ranges"):
        whole(source)


def test_web_page_in_place_of_metadata_is_named(tmp_path: Path, server: Server) -> None:
    (tmp_path / "a.zarr").mkdir()
    (tmp_path / "a.zarr" / "zarr.json").write_text("<!doctype html><title>Not found</title>")
    with pytest.raises(InputError, match="holds no JSON but begins with '<!doctype html>"):
        open_source(f"{server.url}/a.zarr")


SECRET_URLS = [
    f"http://user:{CANARY}@HOST/missing.zarr",
    f"http://HOST/missing.zarr?X-Amz-Signature={CANARY}",
    f"http://user:{CANARY}@HOST/private/a.zarr",
    f"http://user:a@{CANARY}@HOST/a.zarr",
    f"http://user:a/{CANARY}@HOST/a.zarr",
    f"http://user:a'{CANARY}@HOST/a.zarr",
    f"odd://user:{CANARY}@bucket/a.zarr?token={CANARY}",
    f"zip://::http://user:{CANARY}@HOST/a.zip?sig={CANARY}",
    f"http://user:{CANARY}@127.0.0.1:9/a.zarr",
]


@pytest.mark.parametrize("template", SECRET_URLS)
def test_no_secret_in_a_refusal_or_its_traceback(server: Server, template: str) -> None:
    with pytest.raises(InputError) as caught:
        open_source(template.replace("HOST", server.host))
    assert CANARY not in str(caught.value)
    shown = traceback.format_exception(caught.value, limit=0)
    assert CANARY not in "".join(shown)


def test_no_secret_in_a_source(tmp_path: Path, server: Server) -> None:
    (tmp_path / "private").mkdir()
    write(tmp_path / "private" / "a.zarr")
    source = open_source(f"http://user:{CANARY}@{server.host}/private/a.zarr?sig={CANARY}")
    assert CANARY not in f"{source!r} {source.spec!s} {source.name} {json.dumps(source.identity())}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("see https://u:p@h/a?b#c now", "see https://h/a now", id="in-text"),
        pytest.param("http://h:80/a@b/c", "http://h:80/a@b/c", id="at-in-path"),
        pytest.param("zip://x::s3://k:p@b/a.zip", "zip://x::s3://b/a.zip", id="chained"),
        pytest.param("no url: a@b?c", "no url: a@b?c", id="no-url"),
    ],
)
def test_redact(text: str, expected: str) -> None:
    assert redact(text) == expected


def test_redact_url_leaves_paths_alone() -> None:
    assert redact_url("data/what is this?.zarr") == "data/what is this?.zarr"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param("{0}/a.zarr", "{0}/a.zarr/", id="slash"),
        pytest.param("{0}/a.zarr", "{0}/b/../a.zarr", id="dots"),
        pytest.param("{0}/a.zarr", "file://{0}/a.zarr", id="file-url"),
        pytest.param("{0}/a.zarr", "{0}/link.zarr", id="symlink"),
        pytest.param("s3://bucket/a.zarr", "s3a://bucket//a.zarr/", id="s3a"),
        pytest.param("http://host/a.zarr", "HTTP://user:pass@HOST:80/b/../a.zarr?sig=1", id="http"),
        pytest.param("memory://q/a.zarr", "memory:///q/a.zarr", id="memory"),
        pytest.param("gs://bucket/a.zarr", "gcs://bucket/a.zarr", id="gcs"),
    ],
)
def test_spellings_of_one_location_are_equal(tmp_path: Path, one: str, other: str) -> None:
    (tmp_path / "a.zarr").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "link.zarr").symlink_to(tmp_path / "a.zarr")
    assert source_aliases(one.format(tmp_path)) == source_aliases(other.format(tmp_path))


@pytest.mark.parametrize(
    ("outer", "inner", "expected"),
    [
        pytest.param("{0}/a", "{0}/a", True, id="same"),
        pytest.param("{0}/a", "{0}/a/b", True, id="inside"),
        pytest.param("{0}/a", "{0}/ab", False, id="prefix-only"),
        pytest.param("{0}/a/b", "{0}/a", False, id="parent"),
        pytest.param("{0}/a", "{0}/link/b/c", True, id="inside-by-symlink"),
        pytest.param("{0}/a", "file://{0}/link", True, id="file-url-of-symlink"),
        pytest.param("s3://q/a", "s3://q/a/b", True, id="s3"),
        pytest.param("s3://q/a", "gs://q/a/b", False, id="other-service"),
        pytest.param("/", "{0}/a", True, id="root"),
        pytest.param("s3://q/a", "/q/a", False, id="url-and-path"),
    ],
)
def test_contains(tmp_path: Path, outer: str, inner: str, expected: bool) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "a")
    assert contains(outer.format(tmp_path), inner.format(tmp_path)) is expected


def test_relative_path_is_the_absolute_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert source_aliases("a.zarr") == os.path.realpath(tmp_path / "a.zarr")


@pytest.mark.parametrize("text", ["x" * 1_000_000, "http:" + "x" * 1_000_000, "a+" * 500_000])
def test_endless_word_of_a_stranger_is_searched_for_secrets_in_no_time(text: str) -> None:
    began = time.monotonic()
    assert redact(text) == text
    assert time.monotonic() - began < 5


def test_secret_after_an_endless_word_is_removed() -> None:
    assert redact("x" * 1000 + "https://me:secret@host/a") == "x" * 1000 + "https://host/a"
