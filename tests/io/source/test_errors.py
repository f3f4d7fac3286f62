"""Every refusal: one line that says what, why and what to do."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import zarr

from unet_dask.errors import InputError
from unet_dask.io.source.volume import open_source

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

V2 = {
    "zarr_format": 2,
    "shape": [4, 4],
    "chunks": [4, 4],
    "dtype": "|u1",
    "compressor": None,
    "fill_value": 0,
    "order": "C",
    "filters": None,
}


def array(path: Path, **options: Any) -> None:
    options.setdefault("chunks", (2, 2))
    zarr.create_array(str(path), **{"shape": (4, 4), "dtype": "u1", **options})


def v2(**changes: Any) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        path.mkdir()
        (path / ".zarray").write_text(json.dumps(V2 | changes))

    return make


def file(content: bytes) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        path.write_bytes(content)

    return make


def document(content: bytes) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        path.mkdir()
        (path / "zarr.json").write_bytes(content)

    return make


def changed(**changes: Any) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        array(path)
        found = json.loads((path / "zarr.json").read_text())
        (path / "zarr.json").write_text(json.dumps(found | changes))

    return make


def group(attributes: dict[str, Any], *arrays: str) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        made = zarr.open_group(str(path), mode="w", attributes=attributes)
        for name in arrays:
            made.create_array(name, shape=(4, 4), dtype="u1")

    return make


def folder(*names: str) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        path.mkdir()
        for name in names:
            (path / name).touch()

    return make


def precomputed(path: Path) -> None:
    path.mkdir()
    (path / "info").write_text('{"@type": "neuroglancer_multiscale_volume", "scales": []}')


def beside(path: Path) -> None:
    array(path.parent / "b.zarr")


def within(path: Path) -> None:
    path.mkdir()
    array(path / "b.zarr")


def multiscales(*paths: str, **more: Any) -> dict[str, Any]:
    axes = [{"name": name, "type": "space"} for name in "yx"]
    return {
        "ome": {
            "version": "0.5",
            "multiscales": [{"axes": axes, "datasets": [{"path": p} for p in paths]} | more],
        }
    }


BAD_SCALE = {"datasets": [{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [1, 0]}]}]}
HUGE_SCALE = {
    "datasets": [{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [1, 10**400]}]}]
}

REFUSALS = [
    pytest.param(
        beside, {}, r"There is no .*a\.zarr'\. Did you mean .*b\.zarr'\?", id="missing-with-neighbour"
    ),
    pytest.param(lambda path: None, {}, r"There is no .*a\.zarr'\. Check the path", id="missing"),
    pytest.param(
        within, {}, r"is a folder and no Zarr store, but it holds .*b\.zarr'\. Name one", id="parent-folder"
    ),
    pytest.param(folder(), {}, "no zarr.json, .zgroup or .zarray; it is empty", id="empty-folder"),
    pytest.param(folder("notes.txt"), {}, "it holds 'notes.txt'", id="other-folder"),
    pytest.param(
        folder("attributes.json"), {}, "is an N5 container.*Convert it to Zarr, with tensorstore", id="n5"
    ),
    pytest.param(
        precomputed, {}, "is a precomputed volume of neuroglancer.*Convert it to Zarr, with", id="precomputed"
    ),
    pytest.param(folder("info"), {}, "it holds 'info'", id="folder-with-an-info"),
    pytest.param(
        file(b'{"version": 1, "refs": {}}'), {}, "a reference store of kerchunk.*with xarray", id="kerchunk"
    ),
    pytest.param(file(b"II*\0"), {}, r"is damaged or of a kind of TIFF that is not read", id="tiff"),
    pytest.param(file(b"MM\0+"), {}, "is damaged or of a kind of TIFF that is not read", id="bigtiff"),
    pytest.param(
        file(b"GIF89a"), {}, r"is a GIF image.*zarr.save_array\('a.zarr', skimage.io.imread", id="gif"
    ),
    pytest.param(
        file(b"\x89HDF\r\n\x1a\n"), {}, "is damaged or of a kind that is not read.*Copy it again", id="hdf5"
    ),
    pytest.param(file(b"PK\x03\x04"), {}, "is a zip archive.*damaged or was cut short", id="zip"),
    pytest.param(file(b"hello\n" * 300), {}, "is a text file and no Zarr store", id="text"),
    pytest.param(file(b""), {}, "is an empty file and no Zarr store", id="empty-file"),
    pytest.param(file(b"\xff\x00\xfe"), {}, "is a binary file of unknown kind", id="binary"),
    pytest.param(
        document(b"{not json"),
        {},
        "zarr.json' is damaged: it holds no JSON but begins with '{not",
        id="no-json",
    ),
    pytest.param(document(b"\xff\xfe\x00"), {}, "is damaged: it holds no JSON", id="no-text"),
    pytest.param(document(b"[]"), {}, "is damaged: it holds JSON that is no object", id="json-list"),
    pytest.param(
        document(b"{}"), {}, "is damaged: it describes neither an array nor a group", id="json-empty"
    ),
    pytest.param(document(b"[" * 100_000), {}, "is damaged: it holds no JSON", id="json-depth-bomb"),
    pytest.param(document(b" " * (16 * 2**20 + 1)), {}, "is larger than 16 MiB", id="json-size-bomb"),
    pytest.param(
        changed(shape=None), {}, "damaged: its shape is not a list of whole numbers", id="shape-null"
    ),
    pytest.param(changed(shape=[4, -4]), {}, "its shape is not a list", id="shape-negative"),
    pytest.param(changed(shape=[4, 10**30]), {}, "its shape is not a list", id="shape-huge"),
    pytest.param(
        changed(codecs=[]), {}, r"is damaged or of a kind that Zarr .* does not read", id="no-codecs"
    ),
    pytest.param(
        changed(codecs=[{"name": "x-unknown"}]), {}, "does not read: .*x-unknown", id="unknown-codec"
    ),
    pytest.param(changed(chunk_grid={"name": "odd"}), {}, "is damaged or of a kind", id="unknown-grid"),
    pytest.param(changed(data_type="bfloat16"), {}, "holds bfloat16 values.*--key", id="bfloat16"),
    pytest.param(
        changed(data_type="complex64"), {}, "holds complex64 values, which are no image", id="complex"
    ),
    pytest.param(v2(dtype=[["a", "<i4"]]), {}, "holds structured values", id="structured"),
    pytest.param(v2(dtype="<U5"), {}, "holds <U5 values", id="string"),
    pytest.param(v2(dtype="|O"), {}, r"holds \|O values", id="object"),
    pytest.param(v2(dtype="<M8[ns]"), {}, "values, which are no image", id="dates"),
    pytest.param(
        v2(filters=[{"id": "pickle"}]), {}, "the codec 'pickle', which can run code", id="pickle-filter"
    ),
    pytest.param(v2(compressor={"id": "pickle"}), {}, "the codec 'pickle'", id="pickle-compressor"),
    pytest.param(v2(shape=[4], chunks=[4]), {}, r"has the shape \(4,\), and an image has both", id="1d"),
    pytest.param(v2(chunks=[2**16, 2**16]), {}, "is 4.0 GiB in memory, more than the 2 GiB", id="chunk-bomb"),
    pytest.param(
        array, {"axes": "zyx"}, r"--axes zyx names 3 axes, but .* has 2 dimensions", id="axes-count"
    ),
    pytest.param(array, {"level": 1}, "--level 1 was given, but .* is a single array", id="level-of-array"),
    pytest.param(array, {"key": "b"}, "has no array or group 'b'. Check the key", id="key-in-array"),
    pytest.param(array, {"key": "../b"}, r"'\.\./b' is no path inside a store", id="key-leaves"),
    pytest.param(
        group({}, "raw", "t"), {}, r"holds 2 arrays: raw \(4, 4\) uint8, t .*--key", id="two-arrays"
    ),
    pytest.param(group({}, *"abcdefghij"), {}, r"holds 10 arrays: .* and 2 more\. Choose", id="ten-arrays"),
    pytest.param(
        group({}, "raw"), {"key": "rew"}, r"no array or group 'rew'\. It holds: raw", id="key-misspelt"
    ),
    pytest.param(group({}), {}, "is a Zarr group, but no array was found in it", id="empty-group"),
    pytest.param(
        group({"ome": {"plate": {"wells": [{"path": "B/3"}]}}}),
        {},
        "a plate of wells.*--key B/3/0",
        id="plate",
    ),
    pytest.param(group({"plate": {}}), {}, "is a plate of wells", id="plate-empty"),
    pytest.param(group({"ome": {"well": {}}}), {}, "is a well of a plate.*--key 0", id="well"),
    pytest.param(group({"ome": {"labels": ["cells", "n"]}}), {}, "group of labels.*: cells, n", id="labels"),
    pytest.param(group(multiscales("0"), "0"), {"level": 1}, "has 1 level. Use 0", id="level-1-of-1"),
    pytest.param(
        group(multiscales("0", "1"), "0", "1"),
        {"level": -1},
        r"has 2 levels\. Use 0 .* to 1",
        id="level-negative",
    ),
    pytest.param(
        group(multiscales("0")), {}, "names '0' as level 0, but there is no array", id="level-missing"
    ),
    pytest.param(
        group(multiscales("../0")), {}, r"dataset '\.\./0', which is no path inside", id="ome-traversal"
    ),
    pytest.param(group(multiscales("/etc")), {}, "'/etc', which is no path inside", id="ome-absolute"),
    pytest.param(group(multiscales("a\\..\\b")), {}, "which is no path inside", id="ome-backslash"),
    pytest.param(
        group(multiscales()), {}, "damaged: datasets is not a list of objects", id="ome-no-datasets"
    ),
    pytest.param(group({"multiscales": [1]}), {}, "multiscales is not a list of objects", id="ome-number"),
    pytest.param(
        group(multiscales(**BAD_SCALE), "0"), {}, r"\[1, 0\] is no scale for 2 axes", id="ome-scale-0"
    ),
    pytest.param(group(multiscales(**HUGE_SCALE), "0"), {}, "is no scale for 2 axes", id="ome-scale-huge"),
    pytest.param(
        group(multiscales("0", axes=[{"name": n} for n in "zyx"]), "0"),
        {},
        "names 3 axes, zyx, but the",
        id="ome-axes",
    ),
]


@pytest.mark.parametrize(("make", "options", "message"), REFUSALS)
def test_refusal_is_one_line_that_helps(
    tmp_path: Path, make: Callable[[Path], None], options: dict[str, Any], message: str
) -> None:
    make(tmp_path / "a.zarr")
    with pytest.raises(InputError, match=message) as caught:
        open_source(tmp_path / "a.zarr", **options)
    text = str(caught.value)
    assert "\n" not in text
    assert re.search(r"[.?]$", text)


def test_name_with_a_newline_stays_on_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="There is no") as caught:
        open_source(tmp_path / "a\nb.zarr")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(group({"ome": {"labels": ["a\n\x1b[31m\ud800"]}}), id="labels"),
        pytest.param(group(multiscales("..\n\x1b[31m")), id="dataset"),
        pytest.param(changed(data_type="a\n\x1b[31m"), id="dtype"),
        pytest.param(changed(dimension_names=["y", "a\n\x1b[31m"]), id="dimension"),
    ],
)
def test_metadata_cannot_write_control_characters_to_a_terminal(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    make(tmp_path / "a.zarr")
    with pytest.raises(InputError) as caught:
        open_source(tmp_path / "a.zarr")
    assert str(caught.value).isprintable()


def test_metadata_document_itself_is_not_the_store(tmp_path: Path) -> None:
    array(tmp_path / "a.zarr")
    with pytest.raises(InputError, match=r"Name its folder, .*a\.zarr'"):
        open_source(tmp_path / "a.zarr" / "zarr.json")


def test_damaged_image_metadata_leaves_the_array_readable(tmp_path: Path) -> None:
    group({"multiscales": [1]}, "0")(tmp_path / "a.zarr")
    assert open_source(tmp_path / "a.zarr", key="0", axes="yx").shape == (1, 4, 4)


def mutants(document: dict[str, Any], count: int) -> list[bytes]:
    """Return `document` with one place of its text changed, seeded."""
    rng = np.random.default_rng(3)
    text = json.dumps(document).encode()
    tokens = [b"null", b"-1", b"0", b"[]", b"{}", b'"x"', b"1e999", b"true", b"99999999999999999999", b""]
    found = []
    for _ in range(count):
        start, length = int(rng.integers(len(text))), int(rng.integers(1, 12))
        found.append(text[:start] + tokens[rng.integers(len(tokens))] + text[start + length :])
    return found


def refusal(path: Path) -> str | None:
    """Return what a store is refused with, None if it opens; a foreign error is raised."""
    try:
        source = open_source(path)
        source.read(tuple(slice(0, min(size, 4)) for size in source.shape))
    except InputError as error:
        return str(error)
    return None


@pytest.mark.parametrize("name", ["zarr.json", ".zarray"])
@pytest.mark.filterwarnings("ignore:::zarr")
def test_no_mutant_of_the_metadata_raises_a_foreign_error(tmp_path: Path, name: str) -> None:
    array(tmp_path / "a.zarr", zarr_format=3 if name == "zarr.json" else 2, dimension_names=None)
    document = json.loads((tmp_path / "a.zarr" / name).read_text())
    outcomes: list[str | None] = []
    for text in mutants(document, 300):
        (tmp_path / "a.zarr" / name).write_bytes(text)
        outcomes.append(refusal(tmp_path / "a.zarr"))
    assert len(set(outcomes)) > 5
    assert not any("\n" in outcome for outcome in outcomes if outcome)
