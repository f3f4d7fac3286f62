"""Settings: what texts mean, and which combinations cannot be."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unet_dask.config import SegmentConfig, format_bytes
from unet_dask.errors import OptionError
from unet_dask.texts import (
    Extent,
    parse_bytes,
    parse_channels,
    parse_extent,
    parse_products,
    parse_roi,
    parse_sizes,
)

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1", 1),
        ("8GiB", 8 << 30),
        ("8 gib", 8 << 30),
        ("500MB", 500_000_000),
        ("1.5k", 1500),
        ("2T", 2 * 10**12),
    ],
)
def test_amounts_of_memory(text: str, expected: int) -> None:
    assert parse_bytes(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("20", 20),
        ("30um2", Extent(30, "um", 2)),
        ("1.5 \N{GREEK SMALL LETTER MU}m\N{SUPERSCRIPT THREE}", Extent(1.5, "um", 3)),
        ("4nm^2", Extent(4, "nm", 2)),
    ],
)
def test_sizes_of_objects(text: str, expected: int | Extent) -> None:
    assert parse_extent(text) == expected
    assert parse_extent(str(expected)) == expected


@pytest.mark.parametrize(
    ("parser", "text"),
    [
        (parse_bytes, ""),
        (parse_bytes, "-1GiB"),
        (parse_bytes, "8 GB per worker"),
        (parse_bytes, "1e9"),
        (parse_extent, "30um"),
        (parse_extent, "30px2"),
        (parse_extent, "-3um2"),
        (parse_channels, ""),
        (parse_channels, "-1"),
        (parse_channels, "0,,1"),
        (parse_channels, "²"),
        (parse_sizes, "0"),
        (parse_sizes, "64,"),
        (parse_sizes, "64x64"),
        (parse_sizes, "³"),
    ],
)
def test_what_is_no_value_is_refused(parser: Callable[[str], Any], text: str) -> None:
    with pytest.raises(OptionError):
        parser(text)


@given(st.text(max_size=12))
def test_any_text_is_a_value_or_an_option_error(text: str) -> None:
    for parser in (parse_bytes, parse_channels, parse_extent, parse_sizes, parse_products, _roi):
        with suppress(OptionError):
            parser(text)


def _roi(text: str) -> Any:
    return parse_roi(text, axes="cyx", shape=(1, 40, 50))


def test_products_are_kept_once_in_their_order() -> None:
    assert parse_products("probabilities, classes,classes") == ("probabilities", "classes")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (":,:", ((0, 1), (0, 40), (0, 50))),
        ("1:2,3:", ((0, 1), (1, 2), (3, 50))),
        (" 0 : 40 , :7", ((0, 1), (0, 40), (0, 7))),
    ],
)
def test_region_of_interest(text: str, expected: tuple[tuple[int, int], ...]) -> None:
    assert _roi(text) == expected


@pytest.mark.parametrize(
    "text", [":", "0:41,:", "5:5,:", "9:3,:", "-5:5,:", "0:10:2,:", "a:b,:", ",", "0:1,0:1,0:1"]
)
def test_region_that_is_none(text: str) -> None:
    with pytest.raises(OptionError):
        _roi(text)


@pytest.mark.parametrize(
    "settings",
    [
        {"products": ()},
        {"products": ("labels",)},
        {"probability_dtype": "float16"},
        {"nan": "ignore"},
        {"workers": 0},
        {"threads": -2},
        {"scheduler": "tcp://a", "scheduler_file": "b"},
    ],
    ids=str,
)
def test_settings_that_cannot_be(settings: dict[str, Any]) -> None:
    with pytest.raises(OptionError):
        SegmentConfig(**settings)


@given(st.integers(0, 2**50))
def test_bytes_for_people_are_close_to_the_number(number: int) -> None:
    amount, unit = format_bytes(number).split()
    assert abs(parse_bytes(f"{amount}{unit}") - number) <= max(0.06 * number, 1)


@pytest.mark.parametrize(
    ("text", "axes", "shape", "expected"),
    [
        ("2:3,1:4,:", "tcyx", (5, 2, 9, 8), ((2, 3), (0, 2), (1, 4), (0, 8))),
        ("1:4,:7", "czyx", (1, 1, 9, 8), ((0, 1), (0, 1), (1, 4), (0, 7))),
        ("3:,1:4,:7", "tczyx", (4, 1, 6, 9, 8), None),
        ("3:,0:1,1:4,:7", "tczyx", (4, 1, 6, 9, 8), ((3, 4), (0, 1), (0, 1), (1, 4), (0, 7))),
        ("t 0:1, c 0:2, y 1:4, x 0:8", "tcyx", (5, 2, 9, 8), ((0, 1), (0, 2), (1, 4), (0, 8))),
        ("x=2:5", "cyx", (1, 9, 8), ((0, 1), (0, 9), (2, 5))),
    ],
)
def test_region_says_what_the_plan_says(
    text: str, axes: str, shape: tuple[int, ...], expected: tuple[tuple[int, int], ...] | None
) -> None:
    if expected is not None:
        assert parse_roi(text, axes=axes, shape=shape) == expected
    else:  # three intervals are along z, y and x
        with pytest.raises(OptionError, match="along z"):
            parse_roi("7:,1:4,:7", axes=axes, shape=shape)


@pytest.mark.parametrize(
    "text", ["c 0:1, y 0:4", "t 0:1", "y 0:1, y 1:2", "y 0:1, 0:4", "y 4:4", "y 0:" + "9" * 5000]
)
def test_region_of_named_axes_that_cannot_be(text: str) -> None:
    with pytest.raises(OptionError) as refused:
        parse_roi(text, axes="cyx", shape=(2, 40, 50))
    assert len(str(refused.value)) < 300


def test_numbers_of_thousands_of_digits_are_refused() -> None:
    for parser in (parse_bytes, parse_channels, parse_sizes):
        with pytest.raises(OptionError) as refused:
            parser("9" * 5000)
        assert len(str(refused.value)) < 200
