"""A cluster of this process alone: work is done at once, and fails as it does on any other."""

from __future__ import annotations

import pytest

from unet_dask.dispatch import run_calls
from unet_dask.errors import DataError, SinkLostError
from unet_dask.io.remote import UnreachableError
from unet_dask.workers.here import Here
from unet_dask.workers.preflight import answered


def test_what_fails_is_told_in_a_line_and_the_rest_is_done() -> None:
    def work(number: int) -> int:
        if number == 1:
            raise DataError("A chunk\nis damaged.")
        return 10 * number

    calls = (((number,), (number,)) for number in range(3))
    found = list(run_calls(Here(), work, calls, in_flight=1))
    assert found == [((0,), 0), ((1,), "A chunk is damaged."), ((2,), 20)]


def test_what_may_help_is_tried_once_more() -> None:
    tried = []

    def work(answers: int) -> str:
        tried.append(answers)
        if len(tried) < answers:
            raise UnreachableError("The store does not answer.")
        return "done"

    assert Here().outcome(work, 2) == "done"
    tried.clear()
    assert Here().outcome(work, 3) == "The store does not answer."
    assert len(tried) == 2


def test_a_sink_that_is_lost_ends_everything() -> None:
    def work() -> None:
        raise SinkLostError("The disk is full.")

    with pytest.raises(SinkLostError, match="full"):
        Here().outcome(work)


def test_what_was_submitted_is_there_or_raises_when_it_is_asked_for() -> None:
    assert answered(Here().submit(max, 1, 2)) == 2
    with pytest.raises(ZeroDivisionError):
        answered(Here().submit(divmod, 1, 0))
