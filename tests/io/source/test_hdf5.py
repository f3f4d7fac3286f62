"""HDF5: data sets of plantseg and ilastik, volumes of BigDataViewer and Imaris, as h5py itself reads them."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.written import noise
from unet_dask.errors import InputError
from unet_dask.io.source import extras
from unet_dask.io.source.volume import levels, open_source, read_window

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from unet_dask.io.source.volume import Source

h5py = pytest.importorskip("h5py")
DATA = Path(__file__).parents[4] / "shared" / "data" / "plantseg_ovule"


def whole(source: Source) -> NDArray[Any]:
    spec = pickle.loads(pickle.dumps(source.spec))
    return read_window(spec, tuple(slice(0, size) for size in source.shape))


@pytest.mark.skipif(not DATA.exists(), reason="the real images are not here")
@pytest.mark.parametrize("name", ["1135_mini", "sample_ovule"])
def test_an_ovule_is_read_as_h5py_reads_it(name: str) -> None:
    path = DATA / f"{name}.h5"
    with pytest.raises(InputError, match=r"holds 2 data sets: label \(.*raw \(.*--key"):
        open_source(path)
    source = open_source(path, key="raw")
    with h5py.File(path) as file:
        expected, sizes = file["raw"][...], file["raw"].attrs["element_size_um"]
        chunk = file["raw"].chunks
    np.testing.assert_array_equal(whole(source)[0], expected)
    assert source.axes == "czyx"
    assert [source.spacing[axis] for axis in "zyx"] == pytest.approx(list(sizes))
    assert set(source.unit.values()) == {"micrometer"}
    assert (source.chunks[1:], source.decoding.chunk_bytes, source.decoding.copies) == (
        chunk,
        int(np.prod(chunk)),
        3,
    )
    np.testing.assert_array_equal(whole(open_source(path / "raw")), whole(source))


def test_axistags_of_ilastik_name_the_axes(tmp_path: Path) -> None:
    values = noise((3, 20, 24, 2), "uint16")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        made = file.create_dataset("exported_data", data=values, chunks=(2, 10, 12, 2))
        entries = [
            {"key": key, "typeFlags": 2, "resolution": size}
            for key, size in zip("zyxc", (4, 2, 2, 0), strict=True)
        ]
        made.attrs["axistags"] = json.dumps({"axes": entries})
    source = open_source(tmp_path / "a.h5")
    assert (source.axes, source.shape, source.spacing) == ("czyx", (2, 3, 20, 24), {"z": 4, "y": 2, "x": 2})
    np.testing.assert_array_equal(whole(source), np.moveaxis(values, -1, 0))


def test_labels_of_dimensions_and_the_resolution_of_cremi_are_kept(tmp_path: Path) -> None:
    values = noise((4, 20, 24), "uint8")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        made = file.create_dataset("volumes/raw", data=values)
        made.attrs["resolution"], made.attrs["offset"] = (40.0, 4.0, 4.0), (80.0, 8.0, 0.0)
        for dimension, name in zip(made.dims, "zyx", strict=True):
            dimension.label = name
    source = open_source(tmp_path / "a.h5")
    assert (source.spec.key, source.spacing, source.unit["x"]) == (
        "volumes/raw",
        {"z": 40, "y": 4, "x": 4},
        "nanometer",
    )
    assert source.translation == {"z": 80, "y": 8, "x": 0}
    np.testing.assert_array_equal(whole(source)[0], values)


XML = """<SpimData version="0.2"><SequenceDescription><ViewSetups>
<ViewSetup><id>0</id><size>24 20 8</size><voxelSize><unit>\u00b5m</unit><size>0.5 0.5 2.0</size></voxelSize>
<attributes><channel>0</channel><angle>0</angle></attributes></ViewSetup>
<ViewSetup><id>1</id><size>24 20 8</size><voxelSize><unit>\u00b5m</unit><size>0.5 0.5 2.0</size></voxelSize>
<attributes><channel>1</channel><angle>ANGLE</angle></attributes></ViewSetup>
<Attributes name="channel"><Channel><id>0</id><name>DAPI</name></Channel><Channel><id>1</id><name>GFP</name></Channel>
</Attributes></ViewSetups></SequenceDescription></SpimData>"""


def bdv(path: Path) -> NDArray[Any]:
    """Write two timepoints of two setups with two levels; return what is meant, along t, c, z, y, x."""
    values = np.random.default_rng(0).integers(0, 65536, (2, 2, 8, 20, 24), np.uint16)
    with h5py.File(path, "w") as file:
        for setup in (0, 1):
            file[f"s{setup:02}/resolutions"] = np.array([[1.0, 1, 1], [2, 2, 1]])
            file[f"s{setup:02}/subdivisions"] = np.array([[16, 16, 4], [8, 8, 4]])
        for time, setup in np.ndindex(2, 2):
            for level, step in enumerate((1, 2)):
                part = values[time, setup, :, ::step, ::step].view(np.int16)
                name = f"t{time:05}/s{setup:02}/{level}/cells"
                file.create_dataset(name, data=part, chunks=(4, 8, 8), compression="gzip")
    return values


def test_setups_of_bigdataviewer_that_are_channels_are_one_image(tmp_path: Path) -> None:
    values = bdv(tmp_path / "a.h5")
    (tmp_path / "a.xml").write_text(XML.replace("ANGLE", "0"), "utf-8")
    source = open_source(tmp_path / "a.h5")
    assert (source.axes, source.shape, source.dtype) == ("tczyx", values.shape, np.dtype(np.uint16))
    assert source.channel_names == ("DAPI", "GFP")
    np.testing.assert_array_equal(whole(source), values)
    np.testing.assert_array_equal(
        read_window(source.spec, (slice(1, 2), slice(0, 2), slice(3, 7), slice(5, 19), slice(2, 23))),
        values[1:2, :, 3:7, 5:19, 2:23],
    )
    fine, coarse = levels(source)
    assert [each.spacing[axis] for each in (fine, coarse) for axis in "zyx"] == [2, 0.5, 0.5, 2, 1, 1]
    assert {fine.unit[axis] for axis in "zyx"} == {"micrometer"}
    np.testing.assert_array_equal(whole(coarse), values[..., ::2, ::2])


def test_setups_that_are_views_are_chosen_by_name(tmp_path: Path) -> None:
    values = bdv(tmp_path / "a.h5")
    (tmp_path / "a.xml").write_text(XML.replace("ANGLE", "1"), "utf-8")
    with pytest.raises(InputError, match=r"2 setups \(views\): s00, s01. Choose one with --key"):
        open_source(tmp_path / "a.h5")
    source = open_source(tmp_path / "a.h5", key="s01", level=1)
    assert (source.axes, source.spec.key, source.level) == ("tczyx", "s01/1", 1)
    np.testing.assert_array_equal(whole(source)[:, 0], values[:, 1, :, ::2, ::2])
    (tmp_path / "a.xml").unlink()
    alone = open_source(tmp_path / "a.h5", key="s00")
    assert set(alone.unit.values()) == {None}
    np.testing.assert_array_equal(whole(alone)[:, 0], values[:, 0])


def test_an_imaris_file_is_read_without_its_padding(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 255, (2, 6, 20, 24), np.uint8)

    def letters(text: str) -> NDArray[Any]:
        return np.array(list(text), "S1")

    with h5py.File(tmp_path / "a.ims", "w") as file:
        image = file.create_group("DataSetInfo/Image")
        for number, size in enumerate((12.0, 10.0, 12.0)):
            image.attrs[f"ExtMin{number}"], image.attrs[f"ExtMax{number}"] = letters("0"), letters(str(size))
        image.attrs["Unit"] = letters("um")
        for channel in (0, 1):
            file.create_group(f"DataSetInfo/Channel {channel}").attrs["Name"] = letters(f"dye {channel}")
            for level, step in enumerate((1, 2)):
                part = values[channel, :, ::step, ::step]
                group = file.create_group(f"DataSet/ResolutionLevel {level}/TimePoint 0/Channel {channel}")
                for axis, size in zip("ZYX", part.shape, strict=True):
                    group.attrs[f"ImageSize{axis}"] = letters(str(size))
                padded = np.zeros((8, 32, 32), np.uint8)
                padded[: part.shape[0], : part.shape[1], : part.shape[2]] = part
                group.create_dataset("Data", data=padded, chunks=(4, 16, 16), compression="gzip")
    source = open_source(tmp_path / "a.ims")
    assert (source.axes, source.shape) == ("czyx", values.shape)
    assert (source.channel_names, source.spacing) == (("dye 0", "dye 1"), {"z": 2.0, "y": 0.5, "x": 0.5})
    np.testing.assert_array_equal(whole(source), values)
    coarse = open_source(tmp_path / "a.ims", level=1)
    assert coarse.spacing == {"z": 2.0, "y": 1.0, "x": 1.0}
    np.testing.assert_array_equal(whole(coarse), values[..., ::2, ::2])


def test_values_that_lie_in_other_files_are_refused(tmp_path: Path) -> None:
    bdv(tmp_path / "a.h5")
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["link"] = h5py.ExternalLink("a.h5", "/t00000/s00/0/cells")
        file.create_dataset("out", (4, 4), np.uint8, external=[(str(tmp_path / "raw"), 0, 16)])
    with pytest.raises(InputError, match=r"'out' of .*b.h5' lie in other files"):
        open_source(tmp_path / "b.h5")
    with pytest.raises(InputError, match="no data set 'link'"):
        open_source(tmp_path / "b.h5", key="link")


def test_a_file_that_is_cut_short_and_a_missing_library_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bdv(tmp_path / "a.h5")
    (tmp_path / "b.h5").write_bytes((tmp_path / "a.h5").read_bytes()[:2000])
    with pytest.raises(InputError, match="damaged or of a kind that is not read"):
        open_source(tmp_path / "b.h5")

    def absent(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(extras, "import_module", absent)
    with pytest.raises(InputError, match=r"pip install 'unet-dask\[hdf5\]'"):
        open_source(tmp_path / "a.h5")
