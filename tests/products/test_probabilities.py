"""Probabilities are described so that viewers show their channels by class, from impossible to certain."""

from __future__ import annotations

import pytest
from ome_zarr_models.common.omero import Omero

from unet_dask.products import product_of


@pytest.mark.parametrize(("dtype", "certain"), [("float32", 1), ("uint8", 254)])
def test_channels_have_the_names_of_the_classes_and_their_range(dtype: str, certain: int) -> None:
    told = product_of("probabilities", dtype).described(["background", "cell", "border"])
    channels = Omero(**told["omero"]).channels
    assert [channel["label"] for channel in told["omero"]["channels"]] == ["background", "cell", "border"]
    assert {(channel.window.min, channel.window.max) for channel in channels} == {(0, certain)}
    assert {(channel.window.start, channel.window.end) for channel in channels} == {(0, certain)}
