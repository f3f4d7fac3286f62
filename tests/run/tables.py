"""Runs that keep a table of their objects, and what it has to be."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

import unet_dask
from unet_dask.measuring.kept import TABLE, kept_table
from unet_dask.objects.rule import ObjectRule

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


WANTED: dict[str, Any] = {"products": "classes,instances", "memory": "1GiB", "measure": True}
SHAPED = ObjectRule(fill_holes=True, min_size=4)


def noise(*shape: int) -> NDArray[Any]:
    return np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)


def anew(sink: Path) -> unet_dask.Measurement:
    """Return the table as it is measured afterwards."""
    aside = (sink / TABLE).rename(sink / "aside")
    try:
        return unet_dask.measure(sink)
    finally:
        aside.rename(sink / TABLE)


def agrees(sink: Path) -> int:
    """Return how many objects the table of a result has, which is what is measured afterwards."""
    expected = anew(sink)
    with kept_table(str(sink)) as found:
        assert found is not None
        given = found.given(None, None)
    assert replace(given, columns=None) == replace(expected, columns=None)
    assert given.columns is not None
    assert expected.columns is not None
    assert list(given.columns) == list(expected.columns)
    for name, values in expected.columns.items():
        assert np.array_equal(given.columns[name], values), name
        assert given.columns[name].dtype == values.dtype, name
    return given.objects
