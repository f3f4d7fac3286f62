"""Who is given work: whoever has least left, among those who are there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unet_dask import homes
from unet_dask.homes import ANYWHERE, Homes

if TYPE_CHECKING:
    import pytest


def test_work_goes_to_whoever_has_least_until_all_have_enough() -> None:
    crew = Homes(lambda: ("a", "b"), low_water=1)
    given = []
    while (home := crew.hungry()) is not None:
        crew.give(home, 4)
        given.append(home)
    assert given == ["a", "b"]
    for _ in range(2):
        crew.take("b")
    assert crew.hungry() is None
    crew.take("b")
    assert crew.hungry() == "b"


def test_workers_that_come_and_go_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(homes, "_ASK_EVERY", -1.0)
    present = ["a"]
    crew = Homes(lambda: present, low_water=1)
    crew.give("a", 8)
    assert crew.hungry() is None
    present.append("b")
    assert crew.hungry() == "b"
    present.remove("a")
    crew.give("b", 3)
    assert crew.hungry() is None


def test_without_workers_work_is_given_to_nobody_in_particular() -> None:
    crew = Homes(lambda: (), low_water=1)
    assert crew.hungry() == ANYWHERE
    crew.give(ANYWHERE, 2)
    assert crew.hungry() is None
