"""Sums of objects are those of the whole image, whatever it is cut into and however often they are written aside."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.measure import regionprops_table

from unet_dask.measuring.block import block_sums, pixel_rows
from unet_dask.measuring.columns import columns_of
from unet_dask.measuring.frame import Frame
from unet_dask.measuring.spill import Spill
from unet_dask.measuring.sums import Layout, merged, variance
from unet_dask.tiling.box import Box

if TYPE_CHECKING:
    from numpy.typing import NDArray

PROPERTIES = (
    "label",
    "area",
    "bbox",
    "centroid",
    "intensity_mean",
    "intensity_min",
    "intensity_max",
    "intensity_std",
)
#: Axes of a label image, and along how many of them objects extend.
KINDS = (("yx", 2), ("zyx", 2), ("tyx", 2), ("zyx", 3))
TYPES = ("uint8", "int16", "uint16", "int32", "float32", "float64")


@dataclass(frozen=True)
class Case:
    """A label image with grey values, cut somehow."""

    axes: str
    dims: int
    labels: NDArray[Any]
    values: NDArray[Any]
    classes: NDArray[np.uint8]
    sides: tuple[int, ...]
    limit: int

    @property
    def layout(self) -> Layout:
        return Layout(self.axes, classes=2, channels=len(self.values), dtype=self.values.dtype.name)


@st.composite
def cases(draw: st.DrawFn, kinds: tuple[tuple[str, int], ...] = (*KINDS, ("tzyx", 3))) -> Case:
    axes, dims = draw(st.sampled_from(kinds))
    shape = tuple(draw(st.integers(1, 7 if len(axes) > 2 else 20)) for _ in axes)
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    most = draw(st.integers(1, 12))
    # Objects of any shape, also of pieces that lie apart; numbers far apart; of every plane its own.
    labels = random.integers(0, most + 1, shape) * (random.random(shape) < draw(st.sampled_from([0.2, 0.9])))
    coarse = tuple(np.sort(random.integers(0, size, size)) for size in shape)
    labels = labels[np.ix_(*coarse)].astype(np.uint64)
    planes = np.arange(np.prod(shape[:-dims], dtype=int)).reshape(*shape[:-dims], *(1,) * dims)
    labels = np.where(labels > 0, labels * 1001 + planes.astype(np.uint64) * 100_003, 0).astype(np.uint64)
    dtype = np.dtype(draw(st.sampled_from(TYPES)))
    offset = draw(st.sampled_from([0, 60_000])) if dtype.itemsize > 2 or dtype.name == "uint16" else 0
    values = (random.integers(0, 120, (draw(st.integers(1, 3)), *shape)) + offset).astype(dtype)
    if dtype.kind == "f":
        values += random.random(values.shape).astype(dtype)
    sides = tuple(draw(st.integers(1, size)) for size in shape)
    classes = random.integers(0, 3, shape).astype(np.uint8)
    return Case(axes, dims, labels, values, classes, sides, draw(st.sampled_from([1, 600, 1 << 20])))


def summed(case: Case, order: int = 1) -> NDArray[np.void]:
    """Return the sums of all objects, block by block."""
    whole = Box(case.axes, tuple((0, size) for size in case.labels.shape))
    with Spill(merged, limit=case.limit) as spill:
        for box in list(whole.cut(case.sides))[::order]:
            labels = np.ascontiguousarray(case.labels[box.slices])
            if not labels.any():
                continue
            channels = [np.ascontiguousarray(each[box.slices]) for each in case.values]
            classes = np.ascontiguousarray(case.classes[box.slices])
            spill.put(
                block_sums(
                    pixel_rows(labels), box.start, case.layout, classes=classes, channels=enumerate(channels)
                )
            )
        batches = list(spill.batches())
    assert all(a["label"][-1] < b["label"][0] for a, b in pairwise(batches))
    return np.concatenate([np.empty(0, case.layout.record), *batches])


@settings(max_examples=300, deadline=None)
@given(cases(KINDS))  # scikit-image knows no more dimensions
def test_table_is_that_of_scikit_image_on_the_whole(case: Case) -> None:
    rows = summed(case)
    shape = case.labels.shape
    frame = Frame(case.axes, case.dims, shape, (0,) * len(shape), (1,) * len(shape))
    names = [""] if len(case.values) == 1 else ["red", "green", "blue"][: len(case.values)]
    table = columns_of(rows, frame, ["nothing", "a", "b"], names)
    numbers, dense = np.unique(np.append(case.labels.reshape(-1), 0), return_inverse=True)
    image = np.moveaxis(case.values, 0, -1)
    wanted = regionprops_table(dense[:-1].reshape(shape), image, properties=PROPERTIES)
    first, ndim = len(shape) - case.dims, len(shape)
    assert table["label"].tolist() == numbers[wanted["label"]].tolist()
    assert np.array_equal(table["area"], wanted["area"])
    for number, axis in enumerate(case.axes):
        if number < first:
            assert np.array_equal(table[axis], wanted[f"bbox-{number}"])
            continue
        assert np.array_equal(table[f"bbox_min-{axis}"], wanted[f"bbox-{number}"])
        assert np.array_equal(table[f"bbox_max-{axis}"], wanted[f"bbox-{number + ndim}"])
        np.testing.assert_allclose(table[f"centroid-{axis}"], wanted[f"centroid-{number}"], rtol=1e-12)
    for number, name in enumerate(names):
        end = f"-{name}" if name else ""
        of = f"-{number}"
        assert np.array_equal(table[f"intensity_min{end}"], wanted[f"intensity_min{of}"])
        assert np.array_equal(table[f"intensity_max{end}"], wanted[f"intensity_max{of}"])
        single = case.values.dtype == np.float32  # in which scikit-image adds up
        mean = wanted[f"intensity_mean{of}"]
        np.testing.assert_allclose(table[f"intensity_mean{end}"], mean, rtol=1e-6 if single else 1e-11)
        spread = wanted[f"intensity_std{of}"]
        loose = 1e-6 * float(case.values.max())
        np.testing.assert_allclose(
            table[f"intensity_std{end}"], spread, rtol=1e-2 if single else 1e-7, atol=loose
        )


@settings(max_examples=100, deadline=None)
@given(cases())
def test_integers_do_not_depend_on_blocks_or_their_order(case: Case) -> None:
    whole = Case(case.axes, case.dims, case.labels, case.values, case.classes, case.labels.shape, 1 << 20)
    expected, forwards, backwards = summed(whole), summed(case), summed(case, -1)
    if case.layout.exact:
        assert np.array_equal(expected, forwards)
        assert np.array_equal(expected, backwards)
    else:
        for name in ("label", "area", "places", "low", "high", "per_class", "least", "most"):
            assert np.array_equal(expected[name], backwards[name])
        np.testing.assert_allclose(forwards["spread"], expected["spread"], rtol=1e-9, atol=1e-6)


@settings(max_examples=50, deadline=None)
@given(cases())
def test_class_is_that_of_most_voxels_but_background(case: Case) -> None:
    shape = case.labels.shape
    frame = Frame(case.axes, case.dims, shape, (0,) * len(shape), (1,) * len(shape))
    table = columns_of(summed(case), frame, ["nothing", "a", "b"], [""] * len(case.values))
    for label, name in zip(table["label"], table["class"], strict=True):
        counts = np.bincount(case.classes[case.labels == label], minlength=3)
        expected = 0 if not counts[1:].any() else 1 + int(counts[1:].argmax())
        assert name == ["nothing", "a", "b"][expected]


def test_variance_is_exact_where_sums_of_squares_pass_64_bits() -> None:
    # As of an object of 2**33 voxels, half of them 65535 and half 65534: squares add up to more than 2**64.
    rows = np.zeros(1, Layout("yx", channels=1, dtype="uint16").record)
    half = 1 << 32
    rows["area"], rows["total"] = 2 * half, half * 65535 + half * 65534
    rows["square"] = (half * 65535**2 + half * 65534**2) % 2**64
    assert variance(rows).item() == 0.25


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32"])
def test_spread_is_right_far_from_zero(dtype: str) -> None:
    random = np.random.default_rng(0)
    values = (random.integers(0, 3, (1, 64, 64)) + 1_000_000).astype(dtype)
    labels = np.ones((64, 64), np.uint64)
    case = Case("yx", 2, labels, values, np.ones((64, 64), np.uint8), (9, 17), 300)
    expected = values.astype(np.float64).std()
    assert np.sqrt(variance(summed(case))).item() == pytest.approx(expected, rel=1e-9)


def test_records_of_one_object_are_never_in_two_batches() -> None:
    record = Layout("yx").record
    with Spill(lambda rows: rows[np.argsort(rows["label"], kind="stable")], limit=1) as spill:
        for part in range(5):
            rows = np.zeros(700, record)
            rows["label"], rows["area"] = [4] * 600 + list(range(5, 105)), part
            spill.put(rows)
        batches = list(spill.batches())
    seen = np.concatenate([np.unique(each["label"]) for each in batches])
    assert len(seen) == len(np.unique(seen)) == 101
    assert sum(map(len, batches)) == 3500
    assert [*batches[0]["area"][:3000:600]] == [0, 1, 2, 3, 4]  # in the order in which they came
