"""An image of any format, converted: the same values, sizes, names; stopped, it goes on; a lost bit is found."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pytest
import tifffile
import zarr
from ome_zarr_models import open_ome_zarr

from tests.conftest import SCRIPT
from tests.torture.bench import content
from tests.written import SIZE, SIZED, WRITERS, noise, write_all
from unet_dask.conversion import layout
from unet_dask.conversion.convert import convert
from unet_dask.conversion.journal import NAME
from unet_dask.conversion.place import partial_of
from unet_dask.errors import DataError, MismatchError, OptionError, SinkError
from unet_dask.info import describe, lines
from unet_dask.io.source.volume import open_source
from unet_dask.io.source.window import read_window
from unet_dask.pipeline import segment_store

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from unet_dask.workers.cluster import Cluster

IMAGE = noise((150, 190))


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let small images have many shards and several levels."""
    monkeypatch.setattr(layout, "_FLAT", 16)
    monkeypatch.setattr(layout, "_DEEP", 8)
    monkeypatch.setattr(layout, "_PLANES", 2)
    monkeypatch.setattr("unet_dask.io.sink.multiscale._COARSEST", 40)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_all(tmp_path_factory.mktemp("images"), IMAGE)


def level(path: Path, number: int) -> NDArray[Any]:
    return np.asarray(zarr.open_array(path, path=str(number), mode="r")[...])


@pytest.mark.parametrize("name", WRITERS)
def test_values_and_sizes_are_those_of_every_format(
    written: dict[str, Path], tmp_path: Path, name: str
) -> None:
    made = convert(written[name], tmp_path / "c.ome.zarr")
    assert (made.axes, made.shape, made.levels) == ("yx", IMAGE.shape, 4)
    found = open_source(made.path)
    np.testing.assert_array_equal(level(made.path, 0), IMAGE)
    coarse = IMAGE[:150, :190].reshape(75, 2, 95, 2).mean(axis=(1, 3))
    np.testing.assert_array_equal(level(made.path, 1), np.rint(coarse).astype("u1"))
    assert (found.spacing, found.unit) == ((before := open_source(written[name])).spacing, before.unit)
    if name in SIZED:
        metres = 1e-9 if found.unit["y"] == "nanometer" else 1e-6
        assert found.spacing["y"] * metres == pytest.approx(SIZE * 1e-6)
    open_ome_zarr(zarr.open_group(made.path, mode="r"))  # raises if it is none
    assert [each.name for each in tmp_path.iterdir()] == ["c.ome.zarr"]


def test_a_converted_image_is_segmented_as_the_one_it_was(
    written: dict[str, Path], tmp_path: Path, tiny_model: Path, cluster: Cluster
) -> None:
    made = convert(written["imagej.tif"], tmp_path / "c.ome.zarr").path
    for source, sink in ((made, "a.zarr"), (written["imagej.tif"], "b.zarr")):
        segment_store(source, tmp_path / sink, tiny_model, client=cluster.client, memory="1GiB")
    one, other = (level(tmp_path / sink / "classes", 0) for sink in ("a.zarr", "b.zarr"))
    np.testing.assert_array_equal(one, other)


def test_a_converted_image_is_said_to_be_an_image(written: dict[str, Path], tmp_path: Path) -> None:
    made = convert(written["ome.ome.tif"], tmp_path / "c.ome.zarr")
    said = dict(lines(describe(str(made.path))))
    assert "150 x 190" in " ".join(said.values())
    assert "result" not in said


def test_a_volume_of_channels_keeps_axes_names_and_depth(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 4000, (3, 7, 50, 60)).astype(np.uint16)
    metadata = {
        "axes": "CZYX",
        "Channel": {"Name": ["DAPI", "GFP", "actin"]},
        "PhysicalSizeZ": 1.5,
        "PhysicalSizeY": 0.5,
        "PhysicalSizeX": 0.5,
    }
    tifffile.imwrite(tmp_path / "v.ome.tif", values, ome=True, metadata=metadata)
    made = convert(tmp_path / "v.ome.tif", tmp_path / "v.ome.zarr")
    found = open_source(made.path)
    assert (found.axes, found.channel_names) == ("czyx", ("DAPI", "GFP", "actin"))
    assert found.spacing == {"z": 1.5, "y": 0.5, "x": 0.5}
    np.testing.assert_array_equal(level(made.path, 0), values)
    assert level(made.path, 1).shape == (3, 7, 25, 30)
    only = convert(tmp_path / "v.ome.tif", tmp_path / "g.ome.zarr", channels=["GFP"])
    np.testing.assert_array_equal(level(only.path, 0), values[1:2])
    window = json.loads((only.path / "zarr.json").read_text())["attributes"]["ome"]["omero"]["channels"][0]
    assert (window["label"], window["window"]["min"], window["window"]["max"]) == ("GFP", 0, 65535)


def test_floats_and_signed_numbers_are_kept_to_the_bit(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(5, 33, 47)).astype(np.float64)
    values[2, 3, 4] = np.nan
    with h5py.File(tmp_path / "v.h5", "w") as file:
        file.create_dataset("raw", data=values)
        file.create_dataset("signed", data=(values * 1000)[:2].astype("<i2"))
    made = convert(tmp_path / "v.h5", tmp_path / "f.ome.zarr", key="raw", axes="zyx")
    np.testing.assert_array_equal(level(made.path, 0), values)
    made = convert(tmp_path / "v.h5", tmp_path / "i.ome.zarr", key="signed", axes="zyx")
    np.testing.assert_array_equal(level(made.path, 0), (values * 1000)[:2].astype("i2"))


@pytest.mark.parametrize("after", [1, 5, 13, 20, 30])
def test_stopped_anywhere_it_goes_on_to_the_same_bytes(
    written: dict[str, Path], tmp_path: Path, after: int
) -> None:
    source = written["plain.tif"]
    whole = convert(source, tmp_path / "whole.ome.zarr")

    def stop(done: int, total: int) -> None:
        if done == after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(source, tmp_path / "c.ome.zarr", on_shard=stop, workers=3)
    assert not (tmp_path / "c.ome.zarr").exists()
    with pytest.raises(SinkError, match=r"was stopped\. Go on with --resume"):
        convert(source, tmp_path / "c.ome.zarr")
    entered = (partial_of(tmp_path / "c.ome.zarr") / NAME).read_text().count('"digest"')
    made = convert(source, tmp_path / "c.ome.zarr", resume=True)
    assert content(made.path) == content(whole.path)
    assert made.shards == whole.shards - entered


def test_killed_it_goes_on_to_the_same_bytes(written: dict[str, Path], tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 255, (6000, 6000)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "big.tif", values, tile=(256, 256))
    command = [
        SCRIPT,
        "convert",
        str(tmp_path / "big.tif"),
        str(tmp_path / "c.ome.zarr"),
        "-q",
        "--workers",
        "1",
    ]
    process = subprocess.Popen(command)
    journal = partial_of(tmp_path / "c.ome.zarr") / NAME
    while process.poll() is None and (not journal.exists() or journal.read_bytes().count(b"\n") < 3):
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "c.ome.zarr").exists()
    subprocess.run([*command, "--resume"], check=True)
    np.testing.assert_array_equal(level(tmp_path / "c.ome.zarr", 0), values)
    assert not partial_of(tmp_path / "c.ome.zarr").exists()


def stopped(source: Path, target: Path, after: int, **more: Any) -> None:
    """Stop a conversion when so many shards are done."""

    def stop(done: int, total: int) -> None:
        if done == after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(source, target, on_shard=stop, workers=1, **more)


def test_what_was_lost_on_the_disk_is_found_and_written_again(
    written: dict[str, Path], tmp_path: Path
) -> None:
    source, target = written["plain.tif"], tmp_path / "c.ome.zarr"
    whole = convert(source, tmp_path / "whole.ome.zarr")
    stopped(source, target, 15)
    shard = partial_of(target) / "0" / "c" / "0" / "1"
    other = partial_of(target) / "0" / "c" / "1" / "0"
    shutil.copyfile(other, shard)
    with pytest.raises(DataError, match=r"1 parts of .* do not hold what was written there"):
        convert(source, target, resume=True)
    shard.write_bytes(b"torn")  # and it is not in the journal any more, as after a power cut
    made = convert(source, target, resume=True)
    assert content(made.path) == content(whole.path)


def test_another_image_is_not_gone_on_with(written: dict[str, Path], tmp_path: Path) -> None:
    target = tmp_path / "c.ome.zarr"
    stopped(written["plain.tif"], target, 5)
    with pytest.raises(MismatchError, match="begun with another source"):
        convert(written["picture.png"], target, resume=True)
    made = convert(written["picture.png"], target, overwrite=True)
    np.testing.assert_array_equal(level(made.path, 0), IMAGE)


def test_an_image_that_changes_meanwhile_is_refused(written: dict[str, Path], tmp_path: Path) -> None:
    source = shutil.copyfile(written["plain.tif"], tmp_path / "a.tif")

    def change(done: int, total: int) -> None:
        if done == total:
            tifffile.imwrite(source, IMAGE[::-1], metadata=None)

    with pytest.raises(DataError, match="has changed"):
        convert(source, tmp_path / "c.ome.zarr", on_shard=change)
    assert not (tmp_path / "c.ome.zarr").exists()


def test_two_do_not_write_one_image(written: dict[str, Path], tmp_path: Path) -> None:
    source, target = written["plain.tif"], tmp_path / "c.ome.zarr"

    def again(done: int, total: int) -> None:
        if done == 3:
            with pytest.raises(SinkError, match="Another conversion writes"):
                convert(source, target, resume=True)

    convert(source, target, on_shard=again)


@pytest.mark.parametrize(
    ("output", "flags", "error", "says"),
    [
        ("s3://bucket/c.ome.zarr", {}, OptionError, "is a URL"),
        ("c.tif", {}, OptionError, r"ends in \.ome\.zarr"),
        ("mine.ome.zarr", {}, SinkError, "exists already"),
        ("theirs.ome.zarr", {"overwrite": True}, SinkError, "is not replaced"),
        ("c.ome.zarr", {"resume": True}, OptionError, "no stopped conversion"),
        ("no/c.ome.zarr", {}, SinkError, "cannot be written"),
        ("source.zarr/in.ome.zarr", {}, OptionError, "would lie in the image"),
    ],
)
def test_places_that_cannot_be_are_refused(
    written: dict[str, Path], tmp_path: Path, output: str, flags: Any, error: type[Exception], says: str
) -> None:
    source = shutil.copytree(written["plain.zarr"], tmp_path / "source.zarr")
    convert(source, tmp_path / "mine.ome.zarr")
    theirs = shutil.copytree(written["ome5.ome.zarr"], tmp_path / "theirs.ome.zarr")
    before = content(theirs)
    with pytest.raises(error, match=says):
        convert(source, output if "://" in output else tmp_path / output, **flags)
    assert content(theirs) == before


def test_ours_is_replaced_if_asked(written: dict[str, Path], tmp_path: Path) -> None:
    target = tmp_path / "c.ome.zarr"
    convert(written["plain.tif"], target)
    tifffile.imwrite(tmp_path / "b.tif", IMAGE[:50])
    convert(tmp_path / "b.tif", target, overwrite=True)
    np.testing.assert_array_equal(level(target, 0), IMAGE[:50])
    assert sorted(each.name for each in tmp_path.iterdir()) == ["b.tif", "c.ome.zarr"]


def test_the_command_says_what_it_wrote(
    written: dict[str, Path], tmp_path: Path, call_cli: Callable[..., Any]
) -> None:
    outcome = call_cli("convert", written["ome.ome.tif"], tmp_path / "c.ome.zarr", "--json", "-q")
    said = json.loads(outcome.stdout)
    assert (outcome.code, said["shape"], said["dtype"]) == (0, [150, 190], "uint8")
    outcome = call_cli("convert", written["ome.ome.tif"], tmp_path / "c.ome.zarr")
    assert (outcome.code, len(outcome.stderr.strip().splitlines())) == (2, 1)


def test_few_shards_are_in_memory_at_a_time(
    written: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, most = [0], [0]
    read = read_window

    def counted(*arguments: Any, **named: Any) -> Any:
        here[0] += 1
        most[0] = max(most[0], here[0])
        try:
            return read(*arguments, **named)
        finally:
            here[0] -= 1

    monkeypatch.setattr("unet_dask.conversion.convert.read_window", counted)
    convert(written["plain.tif"], tmp_path / "c.ome.zarr", workers=2)
    assert most[0] <= 2
