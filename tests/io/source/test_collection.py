"""Collections: which images a plate, a well, a converted file or a folder holds, whatever its documents say."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile
import zarr

from tests.many.plates import save_image, save_plate
from unet_dask.errors import InputError
from unet_dask.io.source.collection import members, series_key
from unet_dask.io.source.volume import open_source

if TYPE_CHECKING:
    from pathlib import Path


def names(place: Path, **said: object) -> list[str] | None:
    found = members(str(place), **said)  # type: ignore[arg-type] # what each test says
    return None if found is None else [each.name for each in found]


def test_a_plate_is_all_fields_of_all_wells_in_its_order(tmp_path: Path) -> None:
    plate = save_plate(tmp_path / "p.zarr", {"B/2": ["0", "1"], "A/1": ["0"]})
    found = members(str(plate))
    assert found is not None
    assert [each.name for each in found] == ["B/2/0", "B/2/1", "A/1/0"]
    assert [open_source(each.place, key=each.key).shape for each in found] == [(1, 96, 96)] * 3
    assert names(plate / "B" / "2") == ["0", "1"]
    assert names(plate, key="B/2") == ["0", "1"]
    assert names(plate / "B" / "2" / "0") is None
    assert names(plate, key="A/1/0") is None


def test_a_well_that_is_damaged_or_gone_stands_for_its_fields(tmp_path: Path) -> None:
    plate = save_plate(tmp_path / "p.zarr", {"A/1": ["0"], "A/2": ["0"], "A/3": ["0"]})
    (plate / "A" / "1" / "zarr.json").write_text("{")
    (plate / "A" / "3" / "zarr.json").unlink()
    found = members(str(plate))
    assert found is not None
    assert [each.name for each in found] == ["A/1", "A/2/0", "A/3"]
    for each in (found[0], found[2]):
        with pytest.raises(InputError):
            open_source(each.place, key=each.key)


@pytest.mark.parametrize("path", ["../../etc", "/etc", "A/../..", 7, None])
def test_a_path_that_leads_out_of_a_plate_is_refused(tmp_path: Path, path: object) -> None:
    plate = save_plate(tmp_path / "p.zarr", {"A/1": ["0"]})
    document = plate / "zarr.json"
    changed = json.loads(document.read_text())
    changed["attributes"]["ome"]["plate"]["wells"].append({"path": path})
    document.write_text(json.dumps(changed))
    with pytest.raises(InputError, match=r"damaged: .* is no path among its wells"):
        members(str(plate))


def converted(path: Path, count: int, listed: list[str] | None = None) -> Path:
    root = zarr.create_group(path, attributes={"ome": {"version": "0.5", "bioformats2raw.layout": 3}})
    for number in range(count):
        save_image(root, str(number), seed=number)
    if listed is not None:
        root.create_group("OME", attributes={"ome": {"version": "0.5", "series": listed}})
    return path


def test_a_converted_file_is_all_of_its_series(tmp_path: Path) -> None:
    assert names(converted(tmp_path / "numbered.zarr", 11)) == [str(number) for number in range(11)]
    assert names(converted(tmp_path / "listed.zarr", 3, ["2", "0"])) == ["2", "0"]
    assert names(converted(tmp_path / "single.zarr", 1)) is None


def test_one_series_is_named_by_its_number(tmp_path: Path) -> None:
    listed = converted(tmp_path / "listed.zarr", 3, ["2", "0"])
    assert series_key(str(listed), 0) == "2"
    with pytest.raises(InputError, match=r"has 2 series\. Use 0 to 1"):
        series_key(str(listed), 2)
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((96, 96), np.uint8))
    assert series_key(str(tmp_path / "a.tif"), 1) == "1"


@pytest.mark.parametrize(
    ("files", "stack"),
    [(["a_1.tif", "a_2.tif"], True), (["a.tif", "b.tif"], False), (["a_1.tif", "b_1.png"], False)],
)
def test_pictures_of_a_folder_are_images_unless_they_are_numbered_planes(
    tmp_path: Path, files: list[str], stack: bool
) -> None:
    for name in files:
        if name.endswith("tif"):
            tifffile.imwrite(tmp_path / name, np.zeros((96, 96), np.uint8))
        else:
            from PIL import Image

            Image.fromarray(np.zeros((96, 96), np.uint8)).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("of the microscope")
    stems = [name[:-4] for name in files]
    assert names(tmp_path) == (None if stack else stems)
    assert names(tmp_path, each=True) == stems


def test_a_folder_of_stores_is_its_stores(tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "b.zarr", shape=(96, 96), dtype="uint8")
    zarr.create_array(tmp_path / "a.ome.zarr", shape=(96, 96), dtype="uint8")
    assert names(tmp_path) == ["a", "b"]
    assert names(tmp_path / "b.zarr") is None


def test_what_holds_no_image_is_left_to_whoever_opens_it(tmp_path: Path) -> None:
    assert names(tmp_path) is None
    assert names(tmp_path / "nothing.zarr") is None
    with pytest.raises(InputError, match="holds no image"):
        members(str(tmp_path), each=True)
