"""A real field of nuclei by the bundled model: what it was cut into makes no difference to any object."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import zarr

from tests.objects.slow import slowly
from tests.torture.tier import Tier, full
from unet_dask.model.file import load_model
from unet_dask.objects.rule import REACH
from unet_dask.pipeline import plan_store, segment_store

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from unet_dask.workers.cluster import Cluster

IMAGES = Path(__file__).parents[3] / "shared" / "data" / "bbbc039" / "images"
FIELD = IMAGES / "IXMtest_A16_s3_w1032BE329-E21B-4E1B-B4B8-58700685EE0C.tif"
#: Regions, tiles and chunks; the first are the smallest, and cut most nuclei.
CUTS: tuple[dict[str, Any], ...] = (
    {"region": (64, 96), "tile": (64, 96), "chunks": (32, 32)},
    {"region": (520, 64), "tile": (136, 64), "chunks": (130, 64)},
    {"region": (128, 128), "tile": (64, 128), "chunks": (64, 64)},
    {"region": (96, 696), "tile": (96, 232), "chunks": (96, 116)},
    {"region": (256, 160), "tile": (128, 160), "chunks": (128, 80)},
    {"region": (176, 208), "tile": (88, 104), "chunks": (176, 208)},
    {"region": (312, 360), "tile": (312, 360), "chunks": (52, 60)},
    {"region": (104, 232), "tile": (104, 120), "chunks": (52, 116)},
    {"region": (384, 384), "tile": (192, 128), "chunks": (96, 128)},
    {},
)


@pytest.mark.skipif(not FIELD.exists(), reason="the real images are not here")
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "tier",
    [
        pytest.param(Tier("small"), id="small", marks=pytest.mark.slow),
        pytest.param(Tier("full"), id="full", marks=full),
    ],
)
def test_nuclei_are_those_of_the_whole_field_whatever_it_was_cut_into(
    cluster: Cluster, tmp_path: Path, tier: Tier
) -> None:
    model = load_model("nuclei")
    rule = model.header.objects
    assert rule.changes
    expected: dict[bytes, NDArray[np.int64]] = {}
    for number, cuts in enumerate(CUTS if tier.name == "full" else CUTS[:1]):
        sink = tmp_path / f"{number}.zarr"
        segment_store(
            FIELD, sink, model, products="classes,instances", memory="1GiB", client=cluster.client, **cuts
        )
        classes, found = (
            np.asarray(zarr.open_array(sink, path=f"{name}/0", mode="r")[...])
            for name in ("classes", "instances")
        )
        key = classes.tobytes()
        if key not in expected:  # of other tiles a pixel may be of another class, by rounding
            expected[key] = slowly(classes, rule, 2, REACH[2])
        assert np.array_equal(found, expected[key]), cuts
        assert len(np.unique(found)) > 50
    assert len(plan_store(FIELD, model, **CUTS[0]).grid) > 50
