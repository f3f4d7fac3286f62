"""Evaluating files: the scores of the paper, whatever holds the two images, pooled and per plane."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import imageio.v3
import numpy as np
import pytest
import tifffile
import zarr
from skimage.measure import label

from tests.manifests import manifest_of
from tests.metrics.shapes import blobs
from unet_dask.errors import DataError, InputError, OptionError
from unet_dask.evaluation.evaluate import EvaluateConfig, evaluate
from unet_dask.evaluation.result import summarise
from unet_dask.io.images.planes import products_of
from unet_dask.io.sink import store as sinks
from unet_dask.io.sink.multiscale import pyramid
from unet_dask.metrics.contingency import contingency
from unet_dask.metrics.rand import rand_agreement
from unet_dask.metrics.ratio import Ratio
from unet_dask.metrics.scores import METRICS, Truth, score_map
from unet_dask.metrics.thinning import THRESHOLDS
from unet_dask.metrics.warping import warp

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

SHARED = Path(__file__).parents[3] / "shared" / "data"
needs_data = pytest.mark.skipif(not SHARED.is_dir(), reason="the shared images are not here")


@dataclass(frozen=True)
class Stack:
    """A truth of three planes, 0 and 255, and a map that is mostly right."""

    truth: NDArray[np.uint8]
    values: NDArray[np.float32]


@pytest.fixture(scope="module")
def stack() -> Stack:
    generator = np.random.default_rng(0)
    inside = np.stack([blobs(generator, (48, 56), smooth=3) for _ in range(3)])
    noise = generator.normal(0, 0.25, inside.shape)
    values = np.clip(0.25 + 0.5 * inside + noise, 0, 1).astype(np.float32)
    return Stack((inside * 255).astype(np.uint8), values)


def save(path: Path, values: NDArray[Any]) -> Path:
    tifffile.imwrite(path, values, photometric="minisblack")
    return path


@pytest.fixture
def files(stack: Stack, tmp_path: Path) -> tuple[Path, Path]:
    return save(tmp_path / "map.tif", stack.values), save(tmp_path / "truth.tif", stack.truth)


def write_result(
    path: Path,
    stack: Stack,
    dtype: str = "float32",
    *,
    whole: tuple[int, ...] | None = None,
    roi: tuple[tuple[int, int], ...] | None = None,
    hole: bool = False,
) -> Path:
    """Write a result of a run without running it."""
    shape = stack.values.shape
    specs = (
        sinks.ArraySpec("classes", "zyx", "uint8", (1, 32, 32), None, pyramid("zyx", shape, {})),
        sinks.ArraySpec(
            "probabilities", "czyx", dtype, (1, 1, 32, 32), None, pyramid("czyx", (2, *shape), {})
        ),
    )
    place = sinks.Sink(str(path), specs)
    manifest = manifest_of(specs, ("membrane", "cell"), shape=whole or shape, roi=roi)
    sinks.create(
        place, manifest, class_names=("membrane", "cell"), spacing={}, unit={}, translation={}, name="image"
    )
    both = np.stack([1 - stack.values, stack.values])
    scaled = both if dtype == "float32" else np.rint(both * 254).astype(np.uint8)
    rows = shape[1] - 16 * hole
    place.write("classes", 0, (0, 0, 0), (stack.values > 0.5).astype(np.uint8)[:, :rows])
    place.write("probabilities", 0, (0, 0, 0, 0), scaled[:, :, :rows])
    return path


def test_each_score_is_that_of_its_definition_over_all_planes(stack: Stack, files: tuple[Path, Path]) -> None:
    found = evaluate(*files, EvaluateConfig(metrics=("pixel", "rand", "warping")))
    inside = stack.truth > 0
    for index, threshold in enumerate(THRESHOLDS):
        cut = stack.values > threshold
        assert found["pixel"].curve[index] == pytest.approx(float(np.mean(cut != inside)))
        pairs = [
            rand_agreement(contingency(label(true, connectivity=1), label(plane, connectivity=1)))
            for true, plane in zip(inside, cut, strict=True)
        ]
        both, total = sum(each.both for each in pairs), sum(each.truth + each.found for each in pairs)
        assert found["rand"].curve[index] == pytest.approx(1 - 2 * both / total)
        left = sum(warp(true, plane).remaining for true, plane in zip(inside, cut, strict=True))
        assert found["warping"].curve[index] == pytest.approx(left / inside.size)


def test_the_best_threshold_is_that_of_the_whole_stack(files: tuple[Path, Path]) -> None:
    found = evaluate(*files)
    for name in ("pixel", "rand", "warping"):
        assert found[name].value == min(found[name].curve)
    for name in ("vrand", "vinfo"):
        assert found[name].value == max(found[name].curve)
    for name in ("pixel", "rand", "vrand"):
        assert found[name].curve[THRESHOLDS.index(found[name].level or 0)] == found[name].value


def test_planes_of_one_size_have_the_mean_of_the_stack(files: tuple[Path, Path]) -> None:
    score = evaluate(*files)["pixel"]
    assert len(score.planes) == 3
    assert score.mean == pytest.approx(score.value)


def test_every_score_of_the_truth_against_itself_is_perfect(stack: Stack, tmp_path: Path) -> None:
    truth = save(tmp_path / "truth.tif", stack.truth)
    found = evaluate(truth, truth)
    assert (found.kind, found.truth_kind) == ("classes", "foreground")
    assert {score.name for score in found.scores} >= set(METRICS)
    for score in found.scores:
        assert score.value == pytest.approx(0 if score.low else 1), score.name
        # A plane of a single object holds no information, and V_info nothing to score.
        assert {value for value in score.planes if not math.isnan(value)} == {score.value}


@needs_data
@pytest.mark.parametrize("name", ["isbi2012/train-labels.tif", "PhC-C2DH-U373/01_GT/SEG"])
def test_real_truths_against_themselves_are_perfect(name: str) -> None:
    for score in evaluate(SHARED / name, SHARED / name).scores:
        assert score.value == pytest.approx(0 if score.low else 1), score.name


def test_numbers_of_instances_do_not_matter(tmp_path: Path, stack: Stack) -> None:
    objects = np.stack([label(plane, connectivity=1) for plane in stack.truth]).astype(np.uint16)
    renamed = np.where(objects > 0, 1000 - objects, 0).astype(np.uint16)
    found = evaluate(save(tmp_path / "a.tif", renamed), save(tmp_path / "b.tif", objects))
    assert (found.kind, found.truth_kind, found.foreground) == ("instances", "instances", "every instance")
    assert "warping" not in {score.name for score in found.scores}
    for score in found.scores:
        assert score.value == pytest.approx(0 if score.low else 1), score.name


def test_a_result_is_scored_as_the_map_it_holds(
    stack: Stack, files: tuple[Path, Path], tmp_path: Path
) -> None:
    result = write_result(tmp_path / "a.seg.zarr", stack)
    assert products_of(result) == ("classes", "probabilities")
    found, plain = evaluate(result, files[1]), evaluate(*files)
    assert found.foreground == "class 1, cell"
    assert [score.curve for score in found.scores] == [score.curve for score in plain.scores]
    assert found["seg"].value == plain["seg"].value


def test_probabilities_in_8_bits_are_scaled(stack: Stack, files: tuple[Path, Path], tmp_path: Path) -> None:
    result = write_result(tmp_path / "a.seg.zarr", stack, "uint8")
    small, plain = (evaluate(each, files[1], EvaluateConfig(("pixel",))) for each in (result, files[0]))
    assert small["pixel"].curve == pytest.approx(plain["pixel"].curve, abs=0.01)


def test_the_other_class_is_the_other_foreground(
    stack: Stack, files: tuple[Path, Path], tmp_path: Path
) -> None:
    result = write_result(tmp_path / "a.seg.zarr", stack)
    swapped = evaluate(result, files[1], EvaluateConfig(("pixel",), class_number=0, foreground_value=0))
    plain = evaluate(result, files[1], EvaluateConfig(("pixel",)))
    assert swapped["pixel"].curve == pytest.approx(plain["pixel"].curve[::-1], abs=1e-3)


def test_classes_of_a_result_have_one_threshold(
    stack: Stack, files: tuple[Path, Path], tmp_path: Path
) -> None:
    result = write_result(tmp_path / "a.seg.zarr", stack)
    found = evaluate(result, files[1], EvaluateConfig(("pixel", "seg"), product="classes"))
    plain = evaluate(*files)
    assert (found["pixel"].level, found["pixel"].curve) == (None, ())
    assert found["pixel"].value == plain["pixel"].curve[THRESHOLDS.index(0.5)]
    assert found["seg"].value == plain["seg"].value


def test_a_hole_is_no_background(stack: Stack, files: tuple[Path, Path], tmp_path: Path) -> None:
    for dtype in ("float32", "uint8"):
        result = write_result(tmp_path / f"{dtype}.seg.zarr", stack, dtype, hole=True)
        for product in ("classes", "probabilities"):
            with pytest.raises(DataError, match=r"never written.*--resume"):
                evaluate(result, files[1], EvaluateConfig(product=product))


def test_a_truth_of_the_whole_source_is_cut_to_the_result(stack: Stack, tmp_path: Path) -> None:
    part = (slice(1, 3), slice(8, 48), slice(4, 50))
    roi = tuple((each.start, each.stop) for each in part)
    cut = Stack(stack.truth[part], stack.values[part])
    result = write_result(tmp_path / "a.seg.zarr", cut, whole=stack.values.shape, roi=roi)
    truths = save(tmp_path / "whole.tif", stack.truth), save(tmp_path / "part.tif", cut.truth)
    whole, same = (evaluate(result, truth, EvaluateConfig(("pixel", "seg"))) for truth in truths)
    assert [score.curve for score in whole.scores] == [score.curve for score in same.scores]
    assert whole["seg"].value == same["seg"].value
    assert whole.planes == ("whole.tif[1]", "whole.tif[2]")


def test_ignored_pixels_are_not_scored(stack: Stack, tmp_path: Path) -> None:
    unknown = np.random.default_rng(1).random(stack.truth.shape) < 0.3
    truth = np.where(unknown, 7, stack.truth).astype(np.uint8)
    values = np.where(unknown, 1 - (stack.truth > 0), stack.truth > 0).astype(np.float32)
    found = evaluate(
        save(tmp_path / "a.tif", values), save(tmp_path / "b.tif", truth), EvaluateConfig(ignore=7)
    )
    assert found.truth_kind == "foreground"
    for name in ("pixel", "warping"):
        assert found[name].value == 0
    for name in ("iou", "dice"):
        assert found[name].value == 1


def test_a_value_of_the_truth_can_be_the_foreground(stack: Stack, tmp_path: Path) -> None:
    truth = np.where(stack.truth, 2, 1).astype(np.uint8)
    paths = save(tmp_path / "a.tif", stack.values), save(tmp_path / "b.tif", truth)
    found = evaluate(*paths, EvaluateConfig(("pixel",), foreground_value=2))
    plain = evaluate(paths[0], save(tmp_path / "c.tif", stack.truth), EvaluateConfig(("pixel",)))
    assert found["pixel"].curve == plain["pixel"].curve


def test_images_may_differ_in_size(tmp_path: Path) -> None:
    folders = tmp_path / "found", tmp_path / "true"
    for folder in folders:
        folder.mkdir()
        for number, side in enumerate((9, 14)):
            imageio.v3.imwrite(folder / f"{number}.png", np.full((side, side), 255 * number, np.uint8))
    found = evaluate(*folders)
    assert found.planes == ("0.png", "1.png")
    assert found["pixel"].value == 0
    assert math.isnan(found["seg"].planes[0])
    assert found["seg"].mean == 1


def test_pooling_weighs_planes_by_what_they_hold() -> None:
    (score,) = summarise([{"seg": (Ratio(1, 1),)}, {"seg": (Ratio(0, 3),)}], ())
    assert (score.value, score.mean, score.planes) == (0.25, 0.5, (1, 0))


def test_of_equal_thresholds_the_middle_one_is_best() -> None:
    assert summarise([{"pixel": (Ratio(0, 4),) * len(THRESHOLDS)}], THRESHOLDS)[0].level == 0.5


def test_a_plane_that_says_nothing_is_never_the_best() -> None:
    plane: dict[str, tuple[Ratio, ...]] = {"vrand": (Ratio(0, 0), Ratio(1, 4), Ratio(0, 0))}
    assert summarise([plane], (0.4, 0.5, 0.6))[0].value == 0.25


def test_sums_over_regions_of_pixels_equal_the_whole(stack: Stack) -> None:
    true, values = stack.truth[0] > 0, stack.values[0]
    halves = [
        score_map(values[part], Truth(label(true)[part]), ["pixel"], thresholds=THRESHOLDS)["pixel"]
        for part in (slice(0, 20), slice(20, None))
    ]
    whole = score_map(values, Truth(label(true)), ["pixel"], thresholds=THRESHOLDS)["pixel"]
    assert tuple(a + b for a, b in zip(*halves, strict=True)) == whole


def test_the_record_is_json_without_nan(files: tuple[Path, Path]) -> None:
    record = evaluate(*files).to_record()
    text = json.dumps(record, allow_nan=False)
    assert json.loads(text) == record
    assert len(record["scores"]["rand"]["curve"]) == len(THRESHOLDS)
    assert record["scores"]["f1"]["mean_of_levels"] == pytest.approx(
        float(np.mean(record["scores"]["f1"]["curve"]))
    )


def test_planes_are_read_once_the_one_before_is_scored(files: tuple[Path, Path]) -> None:
    seen: list[tuple[int, int]] = []
    evaluate(*files, EvaluateConfig(("pixel",)), on_plane=lambda index, count: seen.append((index, count)))
    assert seen == [(0, 3), (1, 3), (2, 3)]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"metrics": ("pixels",)}, "no metric 'pixels'"),
        ({"product": "labels"}, "no product 'labels'"),
        ({"class_number": -1}, "class -1"),
    ],
    ids=["metric", "product", "class"],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(OptionError, match=says):
        EvaluateConfig(**settings)


def test_instances_cannot_be_warped(tmp_path: Path) -> None:
    objects = save(tmp_path / "a.tif", np.arange(12, dtype=np.uint8).reshape(1, 3, 4))
    with pytest.raises(OptionError, match=r"warping needs a map .* --product"):
        evaluate(objects, objects, EvaluateConfig(("warping",)))


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (np.full((3, 48, 56), 3.5, np.float32), "probabilities lie in 0 to 1"),
        (np.full((3, 48, 56), np.nan, np.float32), "a hole is no background"),
        (np.zeros((3, 48, 50), np.float32), r"48 x 50 pixels and its truth .* 48 x 56"),
        (np.zeros((2, 48, 56), np.float32), "2 planes"),
    ],
    ids=["logits", "nan", "size", "count"],
)
def test_predictions_that_cannot_be_scored_are_named(
    values: NDArray[Any], says: str, files: tuple[Path, Path], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=says):
        evaluate(save(tmp_path / "a.tif", values), files[1])


def test_a_truth_with_fractions_is_refused(files: tuple[Path, Path]) -> None:
    with pytest.raises(InputError, match=r"truth map.tif\[0\] has fractions"):
        evaluate(files[0], files[0])


def test_one_of_several_classes_has_to_be_named(stack: Stack, tmp_path: Path) -> None:
    three = np.stack([stack.values / 3] * 3)[:, 0]
    array = zarr.create_array(
        str(tmp_path / "a.zarr"), shape=three.shape, dtype="float32", dimension_names=["c", "y", "x"]
    )
    array[...] = three
    truth = save(tmp_path / "truth.tif", stack.truth[0])
    with pytest.raises(OptionError, match=r"3 classes.*--class"):
        evaluate(tmp_path / "a.zarr", truth)
    with pytest.raises(OptionError, match=r"--class 3 .* 0 to 2"):
        evaluate(tmp_path / "a.zarr", truth, EvaluateConfig(class_number=3))
    assert evaluate(tmp_path / "a.zarr", truth, EvaluateConfig(class_number=2)).foreground == "class 2"


def test_the_command_prints_a_table(files: tuple[Path, Path], call_cli: Callable[..., Any]) -> None:
    outcome = call_cli("evaluate", *files, "--metrics", "pixel,f1")
    assert (outcome.code, outcome.stderr) == (0, "")
    assert "pixel error" in outcome.stdout
    assert "threshold 0." in outcome.stdout
    assert "object AP" in outcome.stdout


def test_the_command_prints_json_and_draws(
    files: tuple[Path, Path], tmp_path: Path, call_cli: Callable[..., Any]
) -> None:
    picture = tmp_path / "pictures" / "scores.png"
    outcome = call_cli("evaluate", *files, "--json", "--plot", picture)
    assert (outcome.code, outcome.stderr) == (0, "")
    assert json.loads(outcome.stdout) == evaluate(*files).to_record()
    assert imageio.v3.imread(picture).ndim == 3


@pytest.mark.parametrize(
    "arguments",
    [
        ["nothing.tif", "truth.tif"],
        ["map.tif", "nothing.zarr"],
        ["map.tif", "map.tif"],
        ["map.tif", "truth.tif", "--metrics", "accuracy"],
        ["map.tif", "truth.tif", "--class", "1"],
        ["map.tif", "damaged.tif"],
        ["truth.tif", "truth.tif", "--metrics", "pixel", "--plot", "a.png"],
        ["map.tif"],
    ],
    ids=" ".join,
)
def test_bad_input_is_one_line(
    arguments: list[str],
    files: tuple[Path, Path],
    call_cli: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (files[0].parent / "damaged.tif").write_bytes(b"II*\0garbage")
    monkeypatch.chdir(files[0].parent)
    outcome = call_cli("evaluate", *arguments)
    assert (outcome.code, len(outcome.lines), outcome.stdout) == (2, 1, ""), outcome.stderr
