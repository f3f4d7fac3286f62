"""The header: read against an allow-list with bounds."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unet_dask.errors import ModelError
from unet_dask.model.header import ModelHeader, NetworkSpec, Normalisation

HEADER = ModelHeader(
    NetworkSpec(width=4, depth=2), Normalisation("constant", (0.0,), (1.0,)), ("background", "cell")
)


def changed(**changes: Any) -> str:
    record = json.loads(HEADER.to_json())
    for name, value in changes.items():
        holder, _, field = name.rpartition("__")
        (record[holder] if holder else record)[field] = value
    return json.dumps(record)


@given(
    dims=st.integers(2, 3),
    width=st.integers(1, 1024),
    depth=st.integers(1, 6),
    channels=st.integers(1, 4),
    classes=st.integers(2, 255),
    batch_norm=st.booleans(),
    names=st.text(),
)
def test_header_survives_json(names: str, channels: int, classes: int, **network: Any) -> None:
    spec = NetworkSpec(channels=channels, classes=classes, **network)
    constants = Normalisation("constant", (0.5,) * channels, (2.0,) * channels)
    header = ModelHeader(spec, constants, tuple(f"{names}{index}" for index in range(classes)))
    assert ModelHeader.from_json(header.to_json()) == header


def test_what_came_later_is_written_where_it_is_used_and_only_there() -> None:
    """Model files and fingerprints of before keep their bytes."""
    usual = json.loads(HEADER.to_json())["network"]
    assert list(usual) == ["batch_norm", "channels", "classes", "depth", "dims", "dropout", "width"]
    assert str(NetworkSpec()) == (
        "NetworkSpec(dims=2, width=64, depth=4, channels=1, classes=2, batch_norm=False, dropout=0.5)"
    )
    spec = NetworkSpec(dims=3, width=4, depth=2, factors=((1, 2, 2), (2, 2, 2)))
    header = ModelHeader(spec, HEADER.normalisation, HEADER.class_names)
    record = json.loads(header.to_json())
    assert record["network"]["factors"] == [[1, 2, 2], [2, 2, 2]]
    assert (record["halo"], record["stride"]) == ([12, 20, 20], [2, 4, 4])
    assert ModelHeader.from_json(header.to_json()) == header
    assert str(spec).endswith("factors=((1, 2, 2), (2, 2, 2)))")


def test_factors_of_2_are_the_default_that_they_are() -> None:
    assert NetworkSpec(depth=2, factors=((2, 2), (2, 2))) == NetworkSpec(depth=2)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"network__factors": [[2, 2]]}, "factors must be 2 whole numbers"),
        ({"network__factors": [[2, 2], [1, 1]]}, "factors"),
        ({"network__factors": [[2, 2], [2, 5]]}, "factors"),
        ({"network__factors": [[2, 2], [2, True]]}, "factors"),
        ({"network__factors": [[2, 2], [2, 2, 2]]}, "factors"),
        ({"network__factors": 2}, "factors"),
        ({"network__factors": [2, 2]}, "factors"),
        ({"network__factors": ["22", "22"]}, "factors"),
        ({"network__architecture": "transformer"}, "architecture must be unet, not 'transformer'"),
        ({"network__architecture": ["unet"]}, "architecture|damaged"),
        ({"network__head": "sigmoid"}, "head must be softmax, not 'sigmoid'"),
        ({"network__dims": 4}, "dims"),
        ({"network__width": 0}, "width"),
        ({"network__width": 2.0}, "width"),
        ({"network__width": True}, "width"),
        ({"network__depth": 60}, "depth"),
        ({"network__channels": 10**9}, "channels"),
        ({"network__classes": 1}, "classes"),
        ({"network__batch_norm": 1}, "batch_norm"),
        ({"network__dropout": 1.0}, "dropout"),
        ({"network__dropout": "x"}, "dropout"),
        ({"network__code": "import os"}, "unknown fields: code"),
        ({"network": []}, "damaged|unknown|halo"),
        ({"network": None}, "damaged"),
        ({"normalisation__kind": "tile"}, "constant or volume"),
        ({"normalisation__scale": [0]}, "scale not 0"),
        ({"normalisation__offset": [1e999]}, "finite"),
        ({"normalisation__offset": ["x"]}, "damaged"),
        ({"normalisation__offset": [1, 2], "normalisation__scale": [1, 2]}, "1 channels"),
        ({"class_names": ["one"]}, "as many names"),
        ({"class_names": None}, "damaged"),
        ({"spacing": [1.0]}, "spacing"),
        ({"spacing": ["x", "y"]}, "damaged"),
        ({"unit": 3}, "damaged"),
        ({"training": "yes"}, "damaged"),
        ({"halo": [1, 1]}, "halo"),
        ({"format": "unet-dask/2"}, "reads 'unet-dask/1'"),
    ],
    ids=str,
)
def test_header_out_of_bounds_is_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ModelError, match=says):
        ModelHeader.from_json(changed(**changes))


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "7", "null", '"x"', "[" * 100_000], ids=lambda text: text[:4] or "empty"
)
def test_what_is_no_header_is_refused(text: str) -> None:
    with pytest.raises(ModelError, match="header"):
        ModelHeader.from_json(text)


@given(
    st.recursive(
        st.none() | st.integers() | st.text(), lambda each: st.lists(each) | st.dictionaries(st.text(), each)
    )
)
def test_no_value_of_a_field_is_more_than_a_model_error(value: Any) -> None:
    for field in ("network", "normalisation", "class_names", "spacing", "unit", "training", "halo"):
        with suppress(ModelError):
            ModelHeader.from_json(changed(**{field: value}))
