"""The XML beside an HDF5 file of BigDataViewer: sizes of voxels, and which setups are channels of one view.

It is looked through as text: no document of a stranger is expanded.
"""

from __future__ import annotations

import html
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from unet_dask.regular import IrregularError, open_regular
from unet_dask.spacing import unit_name

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

#: Bytes of such a document at most; one of a hundred thousand views is smaller.
_LIMIT = 64 << 20


@dataclass(frozen=True)
class Setup:
    """One view: sizes of a voxel along x, y and z with their unit, and its attributes, such as its channel."""

    voxel: tuple[float, ...] | None
    unit: str | None
    attributes: dict[str, str]


@dataclass(frozen=True)
class Described:
    """What a document says, nothing if there is none."""

    setups: dict[int, Setup] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)

    def voxel_of(self, number: int) -> tuple[float, ...] | None:
        """Return the sizes of a voxel of a setup along x, y and z."""
        return self.setups[number].voxel if number in self.setups else None

    def unit_of(self, number: int) -> str | None:
        """Return the unit of these sizes."""
        return self.setups[number].unit if number in self.setups else None

    def channels_of(self, numbers: Sequence[int]) -> tuple[str, ...]:
        """Return the names of the channels that setups are, () if they differ in more than the channel."""
        found = [self.setups[number].attributes for number in numbers if number in self.setups]
        channels = [each.get("channel", "") for each in found]
        rest = {tuple(sorted((k, v) for k, v in each.items() if k != "channel")) for each in found}
        if len(found) != len(numbers) or len(set(channels)) != len(numbers) or len(rest) != 1:
            return ()
        return tuple(self.names.get(channel, channel) for channel in channels)


def read(path: Path) -> Described:
    """Return what the document beside a file says."""
    beside = path.with_suffix(".xml")
    try:
        with open_regular(beside) as file:
            text = file.read(_LIMIT).decode("utf-8", "replace")
    except (OSError, IrregularError):
        return Described()
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    setups = dict(filter(None, map(_setup, _inside(text, "ViewSetup"))))
    named = ((_first(each, "id"), _first(each, "name")) for each in _inside(text, "Channel"))
    return Described(setups, {number: html.unescape(name) for number, name in named if number and name})


def _setup(text: str) -> tuple[int, Setup] | None:
    number = _first(text, "id")
    voxel = _first(text, "voxelSize")
    if not number.isdecimal():
        return None
    try:
        sizes = tuple(float(size) for size in _first(voxel, "size").split())
    except ValueError:
        sizes = ()
    sound = len(sizes) == 3 and all(0 < size < float("inf") for size in sizes)
    unit = html.unescape(_first(voxel, "unit"))
    attributes = dict(re.findall(r"<(\w+)>\s*([^<\s]*)\s*</\1>", _first(text, "attributes")))
    return int(number), Setup(sizes if sound else None, unit_name(unit) if unit else None, attributes)


def _inside(text: str, tag: str) -> list[str]:
    return re.findall(rf"<{tag}>(.*?)</{tag}>", text, flags=re.DOTALL)


def _first(text: str, tag: str) -> str:
    return next((found.strip() for found in _inside(text, tag)), "")
