"""Which images a command means, and what each is called: never two by one name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile

from tests.many.plates import save_plate
from unet_dask.errors import InputError
from unet_dask.many.listing import images_of

if TYPE_CHECKING:
    from pathlib import Path


def save(*paths: Path) -> list[str]:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(path, np.zeros((32, 32), np.uint8))
    return [str(path) for path in paths]


def names(*sources: str | Path, **said: object) -> list[str] | None:
    found = images_of([str(each) for each in sources], **said)  # type: ignore[arg-type] # what each test says
    return None if found is None else [image.name for image in found]


def test_one_image_is_not_many(tmp_path: Path) -> None:
    (path,) = save(tmp_path / "a.tif")
    assert names(path) is None


def test_names_are_stems_while_these_differ(tmp_path: Path) -> None:
    assert names(*save(tmp_path / "one" / "a.ome.tif", tmp_path / "two" / "b.tif")) == ["a", "b"]


def test_images_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    paths = save(tmp_path / "day1" / "x.tif", tmp_path / "day2" / "x.tif", tmp_path / "day2" / "y.tif")
    assert names(*paths) == ["day1/x", "day2/x", "day2/y"]


def test_images_of_one_name_in_one_folder_by_their_suffixes(tmp_path: Path) -> None:
    assert names(*save(tmp_path / "x.tif", tmp_path / "x.tiff")) == ["x.tif", "x.tiff"]


def test_names_that_differ_in_case_alone_would_be_one_on_some_disks(tmp_path: Path) -> None:
    assert names(*save(tmp_path / "one" / "x.tif", tmp_path / "two" / "X.tif")) == ["one/x", "two/X"]


def test_an_image_that_is_named_twice_is_done_once(tmp_path: Path) -> None:
    first, second = save(tmp_path / "a.tif", tmp_path / "b.tif")
    assert names(first, second, first, tmp_path / "." / "b.tif") == ["a", "b"]


def test_a_pattern_in_quotes_matches_in_order_and_below(tmp_path: Path) -> None:
    save(tmp_path / "b.tif", tmp_path / "a.tif", tmp_path / "deep" / "er" / "c.tif", tmp_path / "d.png")
    assert names(tmp_path / "*.tif") == ["a", "b"]
    assert names(tmp_path / "**" / "*.tif") == ["a", "b", "c"]
    with pytest.raises(InputError, match="Nothing matches"):
        names(tmp_path / "*.lif")


def test_a_pattern_of_one_match_is_many_images_too(tmp_path: Path) -> None:
    save(tmp_path / "a.tif")
    assert names(tmp_path / "*.tif") == ["a"]


def test_a_name_with_brackets_that_is_there_is_no_pattern(tmp_path: Path) -> None:
    save(tmp_path / "a[1].tif")
    assert names(tmp_path / "a[1].tif") is None


def test_a_plate_alone_gives_its_own_names_and_among_others_those_below_it(tmp_path: Path) -> None:
    one = save_plate(tmp_path / "one.zarr", {"A/1": ["0"]})
    two = save_plate(tmp_path / "two.ome.zarr", {"A/1": ["0"]})
    (path,) = save(tmp_path / "a.tif")
    assert names(one) == ["A/1/0"]
    assert names(one, two, path) == ["one/A/1/0", "two/A/1/0", "a"]
    found = images_of([str(one)])
    assert found is not None
    assert (found[0].source, found[0].key) == (str(one), "A/1/0")
