from __future__ import annotations

import math

from unet_dask.metrics.ratio import Ratio


def test_pooling_is_no_mean_of_quotients() -> None:
    assert (Ratio(1, 1) + Ratio(0, 9)).value == 0.1


def test_complement_pools_as_its_score_does() -> None:
    a, b = Ratio(1, 4), Ratio(2, 3)
    assert (a + b).complement == a.complement + b.complement


def test_nothing_is_not_a_number() -> None:
    assert math.isnan(Ratio(0, 0).value)
