"""Channels have the names that the image gives them, and are chosen by these; OME-Zarr 0.6 in the words of 0.5."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile
import zarr

from unet_dask.errors import InputError, OptionError
from unet_dask.io.source.volume import open_source
from unet_dask.texts import parse_channels

if TYPE_CHECKING:
    from pathlib import Path

IMAGE = np.random.default_rng(0).integers(0, 255, (3, 40, 50), np.uint8)
AXES: list[Any] = [
    {"name": "c", "type": "channel"},
    *({"name": n, "type": "space", "unit": "micrometer"} for n in "yx"),
]


def ome_zarr(path: Path, image: dict[str, Any], version: str = "0.5", names: list[Any] | None = None) -> Path:
    group = zarr.open_group(str(path), mode="w")
    group.create_array("0", shape=IMAGE.shape, dtype="u1", chunks=(1, 20, 20))[...] = IMAGE
    omero = {"omero": {"channels": [{"label": name} for name in names]}} if names else {}
    group.attrs["ome"] = {"version": version, "multiscales": [image], **omero}
    return path


def plain() -> dict[str, Any]:
    steps = [{"type": "scale", "scale": [1, 0.5, 0.5]}]
    return {"axes": AXES, "datasets": [{"path": "0", "coordinateTransformations": steps}]}


def test_channels_of_an_ome_zarr_and_an_ome_tiff_are_chosen_by_name(tmp_path: Path) -> None:
    names = ["DAPI", "GFP", "gfp 2"]
    tifffile.imwrite(tmp_path / "a.ome.tif", IMAGE, metadata={"axes": "CYX", "Channel": {"Name": names}})
    for place in (ome_zarr(tmp_path / "a.zarr", plain(), names=names), tmp_path / "a.ome.tif"):
        assert open_source(place).channel_names == tuple(names)
        source = open_source(place, channels=parse_channels("gfp,0"))
        assert (source.spec.channels, source.channel_names) == ((1, 0), ("GFP", "DAPI"))
        np.testing.assert_array_equal(source.read((slice(0, 2), slice(0, 40), slice(0, 50))), IMAGE[[1, 0]])
        with pytest.raises(InputError, match=r"Channel 'RFP' was asked of .* channels are DAPI, GFP, gfp 2"):
            open_source(place, channels=["RFP"])


@pytest.mark.parametrize("names", [None, ["a", "b"], ["a", "", "c"], [1, 2, 3]])
def test_names_that_do_not_fit_are_none(tmp_path: Path, names: list[Any] | None) -> None:
    place = ome_zarr(tmp_path / "a.zarr", plain(), names=names)
    assert open_source(place).channel_names == ()
    with pytest.raises(InputError, match=r"channels have no names. Choose them by number"):
        open_source(place, channels=["a"])


def test_a_list_of_channels_is_numbers_and_names() -> None:
    assert parse_channels("2, Hoechst 33342 ,0") == (2, "Hoechst 33342", 0)
    for text in ("", "0,", "-1", "1.5", "0,,1", "+1"):
        with pytest.raises(OptionError, match="not a list of channels"):
            parse_channels(text)


def systems(steps: list[Any]) -> dict[str, Any]:
    """Return the image of 0.6 whose level is transformed so into its physical system."""
    world = {"name": "world", "axes": AXES[:0]}
    return {
        "coordinateSystems": [world, {"name": "physical", "axes": AXES}],
        "datasets": [{"path": "0", "coordinateTransformations": steps}],
        "coordinateTransformations": [
            {"type": "rotation", "input": "physical", "output": "world", "path": "r"}
        ],
    }


@pytest.mark.parametrize("output", ["physical", {"name": "physical"}])
def test_an_image_of_ome_zarr_0_6_has_axes_scale_and_translation(tmp_path: Path, output: Any) -> None:
    inner = [{"type": "scale", "scale": [1, 0.5, 0.25]}, {"type": "translation", "translation": [0, 3, 4]}]
    steps = [{"type": "sequence", "transformations": inner, "input": "0", "output": output}]
    source = open_source(ome_zarr(tmp_path / "a.zarr", systems(steps), "0.6"))
    assert (source.axes, source.spacing) == ("cyx", {"y": 0.5, "x": 0.25})
    assert (source.translation, source.unit["x"]) == ({"y": 3, "x": 4}, "micrometer")


def test_a_level_of_ome_zarr_0_6_that_is_turned_is_refused(tmp_path: Path) -> None:
    steps = [{"type": "affine", "affine": [[1, 0, 0, 0]] * 3, "input": "0", "output": "physical"}]
    with pytest.raises(InputError, match="transformed by 'affine', which is not read"):
        open_source(ome_zarr(tmp_path / "a.zarr", systems(steps), "0.6"))
