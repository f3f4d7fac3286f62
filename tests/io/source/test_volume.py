"""What a source reads, against numpy."""

from __future__ import annotations

import hashlib
import pickle
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations, permutations
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pytest
import xarray as xr
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unet_dask.errors import DataError, GeometryError, InputError
from unet_dask.io.remote import UnreachableError
from unet_dask.io.source.volume import Source, open_source, read_window

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

SIZES = {"t": 2, "c": 3, "z": 4, "y": 5, "x": 6}
SUBSETS = ["".join(some) + "yx" for count in range(4) for some in combinations("tcz", count)]
ORDERS = ["".join(order) for subset in SUBSETS for order in permutations(subset)]
DTYPES = ["?", "i1", "u1", "<i2", ">i2", "<u2", ">u2", "<i4", ">i4", "<u4", ">u4", "<i8", ">i8", "<u8", ">u8"]
DTYPES += ["<f2", ">f2", "<f4", ">f4", "<f8", ">f8"]
FORMATS: tuple[Literal[2, 3], ...] = (2, 3)


def write(path: Path | str, values: NDArray[Any], **options: Any) -> NDArray[Any]:
    options.setdefault("chunks", tuple(min(2, size) or 1 for size in values.shape))
    array = zarr.create_array(str(path), shape=values.shape, dtype=values.dtype, **options)
    array[...] = values
    return values


def numbers(*shape: int, dtype: str = "u2") -> NDArray[Any]:
    return np.random.default_rng(7).integers(0, 100, shape).astype(dtype)


def whole(source: Source) -> NDArray[Any]:
    return source.read(tuple(slice(0, size) for size in source.shape))


def tree(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        digest.update(str(path.relative_to(folder)).encode() + (path.read_bytes() if path.is_file() else b""))
    return digest.hexdigest()


@pytest.mark.parametrize("stored", ORDERS)
def test_every_order_of_axes_is_read_in_canonical_order(tmp_path: Path, stored: str) -> None:
    values = write(tmp_path / "a.zarr", numbers(*(SIZES[a] for a in stored)), chunks=(6,) * len(stored))
    source = open_source(tmp_path / "a.zarr", axes=stored)
    present = "".join(a for a in "tczyx" if a in stored)
    expected = np.einsum(f"{stored}->{present}", values).reshape(source.shape)
    assert np.array_equal(whole(source), expected)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_window_equals_numpy(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    stored = data.draw(st.sampled_from(ORDERS), label="axes")
    shape = tuple(data.draw(st.integers(1, 6), label=a) for a in stored)
    chunks = tuple(data.draw(st.integers(1, size + 1)) for size in shape)
    count = dict(zip(stored, shape, strict=True)).get("c", 1)
    picks = data.draw(
        st.none() | st.lists(st.integers(0, count - 1), min_size=1, max_size=4), label="channels"
    )
    path = tmp_path_factory.mktemp("source") / "a.zarr"
    values = write(path, numbers(*shape), chunks=chunks)
    source = open_source(path, axes=stored, channels=picks)
    window = tuple(
        slice(*sorted((data.draw(st.integers(0, size)), data.draw(st.integers(0, size)))))
        for size in source.shape
    )
    present = "".join(a for a in "tczyx" if a in stored)
    ordered = np.einsum(f"{stored}->{present}", values)
    if "c" not in stored:
        ordered = np.expand_dims(ordered, source.axes.index("c"))
    if picks is not None:
        ordered = np.take(ordered, picks, axis=source.axes.index("c"))
    assert np.array_equal(source.read(window), ordered[window])


@pytest.mark.parametrize("zarr_format", FORMATS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_arrives_in_native_order(tmp_path: Path, dtype: str, zarr_format: Literal[2, 3]) -> None:
    values = write(tmp_path / "a.zarr", numbers(4, 5).astype(dtype), zarr_format=zarr_format)
    source = open_source(tmp_path / "a.zarr")
    result = whole(source)
    assert result.dtype == source.dtype == values.dtype.newbyteorder("=")
    assert result.dtype.isnative
    assert np.array_equal(result[0], values)


def test_big_endian_codec_of_v3_is_read(tmp_path: Path) -> None:
    values = write(tmp_path / "a.zarr", numbers(4, 5), serializer=zarr.codecs.BytesCodec(endian="big"))
    assert np.array_equal(whole(open_source(tmp_path / "a.zarr"))[0], values)


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"chunks": (2, 2), "shards": (4, 4)}, id="v3-sharded"),
        pytest.param({"zarr_format": 2, "order": "F"}, id="v2-fortran"),
        pytest.param(
            {"zarr_format": 2, "chunk_key_encoding": {"name": "v2", "separator": "/"}}, id="v2-nested"
        ),
        pytest.param({"chunk_key_encoding": {"name": "v2", "separator": "."}}, id="v3-with-v2-keys"),
        pytest.param({"compressors": None}, id="uncompressed"),
        pytest.param({"filters": [zarr.codecs.TransposeCodec(order=(1, 0))]}, id="v3-transpose"),
    ],
)
def test_layouts_are_read(tmp_path: Path, options: dict[str, Any]) -> None:
    values = write(tmp_path / "a.zarr", numbers(9, 7), **options)
    assert np.array_equal(whole(open_source(tmp_path / "a.zarr"))[0], values)


def test_result_is_contiguous(tmp_path: Path) -> None:
    write(tmp_path / "a.zarr", numbers(4, 5, 3))
    assert whole(open_source(tmp_path / "a.zarr", axes="xyc")).flags.c_contiguous


def test_chunks_of_a_sharded_array_are_its_shards(tmp_path: Path) -> None:
    write(tmp_path / "a.zarr", numbers(9, 7), chunks=(2, 2), shards=(4, 6))
    assert open_source(tmp_path / "a.zarr").chunks == (1, 4, 6)


def test_zero_size_is_read_as_nothing(tmp_path: Path) -> None:
    write(tmp_path / "a.zarr", numbers(0, 5))
    source = open_source(tmp_path / "a.zarr")
    assert whole(source).shape == source.shape == (1, 0, 5)


def test_missing_chunks_are_fill_value(tmp_path: Path) -> None:
    zarr.create_array(str(tmp_path / "a.zarr"), shape=(4, 4), chunks=(2, 2), dtype="u1", fill_value=9)
    assert np.array_equal(whole(open_source(tmp_path / "a.zarr")), np.full((1, 4, 4), 9))


@pytest.mark.parametrize(
    "window",
    [
        pytest.param((slice(0, 1), slice(0, 5), slice(0, 5)), id="past-the-end"),
        pytest.param((slice(0, 1), slice(-2, 4), slice(0, 5)), id="negative"),
        pytest.param((slice(0, 1), slice(0, 4, 2), slice(0, 5)), id="step"),
        pytest.param((slice(0, 4), slice(0, 5)), id="too-few"),
    ],
)
def test_windows_are_never_clipped_silently(tmp_path: Path, window: tuple[slice, ...]) -> None:
    write(tmp_path / "a.zarr", numbers(4, 5))
    with pytest.raises(GeometryError, match="window"):
        open_source(tmp_path / "a.zarr").read(window)


@pytest.mark.parametrize("picks", [(0,), (2, 0), (1, 1, 1), (3, 2, 1, 0)], ids=str)
def test_channels_come_in_the_order_asked(tmp_path: Path, picks: tuple[int, ...]) -> None:
    values = write(tmp_path / "a.zarr", numbers(4, 5, 4), chunks=(4, 5, 4))
    source = open_source(tmp_path / "a.zarr", axes="yxc", channels=picks)
    assert np.array_equal(whole(source), values.transpose(2, 0, 1)[list(picks)])


@pytest.mark.parametrize("picks", [(4,), (-1,), ()], ids=str)
def test_channels_out_of_range_are_refused(tmp_path: Path, picks: tuple[int, ...]) -> None:
    write(tmp_path / "a.zarr", numbers(4, 5, 4))
    with pytest.raises(InputError, match=r"has 4 .*--channels with numbers from 0 to 3"):
        open_source(tmp_path / "a.zarr", axes="yxc", channels=picks)


def test_alpha_is_not_dropped_silently(tmp_path: Path) -> None:
    write(tmp_path / "a.zarr", numbers(8, 8, 4))
    assert open_source(tmp_path / "a.zarr", dims=2, network_channels=3).shape == (4, 8, 8)


@pytest.mark.parametrize(
    ("shape", "dims", "channels", "expected"),
    [
        pytest.param((8, 8), 2, 1, "yx", id="2d"),
        pytest.param((9, 8, 8), 2, 1, "zyx", id="stack-for-2d"),
        pytest.param((9, 8, 8), None, None, "zyx", id="stack-without-network"),
        pytest.param((8, 8, 3), 2, 3, "yxc", id="rgb"),
        pytest.param((8, 8, 4), 2, 3, "yxc", id="rgba"),
        pytest.param((8, 8, 3), 3, 1, "zyx", id="thin-volume-for-3d"),
        pytest.param((2, 8, 8), 2, 2, "cyx", id="two-channels-for-2d"),
        pytest.param((2, 9, 8, 8), 3, 2, "czyx", id="two-channels-for-3d"),
    ],
)
def test_axes_are_guessed_where_one_reading_fits(
    tmp_path: Path, shape: tuple[int, ...], dims: int | None, channels: int | None, expected: str
) -> None:
    write(tmp_path / "a.zarr", numbers(*shape))
    source = open_source(tmp_path / "a.zarr", dims=dims, network_channels=channels)
    assert (source.spec.axes, source.origin_of_axes) == (expected, f"guessed from {len(shape)} dimensions")


@pytest.mark.parametrize(
    ("shape", "dims", "channels", "options"),
    [
        pytest.param((8, 8, 3), 2, 1, "--axes yxc or --axes zyx", id="rgb-for-grey"),
        pytest.param((8, 8, 3), None, None, "--axes yxc or --axes zyx", id="rgb-without-network"),
        pytest.param((2, 8, 8, 2), 3, 2, "--axes czyx or --axes zyxc", id="channels-at-both-ends"),
        pytest.param((2, 9, 8, 8), 2, 1, "--axes czyx or --axes zyxc or --axes tzyx", id="4d"),
        pytest.param((1, 2, 3, 8, 8), 2, 1, "--axes tczyx", id="5d"),
        pytest.param((1, 1, 2, 3, 8, 8), 2, 1, "--axes with one letter each", id="6d"),
    ],
)
def test_ambiguous_axes_are_asked_for(
    tmp_path: Path, shape: tuple[int, ...], dims: int | None, channels: int | None, options: str
) -> None:
    write(tmp_path / "a.zarr", numbers(*shape))
    with pytest.raises(InputError, match=f"does not say what they are. Say it with {options}"):
        open_source(tmp_path / "a.zarr", dims=dims, network_channels=channels)


def test_dimension_names_give_the_axes(tmp_path: Path) -> None:
    write(tmp_path / "a.zarr", numbers(3, 4, 5), dimension_names=("channel", "x", "y"))
    source = open_source(tmp_path / "a.zarr")
    assert (source.spec.axes, source.origin_of_axes) == ("cxy", "dimension_names")


def test_axes_given_override_dimension_names(tmp_path: Path) -> None:
    write(tmp_path / "a.zarr", numbers(3, 4, 5), dimension_names=("channel", "x", "y"))
    assert open_source(tmp_path / "a.zarr", axes="zyx").origin_of_axes == "--axes"


@pytest.mark.parametrize("zarr_format", FORMATS)
def test_xarray_store_opens_at_its_data_variable(tmp_path: Path, zarr_format: Literal[2, 3]) -> None:
    image = xr.Dataset(
        {"image": (("time", "y", "x"), numbers(2, 4, 5))},
        coords={"y": np.arange(4.0), "x": np.arange(5.0), "lon": (("y", "x"), numbers(4, 5)), "crs": 0},
    )
    image.to_zarr(tmp_path / "a.zarr", zarr_format=zarr_format, consolidated=False)
    source = open_source(tmp_path / "a.zarr")
    assert (source.spec.key, source.spec.axes) == ("image", "tyx")
    assert np.array_equal(whole(source)[:, 0], image["image"].to_numpy())


def test_group_with_one_array_opens_at_it(tmp_path: Path) -> None:
    write(tmp_path / "a.zarr", numbers(4, 5), name="volumes/raw")
    assert open_source(tmp_path / "a.zarr").spec.key == "volumes/raw"


@pytest.mark.parametrize(
    ("inside", "key"),
    [
        pytest.param("", "volumes/raw", id="key"),
        pytest.param("volumes/raw", None, id="path-into-store"),
        pytest.param("volumes", "raw", id="both"),
        pytest.param("volumes/../volumes/raw/", None, id="dots-and-slash"),
    ],
)
def test_ways_to_name_an_array_are_one_spec(tmp_path: Path, inside: str, key: str | None) -> None:
    write(tmp_path / "a.zarr", numbers(4, 5), name="volumes/raw")
    write(tmp_path / "a.zarr", numbers(4, 5), name="volumes/other")
    source = open_source(f"{tmp_path}/a.zarr/{inside}", key=key)
    assert (source.spec.url, source.spec.key) == (str(tmp_path / "a.zarr"), "volumes/raw")


def test_spec_reads_the_same_after_pickling(tmp_path: Path) -> None:
    write(tmp_path / "a.zarr", numbers(4, 5))
    source = open_source(tmp_path / "a.zarr")
    window = (slice(0, 1), slice(1, 3), slice(0, 5))
    again = pickle.loads(pickle.dumps(source.spec))
    assert again == source.spec
    assert hash(again) == hash(source.spec)
    assert np.array_equal(read_window(again, window), source.read(window))


def test_threads_read_the_same(tmp_path: Path) -> None:
    values = write(tmp_path / "a.zarr", numbers(32, 8))
    source = open_source(tmp_path / "a.zarr")
    with ThreadPoolExecutor(4) as pool:
        rows = list(pool.map(lambda y: source.read((slice(0, 1), slice(y, y + 1), slice(0, 8))), range(32)))
    assert np.array_equal(np.concatenate(rows, axis=1)[0], values)


def test_reading_changes_nothing_in_the_store(tmp_path: Path) -> None:
    write(tmp_path / "a.zarr", numbers(4, 5))
    before = tree(tmp_path)
    source = open_source(tmp_path / "a.zarr")
    whole(source)
    source.identity()
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, id="v3-zstd"),
        pytest.param({"zarr_format": 2}, id="v2-zstd"),
        pytest.param({"compressors": zarr.codecs.GzipCodec()}, id="gzip"),
        pytest.param({"compressors": zarr.codecs.BloscCodec()}, id="blosc"),
        pytest.param({"compressors": None}, id="raw"),
        pytest.param({"chunks": (2, 2), "shards": (8, 8)}, id="shard"),
    ],
)
@pytest.mark.parametrize("keep", [0, 5], ids=["empty", "truncated"])
def test_damaged_chunk_names_array_and_window(tmp_path: Path, options: dict[str, Any], keep: int) -> None:
    write(tmp_path / "a.zarr", numbers(8, 8) + 1, **{"chunks": (8, 8), **options})
    source = open_source(tmp_path / "a.zarr")
    chunk = max((p for p in (tmp_path / "a.zarr").rglob("*") if p.is_file() and "z" not in p.name), key=str)
    chunk.write_bytes(chunk.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"a\.zarr'") as caught:
        whole(source)
    assert "\n" not in str(caught.value)


def test_store_that_vanished_is_no_fill_value(tmp_path: Path) -> None:
    write(tmp_path / "a.zarr", numbers(4, 4))
    source = open_source(tmp_path / "a.zarr")
    whole(source)
    (tmp_path / "a.zarr").rename(tmp_path / "away")
    with pytest.raises(UnreachableError, match=r"no longer there.*mounted"):
        whole(source)


def test_replaced_array_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.zarr", numbers(4, 4))
    source = open_source(tmp_path / "a.zarr")
    write(tmp_path / "a.zarr", numbers(4, 6), overwrite=True)
    with pytest.raises(DataError, match="was replaced since it was opened"):
        whole(source)


def test_errors_survive_pickling() -> None:
    error = pickle.loads(pickle.dumps(UnreachableError("gone")))
    assert (type(error), str(error), error.exit_code) == (UnreachableError, "gone", 2)
