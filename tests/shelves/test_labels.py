"""A product becomes a label image of the image that it was made of: found by readers, whole or not at all."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pytest
import zarr

import unet_dask
from tests.measuring.results import blobs, relabelled, save_image, segmented, stored
from unet_dask.errors import InputError, OptionError, SinkError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from tests.conftest import Outcome
    from unet_dask.workers.cluster import Cluster

Format = Literal[2, 3]
SHAPE = (203, 181)
PART = "10:95,20:90"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, cluster: Cluster) -> dict[int, Path]:
    """Return for each version of Zarr a folder with an image of three levels, and a result of a part of the second."""
    found: dict[int, Path] = {}
    for number in (2, 3):
        version: Format = 2 if number == 2 else 3
        folder = tmp_path_factory.mktemp(f"v{version}")
        image = np.random.default_rng(0).integers(0, 4000, (2, *SHAPE)).astype(np.uint16)
        save_image(folder / "s.zarr", image, "cyx", levels=3, zarr_format=version)
        segmented(folder / "s.zarr", folder / "r.zarr", tiny_model, cluster, level=1, roi=PART, channels="0")
        labels = blobs((85, 70), 2, share=0.5)
        relabelled(folder / "r.zarr", labels, (labels > 0).astype(np.uint8))
        found[version] = folder
    return found


@pytest.fixture(params=[2, 3])
def folder(made: dict[int, Path], tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """Return an image and a result of its own for a test."""
    shutil.copytree(made[request.param], tmp_path / "made")
    return tmp_path / "made"


def bytes_of(folder: Path) -> dict[str, str]:
    """Return what lies in a folder."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def level(folder: Path, number: int, name: str = "instances") -> NDArray[Any]:
    array: Any = zarr.open_group(str(folder / "s.zarr"), mode="r")[f"labels/{name}/{number}"]
    return np.asarray(array[...])


def attributes(folder: Path, inner: str) -> dict[str, Any]:
    """Return what OME-Zarr says of a group, and where that is by its version."""
    found = dict(zarr.open_group(str(folder / "s.zarr" / inner), mode="r").attrs)
    inner_ome: Any = found.get("ome", found)
    return dict(inner_ome)


def test_labels_lie_in_their_place_in_every_level(folder: Path) -> None:
    unet_dask.export_labels(folder / "r.zarr", folder / "s.zarr")
    second = np.zeros((102, 91), np.uint32)
    second[10:95, 20:90] = stored(folder / "r.zarr", "instances")
    assert np.array_equal(level(folder, 1), second)
    assert np.array_equal(level(folder, 0), second.repeat(2, axis=0).repeat(2, axis=1)[:203, :181])
    assert np.array_equal(level(folder, 2), second[::2, ::2])


def test_readers_find_labels_as_the_image_says(folder: Path) -> None:
    image = zarr.open_group(str(folder / "s.zarr"), mode="r")
    unet_dask.export_labels(folder / "r.zarr", folder / "s.zarr", product="classes", name="nuclei")
    labels = zarr.open_group(str(folder / "s.zarr" / "labels" / "nuclei"), mode="r")
    assert labels.metadata.zarr_format == image.metadata.zarr_format
    said, host = attributes(folder, "labels/nuclei"), attributes(folder, "")
    assert said["image-label"]["source"] == {"image": "../../"}
    assert {each["class"] for each in said["image-label"]["properties"]} == {"background", "class 1"}
    (one,), (other,) = said["multiscales"], host["multiscales"]
    assert one["axes"] == [axis for axis in other["axes"] if axis["type"] != "channel"]
    for found, wanted in zip(one["datasets"], other["datasets"], strict=True):
        scale, shift = found["coordinateTransformations"]
        assert scale["scale"] == wanted["coordinateTransformations"][0]["scale"][1:]
        assert shift["translation"] == [0, 0]
    arrays: Any = [labels["0"], image["0"]]
    assert arrays[0].chunks == arrays[1].chunks[1:]
    if image.metadata.zarr_format == 2:
        from ome_zarr_models.v04 import ImageLabel
    else:
        from ome_zarr_models.v05 import ImageLabel  # type: ignore[assignment]
    ImageLabel.from_zarr(labels)


@pytest.mark.filterwarnings("ignore:Consolidated metadata")
def test_list_of_labels_is_extended_and_copies_of_metadata_renewed(folder: Path) -> None:
    group = zarr.open_group(str(folder / "s.zarr"))
    version = group.metadata.zarr_format
    drawn = group.create_group("labels/drawn")
    drawn.create_array("0", shape=(4, 4), chunks=(4, 4), dtype="u1")
    named: Any = {"labels": ["drawn"]}
    group["labels"].attrs.update(named if version == 2 else {"ome": {"version": "0.5", **named}})
    zarr.consolidate_metadata(group.store)
    unet_dask.export_labels(folder / "r.zarr", folder / "s.zarr")
    assert attributes(folder, "labels")["labels"] == ["drawn", "instances"]
    kept = zarr.open_consolidated(str(folder / "s.zarr"))
    copied: Any = kept["labels/instances/0"]
    assert copied.shape == SHAPE
    assert "labels/drawn/0" in kept
    place = folder / "s.zarr" / (".zmetadata" if version == 2 else "zarr.json")
    ours = json.loads(place.read_text())
    zarr.consolidate_metadata(group.store)
    theirs = json.loads(place.read_text())
    for document in theirs["metadata"].values() if version == 2 else ():
        document.pop("consolidated_metadata", None)  # which is no part of Zarr 2
    assert theirs == ours


def test_nothing_else_in_the_image_changes(folder: Path) -> None:
    before = bytes_of(folder / "s.zarr")
    unet_dask.export_labels(folder / "r.zarr", folder / "s.zarr")
    after = {
        name: each for name, each in bytes_of(folder / "s.zarr").items() if not name.startswith("labels/")
    }
    assert after == before
    assert sorted(path.name for path in folder.iterdir()) == ["r.zarr", "s.zarr"]
    assert unet_dask.measure(folder / "r.zarr", source=folder / "s.zarr").notes == ()


@pytest.mark.filterwarnings("ignore:Consolidated metadata")
def test_image_in_a_hierarchy_is_named_by_any_path_to_it(
    folder: Path, tmp_path: Path, tiny_model: Path, cluster: Cluster
) -> None:
    version = zarr.open_group(str(folder / "s.zarr")).metadata.zarr_format
    plate = zarr.create_group(str(tmp_path / "p.zarr"), zarr_format=version)
    plate.create_group("A/1")
    shutil.move(folder / "s.zarr", tmp_path / "p.zarr" / "A" / "1" / "0")
    zarr.consolidate_metadata(plate.store)
    image = tmp_path / "p.zarr" / "A" / "1" / "0"
    sink = segmented(image, tmp_path / "r.zarr", tiny_model, cluster, level=1, channels="0")
    labels = blobs((102, 91), 2)
    relabelled(sink, labels)
    for number, named in enumerate((tmp_path / "p.zarr", image, image / "1")):
        unet_dask.export_labels(sink, named, name=f"l{number}")
        kept: Any = zarr.open_consolidated(str(tmp_path / "p.zarr"))[f"A/1/0/labels/l{number}/1"]
        assert np.array_equal(kept[...], labels)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["made", "p.zarr", "r.zarr"]


def test_labels_are_replaced_only_if_they_are_ours_and_it_is_asked_for(folder: Path) -> None:
    unet_dask.export_labels(folder / "r.zarr", folder / "s.zarr")
    with pytest.raises(SinkError, match="--overwrite"):
        unet_dask.export_labels(folder / "r.zarr", folder / "s.zarr")
    relabelled(folder / "r.zarr", np.full((85, 70), 7, np.uint32))
    unet_dask.export_labels(folder / "r.zarr", folder / "s.zarr", overwrite=True)
    assert set(np.unique(level(folder, 0)).tolist()) == {0, 7}
    assert attributes(folder, "labels")["labels"] == ["instances"]
    group = zarr.open_group(str(folder / "s.zarr"))
    group.create_group("labels/drawn")
    with pytest.raises(SinkError, match="not written by unet-dask"):
        unet_dask.export_labels(folder / "r.zarr", folder / "s.zarr", name="drawn", overwrite=True)


def test_labels_that_were_corrected_are_not_replaced(folder: Path) -> None:
    unet_dask.export_labels(folder / "r.zarr", folder / "s.zarr")
    layer: Any = zarr.open_array(str(folder / "s.zarr" / "labels" / "instances" / "0"), mode="r+")
    layer[30:40, 40:50] = 9
    with pytest.raises(SinkError, match="changed since"):
        unet_dask.export_labels(folder / "r.zarr", folder / "s.zarr", overwrite=True)
    assert (level(folder, 0)[30:40, 40:50] == 9).all()


#: Exports again and again in processes that end without a word: one at its first change of a name in the image, the
#: next at the second, and so on; the first of all when all is made. Prints how many ended so.
KILLED = """
import os, pathlib, sys
import unet_dask
from unet_dask.shelves import documents, shelf
sink, image = sys.argv[1:]
real = os.replace, pathlib.Path.rename
def export(last):
    count = 0
    def ending(change):
        def changed(old, new, **more):
            nonlocal count
            if str(new).startswith(image):
                if count == last:
                    os._exit(9)
                count += 1
            return change(old, new, **more)
        return changed
    os.replace, pathlib.Path.rename = map(ending, real)
    unet_dask.export_labels(sink, image, overwrite=True)
for last in range(99):
    child = os.fork()
    if not child:
        export(last)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(last, code, flush=True)
    sys.stdin.readline()
    if code != 9:
        break
"""


def test_killed_export_leaves_labels_that_are_whole_or_none(made: dict[int, Path], tmp_path: Path) -> None:
    shutil.copytree(made[2], tmp_path / "made")
    folder = tmp_path / "made"
    unet_dask.export_labels(folder / "r.zarr", folder / "s.zarr")
    before = [level(folder, number) for number in range(3)]
    zarr.consolidate_metadata(zarr.open_group(str(folder / "s.zarr")).store)
    relabelled(folder / "r.zarr", np.full((85, 70), 7, np.uint32))
    shutil.copytree(folder / "s.zarr", folder / "copy")
    command = [sys.executable, "-c", KILLED, str(folder / "r.zarr"), str(folder / "s.zarr")]
    states = []
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stdout
        for line in process.stdout:
            states.append(listed(folder, before))
            if (code := int(line.split()[1])) == 9:
                shutil.rmtree(folder / "s.zarr")
                shutil.copytree(folder / "copy", folder / "s.zarr")
            print(file=process.stdin, flush=True)
    assert code == 0
    assert states == ["before", "none", "none", "none", "none", "after"]
    assert sorted(path.name for path in folder.iterdir()) == ["copy", "r.zarr", "s.zarr"]


def listed(folder: Path, before: list[NDArray[Any]]) -> str:
    """Return which labels readers find, whole, with and without copies of metadata."""
    found = set()
    for copies in (False, True):
        group: Any = zarr.open_group(str(folder / "s.zarr"), mode="r", use_consolidated=copies)
        if not group["labels"].attrs["labels"]:
            found.add("none")
            continue
        levels = [np.asarray(group[f"labels/instances/{number}"][...]) for number in range(3)]
        if all(map(np.array_equal, levels, before)):
            found.add("before")
        else:
            assert all(7 in each and set(np.unique(each)) <= {0, 7} for each in levels)
            found.add("after")
    return "none" if "none" in found else found.pop() if len(found) == 1 else "mixed"


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"product": "probabilities"}, "Use classes or instances"),
        ({"name": "../x"}, "cannot name"),
        ({"workers": 0}, "at least one"),
    ],
)
def test_settings_that_cannot_be_are_refused(
    made: dict[int, Path], change: dict[str, Any], word: str
) -> None:
    before = bytes_of(made[3])
    with pytest.raises(OptionError, match=word):
        unet_dask.export_labels(made[3] / "r.zarr", made[3] / "s.zarr", **change)
    assert bytes_of(made[3]) == before


def test_images_that_labels_do_not_fit_are_refused(
    made: dict[int, Path], tmp_path: Path, tiny_model: Path, cluster: Cluster
) -> None:
    other = save_image(tmp_path / "o.zarr", np.zeros((2, 90, 181), np.uint16), "cyx", levels=3)
    with pytest.raises(InputError, match="not what was segmented"):
        unet_dask.export_labels(made[3] / "r.zarr", other)
    bare = tmp_path / "bare.zarr"
    values: Any = np.random.default_rng(0).integers(0, 99, (64, 64)).astype(np.uint8)
    zarr.save_array(str(bare), values)
    sink = segmented(bare, tmp_path / "r.zarr", tiny_model, cluster)
    with pytest.raises(InputError, match="bare array"):
        unet_dask.export_labels(sink, bare)


def test_command_says_where_labels_are(folder: Path, call_cli: Callable[..., Outcome]) -> None:
    outcome = call_cli("export", folder / "r.zarr", "--labels-in", folder / "s.zarr", "--json")
    assert outcome.code == 0
    assert json.loads(outcome.stdout)["path"] == str(folder / "s.zarr" / "labels" / "instances")
    for arguments in ([], ["-o", "a.png", "--name", "x"], ["-o", "a.png", "--labels-in", folder / "s.zarr"]):
        outcome = call_cli("export", folder / "r.zarr", *arguments)
        assert (outcome.code, len(outcome.lines)) == (2, 1), outcome.stderr
