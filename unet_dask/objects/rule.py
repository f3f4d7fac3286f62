"""How objects are made of the classes of voxels: as a model says in its header, or options do."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from unet_dask.errors import OptionError

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Longest side of the box of an object that is changed, in voxels, by the dimensions of the network.
REACH = {2: 512, 3: 96}
#: Bytes per voxel that shaping objects takes beside their numbers, as they were and as they are now.
OBJECT_BYTES = 24
#: The same that making objects of basins takes, by the dimensions of the network: of noise, where every few voxels are
#: a basin; of what a trained network says it is half.
BASIN_BYTES = {2: 128, 3: 256}
#: Field of a run's fingerprint that holds the rule, where it changes anything.
OBJECTS = "plan.objects"
#: Fields that records of before do not have: they are written where they say something.
_YOUNGER = ("core", "grow", "threshold", "linked", "dense")
#: Share of an overlap from which on objects of neighbouring planes are one, unless another is said (decision 28).
LINKED = 0.1
#: Most voxels that an object can grow by: a region has to know all objects so far around it.
MOST_GROWTH = 64


@dataclass(frozen=True, slots=True)
class ObjectRule:
    """How objects are made of connected pieces of a class.

    Attributes
    ----------
    fill_holes : whether background that an object encloses becomes part of it, with smaller objects of its class there
    min_size : voxels of the smallest object, or core, that is kept, after its holes are filled
    core : class whose pieces become objects, such as the core of each nucleus; 0 for every class but background
    grow : voxels by which an object grows: from its core into the other classes beside background, or where objects are
        made of basins into those that are too small to be any
    split : depth, in voxels, of the valley of the distance transform across which an object becomes two; 0 for never
    threshold : mean affinity, as a share of the highest, from which on neighbouring basins are one object; 0 if objects
        are not made of basins but of pieces of a class
    linked : share of the pixels of two that lie over each other, from which on objects of neighbouring planes are one,
        if each is what the other overlaps most; 0 if each plane has objects of its own
    dense : whether objects are counted from 1 in the order of their first voxels, and not numbered by their places
    """

    fill_holes: bool = False
    min_size: int = 0
    split: float = 0.0
    core: int = 0
    grow: int = 0
    threshold: float = 0.0
    linked: float = 0.0
    dense: bool = False

    def __post_init__(self) -> None:
        if type(self.fill_holes) is not bool:
            raise OptionError(f"Whether holes are filled is yes or no, not {self.fill_holes!r}.")
        if type(self.min_size) is not int or not 0 <= self.min_size < 1 << 31:
            raise OptionError(f"The smallest object has from 0 to 2147483647 voxels, not {self.min_size!r}.")
        if type(self.split) not in (int, float) or not 0 <= self.split < 1 << 15:
            raise OptionError(
                f"Objects are split at valleys of a depth from 0 to 32767 voxels, not {self.split!r}."
            )
        if type(self.core) is not int or not 0 <= self.core < 1 << 8:
            raise OptionError(
                f"The core of objects is a class from 1 to 255, or 0 for none, not {self.core!r}."
            )
        if type(self.grow) is not int or not 0 <= self.grow <= MOST_GROWTH:
            raise OptionError(f"Objects grow by 0 to {MOST_GROWTH} voxels, not {self.grow!r}.")
        for name, what in (("threshold", "mean affinity"), ("linked", "overlap")):
            value = getattr(self, name)
            if type(value) not in (int, float) or not 0 <= value <= 1:
                raise OptionError(f"Objects are one from a {what} on of 0 to 1, not {value!r}.")
        self._require_fitting()

    def _require_fitting(self) -> None:
        """Raise if one field says what another cannot follow."""
        if self.grow and not self.core and not self.threshold:
            raise OptionError("Objects grow from a core into what is around it: say which class is the core.")
        others = {"a core": self.core, "filled holes": self.fill_holes, "a split": self.split}
        misfits = [name for name, value in others.items() if value]
        if self.threshold and misfits:
            raise OptionError(
                f"Objects that are made of basins have no holes, core or valleys to split at, so {misfits[0]} does not "
                "fit a threshold. Leave one of them out."
            )

    @property
    def changes(self) -> bool:
        """Whether an object can be anything else than its connected piece, with the number of that."""
        return self != ObjectRule()

    @property
    def shapes(self) -> bool:
        """Whether connected pieces are given another shape, each in its own box."""
        return not self.threshold and replace(self, linked=0.0, dense=False) != ObjectRule()

    @property
    def renames(self) -> bool:
        """Whether the last numbers of objects are known only when all objects are."""
        return self.dense or bool(self.linked)

    @property
    def text(self) -> str:
        """What is done to an object, for people.

        Examples
        --------
        >>> ObjectRule(fill_holes=True, min_size=20).text
        'connected pixels, holes filled, of 20 pixels and more'
        """
        return ", ".join(
            [
                self._made_of,
                *["holes filled"] * self.fill_holes,
                *[f"split at valleys {self.split:g} deep"] * bool(self.split),
                *[f"of {self.min_size} pixels and more"] * (self.min_size > 1),
                *[f"grown by {self.grow} pixels"] * bool(self.grow),
                *[f"linked across planes where {self.linked:.0%} overlap"] * bool(self.linked),
                *["counted from 1"] * self.dense,
            ]
        )

    @property
    def _made_of(self) -> str:
        if self.threshold:
            return f"basins joined from a mean affinity of {self.threshold:g} on"
        return f"connected pixels of class {self.core}" if self.core else "connected pixels"

    def to_json(self) -> dict[str, Any]:
        """Return the fields by name; the younger ones where they say something."""
        return {name: value for name, value in asdict(self).items() if value or name not in _YOUNGER}

    @property
    def record(self) -> str:
        """The fields as a text, which a fingerprint holds.

        Examples
        --------
        >>> ObjectRule(min_size=20).record
        '{"fill_holes": false, "min_size": 20, "split": 0.0}'
        """
        return json.dumps(self.to_json(), sort_keys=True)

    @classmethod
    def recorded(cls, fingerprint: Mapping[str, str]) -> ObjectRule | None:
        """Return the rule of a run; None if its fingerprint has it in words, as those of an earlier version."""
        try:
            return cls.from_json(json.loads(fingerprint.get(OBJECTS, "{}")))
        except (ValueError, TypeError, OptionError):
            return None

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> ObjectRule:
        """Return the rule that was written by :meth:`to_json`.

        Raises
        ------
        OptionError
            If a field is unknown, or its value is none that it can have.
        """
        unknown = sorted(set(record) - {field.name for field in fields(cls)})
        if unknown:
            raise OptionError(f"Objects have no rule {', '.join(unknown)}.")
        return cls(**record)


#: Ways to make objects by name. Components are connected pieces, and nothing is done to them; cells have no holes, and
#: pieces that are too small for one are specks (of 74 images of nuclei these two steps raise F1 from 0.46 to 0.80);
#: neurites are put together from basins, so that a gap in a membrane does not make one of two (decision 28).
METHODS = {
    "components": ObjectRule(),
    "cells": ObjectRule(fill_holes=True, min_size=20),
    "neurites": ObjectRule(threshold=0.3, min_size=20, grow=8),
}
AS_PIECES = METHODS["components"]
