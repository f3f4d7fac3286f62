"""Pictures of results: the right voxels, in the right colours, and no hole that looks like background."""

from __future__ import annotations

import shutil
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

import imageio.v3 as iio
import numpy as np
import pytest
import zarr
from click.testing import CliRunner

from tests.results import make
from unet_dask.errors import OptionError, SinkError
from unet_dask.picture.colour import hatching
from unet_dask.picture.panels import overlay
from unet_dask.picture.plane import holes_of
from unet_dask.picture.preview import drawn, preview
from unet_dask.products.colour import class_colour, in_class_colours

if TYPE_CHECKING:
    from pathlib import Path

    import click

    from tests.results import Made


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make(tmp_path_factory.mktemp("preview"))


@pytest.fixture(scope="module")
def command() -> click.Group:
    (entry,) = entry_points(group="console_scripts", name="unet-dask")
    group: Any = entry.load().__globals__["group"]
    return group  # type: ignore[no-any-return] # what the console script runs


def test_whole_plane_is_drawn_beside_its_source(made: Made, tmp_path: Path) -> None:
    shown = preview(made.sink, tmp_path / "a.png")
    assert shown.shown == ((40, 300), (0, 400))
    assert (shown.z, shown.t, shown.source, shown.unwritten, shown.notes) == (4, None, True, 0.0, ())
    assert iio.imread(shown.path).ndim == 3


def test_outline_of_a_class_is_where_the_source_is_bright(made: Made, tmp_path: Path) -> None:
    shown = preview(made.sink, tmp_path / "b.png", z=2, roi="90:160,90:210")
    picture = iio.imread(shown.path)[..., :3].astype(int)
    colour = np.array(class_colour(1)[:3])
    near = np.abs(picture - (127 + colour // 2)).sum(axis=-1) < 30
    assert near.sum() > 100


def test_rows_never_written_are_counted_and_noted(tmp_path: Path) -> None:
    # 260 rows, of which the last 68 in chunks that were never written.
    holed = make(tmp_path, unwritten_rows=68)
    shown = preview(holed.sink, tmp_path / "c.png")
    assert shown.unwritten == pytest.approx(68 / 260)
    assert "26.2% of what is shown was never written (hatched)" in shown.notes


def test_hole_in_one_product_is_a_hole() -> None:
    classes = np.array([[0, 1], [255, 0]], np.uint8)
    probabilities = np.array([[[0.5, np.nan], [0.5, 0.5]]] * 2, np.float32)
    holes = holes_of({"classes": classes, "probabilities": probabilities})
    np.testing.assert_array_equal(holes, [[False, True], [True, False]])


def test_hole_is_magenta_or_black_and_the_rest_transparent() -> None:
    holes = np.zeros((20, 20), bool)
    holes[:10] = True
    picture = hatching(holes)
    assert (picture[10:, :, 3] == 0).all()
    assert {tuple(colour) for colour in picture[:10].reshape(-1, 4)} == {(1, 0, 1, 1), (0, 0, 0, 1)}


def test_background_of_the_overlay_is_the_source() -> None:
    grey = np.full((4, 4, 3), 0.5, np.float32)
    np.testing.assert_allclose(overlay(in_class_colours(np.zeros((4, 4), np.uint8)), grey), 0.85 * grey)


def test_result_is_drawn_alone_where_the_source_is_gone(tmp_path: Path) -> None:
    alone = make(tmp_path)
    shutil.rmtree(alone.source)
    shown = preview(alone.sink, tmp_path / "d.png")
    assert not shown.source
    assert shown.notes[0].startswith("the source is not shown: ")
    assert "There is no" in shown.notes[0]


def test_source_of_another_shape_is_not_shown(tmp_path: Path) -> None:
    other = make(tmp_path)
    shutil.rmtree(other.source)
    zarr.create_array(str(other.source), shape=(6, 20, 20), dtype="uint8", dimension_names=["z", "y", "x"])
    shown = preview(other.sink, tmp_path / "e.png")
    assert shown.notes == ("the source has another shape now, so it is not shown",)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"z": 1}, "--z 1 is outside of the result. Use 2 to 5"),
        ({"t": 0}, "no axis t"),
        ({"roi": "0:20,0:20"}, "nothing to draw"),
        ({"roi": "0:900,0:20"}, "beyond its 300"),
    ],
    ids=["z-outside", "no-t", "roi-before-the-result", "roi-outside"],
)
def test_plane_outside_is_refused(made: Made, tmp_path: Path, options: Any, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        preview(made.sink, tmp_path / "f.png", **options)


def test_damaged_result_is_refused_in_one_line(tmp_path: Path) -> None:
    sink = make(tmp_path).sink
    for chunk in sink.glob("classes/*/c/**/*"):
        if chunk.is_file():
            chunk.write_bytes(b"no chunk")
    with pytest.raises(SinkError, match=r"cannot be read .* unet-dask verify"):
        preview(sink, tmp_path / "a.png")
    (sink / "classes" / "0" / "zarr.json").write_text("{")
    with pytest.raises(SinkError, match=r"classes of .* cannot be opened .* unet-dask verify"):
        preview(sink, tmp_path / "a.png")


def test_what_is_no_result_is_refused(made: Made, tmp_path: Path) -> None:
    with pytest.raises(SinkError, match="not a result of unet-dask"):
        preview(made.source, tmp_path / "g.png")
    with pytest.raises(SinkError, match="There is nothing at"):
        preview(tmp_path / "none.zarr", tmp_path / "g.png")


def test_large_plane_is_drawn_from_a_coarse_level(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    large = make(tmp_path)
    monkeypatch.setattr("unet_dask.picture.plane.SIDE", 100)
    shown = preview(large.sink, tmp_path / "h.png")
    assert shown.step == 4
    assert shown.unwritten == 0  # the coarse levels are empty, so the finest was read


def labels(sink: Path, **options: Any) -> list[str]:
    """Return what the legend of a picture says."""
    from matplotlib.legend import Legend

    figure, _ = drawn(str(sink), **options)
    (legend,) = figure.findobj(Legend)
    return [text.get_text() for text in (legend.get_title(), *legend.get_texts())]


@pytest.mark.parametrize(
    "options", [{}, {"z": 2}, {"roi": "100:140,110:190"}], ids=["whole", "plane", "part"]
)
def test_shares_are_those_of_the_whole_result_whatever_is_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: Any
) -> None:
    sink = make(tmp_path).sink
    array: Any = zarr.open_array(str(sink), path="classes/0", mode="r+")
    array[3, ::7, ::5] = 1  # on another plane than is drawn, and lost on every coarse level
    share = float((np.asarray(array[...]) == 1).mean())
    monkeypatch.setattr("unet_dask.picture.plane.SIDE", 64)
    assert labels(sink, **options) == ["share of the result", f"bright {share:.1%}"]


def test_shares_of_a_run_that_is_not_complete_are_those_of_what_is_written(tmp_path: Path) -> None:
    sink = make(tmp_path, unwritten_rows=68).sink
    classes = np.asarray(zarr.open_array(str(sink), path="classes/0", mode="r")[...])
    share = (classes == 1).sum() / (classes != 255).sum()
    assert labels(sink) == ["share of what is written", f"bright {share:.1%}", "not written"]


def test_no_share_is_given_of_what_is_too_large_to_count(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unet_dask.picture.plane._MOST_COUNTED", 4 * 260 * 400 - 1)
    assert labels(made.sink) == ["", "bright"]


def test_chunk_that_is_damaged_elsewhere_costs_the_shares_and_no_more(tmp_path: Path) -> None:
    sink = make(tmp_path).sink
    (sink / "classes" / "0" / "c" / "1" / "0" / "0").write_bytes(b"no chunk")
    shown = preview(sink, tmp_path / "a.png", z=2)
    assert [note[:39] for note in shown.notes] == ["the shares of classes are not given: A "]
    assert labels(sink, z=2) == ["", "bright"]


def test_command_writes_the_picture(made: Made, tmp_path: Path, command: click.Group) -> None:
    done = CliRunner().invoke(
        command, ["preview", str(made.sink), "-o", str(tmp_path / "deep" / "i.png"), "--json"]
    )
    assert done.exit_code == 0, done.output
    assert (tmp_path / "deep" / "i.png").exists()
    assert '"step": 1' in done.output
