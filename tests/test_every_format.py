"""One image gives the same result from every format: classes, objects, masks, pictures, scores, trained weights."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile
import zarr

from tests.written import SIZE, SIZED, WRITERS, noise, write_all
from unet_dask.errors import IncompleteError, InputError, MismatchError, UnetDaskError
from unet_dask.evaluation.evaluate import evaluate
from unet_dask.io.source.mask import find_mask
from unet_dask.io.source.stamps import ChangedError
from unet_dask.io.source.volume import open_source
from unet_dask.picture.preview import preview
from unet_dask.pipeline import plan_store, segment_store
from unet_dask.run.events import Progress
from unet_dask.verify.store import verify_store

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from tests.conftest import Outcome
    from unet_dask.workers.cluster import Cluster

DATA = Path(__file__).parents[2] / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.exists(), reason="the real images are not here")
IMAGE = noise((150, 190))
CUTS: dict[str, Any] = {"region": (96, 96), "tile": (64, 64), "chunks": (48, 48)}
PRODUCTS = "classes,probabilities,instances"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_all(tmp_path_factory.mktemp("images"), IMAGE)


@pytest.fixture(scope="module")
def sinks(
    written: dict[str, Path], tmp_path_factory: pytest.TempPathFactory, cluster: Cluster, tiny_model: Path
) -> dict[str, Path]:
    """Return a result of every format."""
    folder = tmp_path_factory.mktemp("results")
    found = {}
    for name, path in written.items():
        found[name] = folder / f"{name}.seg.zarr"
        segment_store(
            path,
            found[name],
            tiny_model,
            client=cluster.client,
            precision="float32",
            products=PRODUCTS,
            **CUTS,
        )
    return found


def read(sink: Path, product: str) -> NDArray[Any]:
    array = zarr.open_array(str(sink), path=f"{product}/0", mode="r")
    return np.asarray(array[...])


def described(sink: Path) -> Any:
    """Return the OME metadata of the classes."""
    attributes: Any = zarr.open_group(str(sink), path="classes").attrs.asdict()
    (image,) = attributes["ome"]["multiscales"]
    return image


@pytest.mark.parametrize("product", PRODUCTS.split(","))
@pytest.mark.parametrize("name", WRITERS)
def test_results_are_the_same(sinks: dict[str, Path], name: str, product: str) -> None:
    np.testing.assert_array_equal(read(sinks[name], product), read(sinks["plain.zarr"], product))
    if product == "classes":
        assert 0.02 < (read(sinks[name], product) == 1).mean() < 0.98


@pytest.mark.parametrize("name", SIZED)
def test_a_result_has_the_pixel_size_of_its_source(sinks: dict[str, Path], name: str) -> None:
    image = described(sinks[name])
    units = {axis["unit"] for axis in image["axes"]}
    micrometres = SIZE * (1000 if units == {"nanometer"} else 1)
    assert image["datasets"][0]["coordinateTransformations"][0]["scale"] == pytest.approx([micrometres] * 2)


@pytest.mark.parametrize("name", ["pyramid.ome.tif", "imagej.tif", "picture.png"])
def test_a_result_is_verified_against_its_source(
    written: dict[str, Path], sinks: dict[str, Path], name: str, tiny_model: Path
) -> None:
    found = verify_store(sinks[name], tiny_model, crops=3)
    assert (found.findings, found.crops, found.notes) == ((), 3, ())


@pytest.mark.parametrize("name", WRITERS)
def test_a_picture_shows_the_source(sinks: dict[str, Path], name: str, tmp_path: Path) -> None:
    import imageio.v3 as iio

    shown = preview(sinks[name], tmp_path / "a.png")
    assert (shown.source, shown.notes) == (True, ())
    # A result that knows how large a pixel is tells sizes in micrometres.
    like = "ome5.ome.zarr" if name in SIZED else "plain.zarr"
    expected = preview(sinks[like], tmp_path / "b.png")
    picture, other = iio.imread(tmp_path / "a.png"), iio.imread(expected.path)
    title = 60  # the name of the result stands above
    np.testing.assert_array_equal(picture[title:], other[title:])


MASK = np.zeros(IMAGE.shape, np.uint8)
MASK[20:90, 50:170] = 1


@pytest.mark.parametrize("name", WRITERS)
def test_a_mask_of_every_format_is_the_same(written: dict[str, Path], name: str, tmp_path: Path) -> None:
    source = open_source(written["plain.zarr"])
    mask = find_mask(str(WRITERS[name](tmp_path / name, MASK)), source)
    assert mask is not None
    np.testing.assert_array_equal(mask.inside([(0, 1), (10, 100), (0, 190)]), MASK[10:100] > 0)
    assert mask.identity()["mask.content"]


def test_a_picture_is_a_mask_of_a_run(
    written: dict[str, Path], sinks: dict[str, Path], tmp_path: Path, cluster: Cluster, tiny_model: Path
) -> None:
    mask, source = WRITERS["picture.png"](tmp_path / "mask.png", MASK), written["pyramid.ome.tif"]
    run = {"client": cluster.client, "precision": "float32"} | CUTS
    segment_store(source, tmp_path / "a.zarr", tiny_model, mask=str(mask), **run)
    expected = np.where(MASK, read(sinks["plain.zarr"], "classes"), 0)
    np.testing.assert_array_equal(read(tmp_path / "a.zarr", "classes"), expected)


@pytest.mark.parametrize("name", WRITERS)
def test_scores_are_the_same(sinks: dict[str, Path], name: str, tmp_path: Path) -> None:
    truth = (IMAGE > 128).astype(np.uint8)
    path = WRITERS[name](tmp_path / name, truth)
    expected = evaluate(sinks["plain.zarr"], WRITERS["plain.zarr"](tmp_path / "t.zarr", truth))
    assert evaluate(sinks[name], path).scores == expected.scores


def test_the_command_names_the_result_after_the_file(
    written: dict[str, Path], run_cli: Callable[..., Outcome], tiny_model: Path
) -> None:
    picture = written["picture.png"]
    done = run_cli("segment", picture, "-m", tiny_model, "-j1", "-q", "--json")
    assert done.code == 0, done.stderr
    assert json.loads(done.stdout)["sink"] == str(picture.with_name("picture.seg.zarr"))
    shutil.rmtree(picture.with_name("picture.seg.zarr"))


def test_a_picture_that_is_cut_short_is_one_line(
    written: dict[str, Path], tmp_path: Path, run_cli: Callable[..., Outcome], tiny_model: Path
) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(written["plain.tif"].read_bytes()[:9000])
    done = run_cli("segment", path, "-m", tiny_model, "-j1")
    assert (done.code, len(done.lines)) == (2, 1), done.stderr
    assert "is damaged or was cut off" in done.stderr


@pytest.mark.parametrize("name", ["pyramid.ome.tif", "picture.png"])
def test_a_source_that_is_changed_meanwhile_is_noticed_and_can_be_put_back(
    written: dict[str, Path],
    sinks: dict[str, Path],
    name: str,
    tmp_path: Path,
    cluster: Cluster,
    tiny_model: Path,
) -> None:
    source, sink = tmp_path / name, tmp_path / "a.zarr"
    shutil.copy2(written[name], source)
    found, content = source.stat(), source.read_bytes()
    run = {"client": cluster.client, "precision": "float32"} | CUTS

    def change(event: object) -> None:
        if isinstance(event, Progress) and event.done == 1:
            WRITERS[name](source, noise(IMAGE.shape, seed=5))

    with pytest.raises(UnetDaskError, match=r"changed|replaced"):
        segment_store(source, sink, tiny_model, on_event=change, **run)
    with pytest.raises(MismatchError, match=r"source\.content"):
        segment_store(source, sink, tiny_model, resume=True, **run)
    source.write_bytes(content)
    os.utime(source, ns=(found.st_atime_ns, found.st_mtime_ns))
    assert segment_store(source, sink, tiny_model, resume=True, **run).complete
    np.testing.assert_array_equal(read(sink, "classes"), read(sinks[name], "classes"))


def test_a_mended_tiff_is_done_again(
    sinks: dict[str, Path], tmp_path: Path, cluster: Cluster, tiny_model: Path
) -> None:
    source, sink = tmp_path / "a.tif", tmp_path / "a.zarr"
    run = {"client": cluster.client, "precision": "float32"} | CUTS
    how: dict[str, Any] = {"tile": (32, 32), "compression": "zlib"}
    tifffile.imwrite(source, IMAGE, **how)
    whole = source.read_bytes()
    with tifffile.TiffFile(source) as file:
        place, count = file.pages.first.dataoffsets[-1], file.pages.first.databytecounts[-1]
    source.write_bytes(whole[:place] + bytes(count) + whole[place + count :])
    with pytest.raises((IncompleteError, InputError)) as caught:
        segment_store(source, sink, tiny_model, **run)
    assert not isinstance(caught.value, ChangedError)
    source.write_bytes(whole)
    assert segment_store(source, sink, tiny_model, resume=True, source_fixed=True, **run).complete
    np.testing.assert_array_equal(read(sink, "classes"), read(sinks["plain.zarr"], "classes"))


def test_a_plan_counts_the_segment_as_it_is(tmp_path: Path, tiny_model: Path) -> None:
    image = noise((2048, 2048))
    tifffile.imwrite(tmp_path / "tiles.tif", image, tile=(256, 256), compression="zlib")
    tifffile.imwrite(tmp_path / "page.tif", image, compression="zlib", rowsperstrip=2048)
    plans = {
        name: plan_store(tmp_path / f"{name}.tif", tiny_model, memory="2GiB", region=(512, 512), device="cpu")
        for name in ("tiles", "page")
    }
    tiles, page = (plans[name].source.decoding for name in ("tiles", "page"))
    assert (tiles.chunk_bytes, page.chunk_bytes) == (256 * 256, 2048 * 2048)
    assert page.beside(512 * 512) - tiles.beside(512 * 512) == 3 * (2048 * 2048 - 512 * 512)


def slide_as(name: str, folder: Path) -> Path:
    """Return where a real slide lies in a format; those that it does not have are written."""
    slide = DATA / "wsi" / "CMU-1-Small-Region.svs"
    store = DATA / "ome_zarr" / "CMU-1-Small-Region.ome.zarr"
    if name == "svs":
        return slide
    if name == "ome-zarr":
        return store
    if name == "zip":
        return Path(shutil.make_archive(str(folder / "slide"), "zip", store.parent, store.name))
    with tifffile.TiffFile(slide) as file:
        values = file.series[0].asarray()
    sizes = {f"PhysicalSize{axis}": 0.499 for axis in "XY"}
    units = {f"PhysicalSize{axis}Unit": "\u00b5m" for axis in "XY"}
    tiled: dict[str, Any] = {"tile": (256, 256), "compression": "zlib", "photometric": "rgb"}
    tifffile.imwrite(
        folder / "slide.ome.tif", values, ome=True, metadata={"axes": "YXS"} | sizes | units, **tiled
    )
    return folder / "slide.ome.tif"


@needs_data
def test_a_slide_gives_the_same_in_every_format(tmp_path: Path, cluster: Cluster, make_model: Any) -> None:
    model = make_model(tmp_path / "m.safetensors", channels=3)
    run: dict[str, Any] = {"client": cluster.client, "precision": "float32", "memory": "512MiB"}
    found = {}
    for name in ("svs", "ome-zarr", "ome-tiff", "zip"):
        sink = tmp_path / f"{name}.zarr"
        segment_store(slide_as(name, tmp_path), sink, model, roi="y 900:1200, x 1000:1400", **run)
        found[name] = read(sink, "classes").squeeze()
        np.testing.assert_array_equal(found[name], found["svs"])
        image = described(sink)
        assert image["datasets"][0]["coordinateTransformations"][0]["scale"][-2:] == pytest.approx(
            [0.499] * 2
        )
        assert {axis["unit"] for axis in image["axes"] if axis["name"] in "yx"} == {"micrometer"}
    assert found["svs"].shape == (300, 400)
    assert len(np.unique(found["svs"])) > 1
