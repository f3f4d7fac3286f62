from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import imageio.v3
import numpy as np
import pytest
import tifffile
import zarr

from unet_dask.errors import InputError
from unet_dask.io.images.annotated import read_annotated

if TYPE_CHECKING:
    from numpy.typing import NDArray

SHARED = Path(__file__).parents[4] / "shared" / "data"
needs_data = pytest.mark.skipif(not SHARED.is_dir(), reason="the shared images are not here")


def grey(*shape: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 200, shape, dtype=np.uint8)


def write(path: Path, array: NDArray[np.generic], **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix.lower() == ".png":
        imageio.v3.imwrite(path, array)
    else:
        tifffile.imwrite(path, array, **({"photometric": "minisblack"} | options))
    return path


def folder(path: Path, names: str) -> Path:
    """Write a folder of small images."""
    for index, name in enumerate(names.split()):
        write(path / name, grey(6, 8, seed=index))
    return path


def test_stack_is_many_images_for_a_flat_network(tmp_path: Path) -> None:
    images, targets = grey(3, 6, 8), grey(3, 6, 8, seed=1)
    found = read_annotated(write(tmp_path / "i.tif", images), write(tmp_path / "t.tif", targets))
    assert [each.name for each in found] == ["i.tif[0]", "i.tif[1]", "i.tif[2]"]
    np.testing.assert_array_equal(found[1].image, images[1:2])
    np.testing.assert_array_equal(found[1].target, targets[1])


def test_stack_is_one_volume_for_a_deep_network(tmp_path: Path) -> None:
    images = grey(5, 6, 8)
    paths = write(tmp_path / "i.tif", images), write(tmp_path / "t.tif", images)
    (found,) = read_annotated(*paths, dims=3)
    np.testing.assert_array_equal(found.image, images[np.newaxis])


def test_colour_comes_channel_first_without_alpha(tmp_path: Path) -> None:
    colour = grey(6, 8, 4)
    image = write(tmp_path / "i.png", colour)
    (found,) = read_annotated(image, write(tmp_path / "t.png", grey(6, 8)))
    np.testing.assert_array_equal(found.image, np.moveaxis(colour[..., :3], -1, 0))


def test_colour_tiff_comes_channel_first(tmp_path: Path) -> None:
    colour = grey(6, 8, 3)
    image = write(tmp_path / "i.tif", colour, photometric="rgb")
    (found,) = read_annotated(image, write(tmp_path / "t.tif", grey(6, 8)))
    np.testing.assert_array_equal(found.image, np.moveaxis(colour, -1, 0))


def test_grey_stored_as_colour_is_grey(tmp_path: Path) -> None:
    plane = grey(6, 8)
    write(tmp_path / "i" / "a.png", np.stack([plane] * 3, axis=-1))
    write(tmp_path / "i" / "b.tif", plane)
    found = read_annotated(tmp_path / "i", folder(tmp_path / "t", "a.png b.png"))
    assert [each.image.shape for each in found] == [(1, 6, 8), (1, 6, 8)]


def test_named_channels_stay_all_four(tmp_path: Path) -> None:
    channels = grey(4, 6, 8)
    image = write(tmp_path / "i.tif", channels, imagej=True, metadata={"axes": "CYX"})
    (found,) = read_annotated(image, write(tmp_path / "t.tif", grey(6, 8)))
    np.testing.assert_array_equal(found.image, channels)


def test_imagej_spacing_is_read(tmp_path: Path) -> None:
    options = {"imagej": True, "resolution": (4.0, 2.0), "metadata": {"unit": "micron", "axes": "YX"}}
    image = write(tmp_path / "i.tif", grey(6, 8), **options)
    (found,) = read_annotated(image, write(tmp_path / "t.tif", grey(6, 8)))
    assert found.spacing == (0.5, 0.25)
    assert found.unit == "micrometer"


def test_dots_per_inch_are_no_spacing(tmp_path: Path) -> None:
    image = write(tmp_path / "i.tif", grey(6, 8), resolution=(72, 72), resolutionunit="INCH")
    (found,) = read_annotated(image, write(tmp_path / "t.tif", grey(6, 8)))
    assert found.spacing is None


def test_zarr_array_is_a_stack(tmp_path: Path) -> None:
    images = grey(2, 6, 8)
    zarr.create_array(tmp_path / "i.zarr", data=images)
    zarr.create_array(tmp_path / "t.zarr", data=images > 99)
    found = read_annotated(tmp_path / "i.zarr", tmp_path / "t.zarr")
    np.testing.assert_array_equal(found[1].image, images[1:])
    np.testing.assert_array_equal(found[1].target, images[1] > 99)


def test_zarr_dimension_names_tell_channels(tmp_path: Path) -> None:
    group = zarr.open_group(tmp_path / "g.zarr", mode="w")
    images = grey(2, 6, 8)
    group.create_array("raw", data=images, dimension_names=["c", "y", "x"])
    group.create_array("cells", data=images[0], dimension_names=["y", "x"])
    store = tmp_path / "g.zarr"
    (found,) = read_annotated(store, store, image_key="raw", target_key="cells")
    np.testing.assert_array_equal(found.image, images)


def test_zarr_group_without_key_is_named(tmp_path: Path) -> None:
    zarr.open_group(tmp_path / "g.zarr", mode="w")
    with pytest.raises(InputError, match=r"g\.zarr.* is a Zarr group, but no array was found in it"):
        read_annotated(tmp_path / "g.zarr", tmp_path / "g.zarr")


@pytest.mark.parametrize(
    ("images", "targets", "pairs"),
    [
        pytest.param("b.tif a.tif", "a.png b.png", ["a.tif a.png", "b.tif b.png"], id="names"),
        pytest.param(
            "t001.tif t010.tif", "man_seg010.tif man_seg001.tif",
            ["t001.tif man_seg001.tif", "t010.tif man_seg010.tif"], id="numbers-cell-tracking-challenge",
        ),
        pytest.param(
            "wt.tif wt_2.tif wt_2_b.tif", "wt-seg.tif wt_2-seg.tif wt_2_b-seg.tif",
            ["wt.tif wt-seg.tif", "wt_2.tif wt_2-seg.tif", "wt_2_b.tif wt_2_b-seg.tif"], id="suffix",
        ),
        pytest.param(
            "raw_a.TIF raw_b.tif", "label_b.png label_a.PNG",
            ["raw_a.TIF label_a.PNG", "raw_b.tif label_b.png"], id="a-prefix-on-either-side",
        ),
        pytest.param("e\u0301.tif f.tif", "f.png \u00e9.png", ["e\u0301.tif \u00e9.png", "f.tif f.png"], id="accents"),
        pytest.param("t1.tif t10.tif t2.tif", "m002.tif m010.tif m001.tif",
            ["t1.tif m001.tif", "t10.tif m010.tif", "t2.tif m002.tif"], id="numbers-with-zeros"),
        pytest.param("a.ome.tif b.ome.tif", "a.tif b.tif", ["a.ome.tif a.tif", "b.ome.tif b.tif"], id="ome"),
    ],
)  # fmt: skip
def test_folders_pair(tmp_path: Path, images: str, targets: str, pairs: list[str]) -> None:
    found = read_annotated(folder(tmp_path / "i", images), folder(tmp_path / "t", targets))
    assert [" ".join(name for name, _ in each.files) for each in found] == pairs


@pytest.mark.parametrize(
    ("images", "targets", "message"),
    [
        pytest.param("a.tif b.tif", "a.tif", r"b\.tif in i has no target in t", id="no-target"),
        pytest.param("t1.tif", "s1.tif s2.tif", r"s2\.tif in t has no image in i", id="no-image"),
        pytest.param("x.tif y.tif", "p.tif", "holds 2 images and .* 1 targets", id="counts"),
    ],
)
def test_what_does_not_pair_is_named(tmp_path: Path, images: str, targets: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read_annotated(folder(tmp_path / "i", images), folder(tmp_path / "t", targets))
    assert "\n" not in str(caught.value)


def test_folder_and_file_do_not_pair(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="one is a folder of images and the other a single file"):
        read_annotated(folder(tmp_path / "i", "a.tif"), write(tmp_path / "t.tif", grey(6, 8)))


def test_empty_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "i").mkdir()
    with pytest.raises(InputError, match="holds no image"):
        read_annotated(tmp_path / "i", folder(tmp_path / "t", "a.tif"))


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"There is no .*nowhere\.tif"):
        read_annotated(tmp_path / "nowhere.tif", tmp_path / "nowhere.tif")


def test_other_sizes_are_named(tmp_path: Path) -> None:
    paths = write(tmp_path / "i.tif", grey(6, 8)), write(tmp_path / "t.tif", grey(6, 9))
    with pytest.raises(InputError, match=r"i\.tif holds 1 of 6x8, but its target t\.tif holds 1 of 6x9"):
        read_annotated(*paths)


def test_other_counts_are_named(tmp_path: Path) -> None:
    paths = write(tmp_path / "i.tif", grey(3, 6, 8)), write(tmp_path / "t.tif", grey(2, 6, 8))
    with pytest.raises(InputError, match="holds 3 of 6x8, but its target"):
        read_annotated(*paths)


def test_flat_image_is_too_flat_for_a_deep_network(tmp_path: Path) -> None:
    path = write(tmp_path / "i.tif", grey(6, 8))
    target = write(tmp_path / "t.tif", grey(6, 8))
    with pytest.raises(InputError, match=r"too few dimensions for a network of 3.*--dims 2"):
        read_annotated(path, target, dims=3)


def test_differing_channels_are_named(tmp_path: Path) -> None:
    write(tmp_path / "i" / "a.png", grey(6, 8, 3))
    write(tmp_path / "i" / "b.png", grey(6, 8))
    with pytest.raises(InputError, match=r"number of channels: .*b\.png has 1.*a\.png has 3"):
        read_annotated(tmp_path / "i", folder(tmp_path / "t", "a.png b.png"))


def test_damaged_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "i.tif").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"i\.tif.* is a text file") as caught:
        read_annotated(tmp_path / "i.tif", write(tmp_path / "t.tif", grey(6, 8)))
    assert "\n" not in str(caught.value)


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "i.npy").write_bytes(b"")
    with pytest.raises(InputError, match="not a TIFF, PNG or HDF5 file"):
        read_annotated(tmp_path / "i.npy", write(tmp_path / "t.tif", grey(6, 8)))


@pytest.mark.parametrize(
    ("target", "message"),
    [
        pytest.param(np.full((6, 8), 0.5, np.float32), "has fractions", id="fractions"),
        pytest.param(np.full((6, 8), -1, np.int16), "negative value -1", id="negative"),
        pytest.param(grey(6, 8, 3), "colour image whose channels differ", id="colour"),
    ],
)
def test_targets_are_whole_numbers(tmp_path: Path, target: NDArray[np.generic], message: str) -> None:
    options = {"photometric": "rgb"} if target.ndim == 3 else {}
    path = write(tmp_path / "t.tif", target, **options)
    with pytest.raises(InputError, match=message):
        read_annotated(write(tmp_path / "i.tif", grey(6, 8)), path)


def test_ignored_value_is_unknown(tmp_path: Path) -> None:
    target = np.array([[0, 1, 9]] * 5, dtype=np.uint8)
    path = write(tmp_path / "t.tif", target)
    (found,) = read_annotated(write(tmp_path / "i.tif", target), path, ignore=9)
    assert found.known[0].tolist() == [True, True, False]
    assert found.target[0].tolist() == [0, 1, 0]


@needs_data
def test_cell_tracking_frames_pair() -> None:
    root = SHARED / "PhC-C2DH-U373"
    found = read_annotated(root / "01", root / "01_GT" / "SEG")
    assert len(found) == 15
    assert found[0].image.shape == (1, 520, 696)


@needs_data
def test_bbbc039_masks_are_read() -> None:
    found = read_annotated(SHARED / "bbbc039" / "images", SHARED / "bbbc039" / "masks")
    assert len(found) == 8
    assert all(1 < each.target.max() < 20 for each in found)


@needs_data
def test_isbi_stack_is_twenty_images() -> None:
    root = SHARED / "isbi2012"
    found = read_annotated(root / "train-volume.tif", root / "train-labels.tif")
    assert len(found) == 20
    assert set(np.unique(found[0].target)) == {0, 255}
