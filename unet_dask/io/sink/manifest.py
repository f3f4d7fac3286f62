"""The manifest: what a run says of itself in its result, as frozen records.

Whoever holds a :class:`Manifest` has one that was checked field by field (`io.sink.manifest_parser`). Whether it agrees
with the arrays, the source and the model is asked by ``unet_dask.verify``; ``unet_dask.run.manifest`` writes it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Self

from unet_dask.config import SegmentConfig
from unet_dask.errors import GeometryError
from unet_dask.setting import read_identity
from unet_dask.tiling.region import AxisGrid, RegionGrid
from unet_dask.tiling.valid import Context

if TYPE_CHECKING:
    from collections.abc import Mapping

    from unet_dask.tiling.box import Interval


@dataclass(frozen=True)
class _Record:
    """A record of a document: fields that have their default need not be said.

    Attributes
    ----------
    others : what else stands there, of versions to come or for people; written back as it is
    """

    others: Mapping[str, Any] = field(default_factory=dict, kw_only=True)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Return what a document says, whose types were checked."""
        known = {each.name for each in fields(cls)} - {"others"}
        said: dict[str, Any] = {name: _frozen(value) for name, value in document.items() if name in known}
        return cls(**said, others={name: value for name, value in document.items() if name not in known})

    def to_json(self) -> dict[str, Any]:
        """Return the document that says it, as plain JSON."""
        said = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "others"}
        usual = {each.name: each.default for each in fields(self)}
        return {name: _plain(value) for name, value in said.items() if value != usual[name]} | dict(
            self.others
        )


def _frozen(value: Any) -> Any:  # any JSON
    return tuple(map(_frozen, value)) if type(value) is list else value


def _plain(value: Any) -> Any:  # of a record
    if isinstance(value, _Record):
        return value.to_json()
    return list(map(_plain, value)) if isinstance(value, tuple) else value


@dataclass(frozen=True)
class PlanRecord(_Record):
    """What was planned, in voxels.

    Attributes
    ----------
    axes, shape : of the source, canonical
    roi : the part that is segmented
    regions : how many there are
    region : size of one that is not the last
    tile, core, halo : what a tile reads, what it contributes, and its context, per axis along which the network looks
    precision, device : of the network
    lattice : period of its poolings, per axis like the halo; None if all of them are by 2
    skipped : regions that a mask leaves out
    limit_bytes, card_limit_bytes : that a worker may use of its machine and of its GPU; None if it is not said
    """

    axes: str
    shape: tuple[int, ...]
    roi: tuple[Interval, ...]
    regions: int
    region: tuple[int, ...]
    tile: tuple[int, ...]
    core: tuple[int, ...]
    halo: tuple[int, ...]
    precision: str
    device: str
    skipped: int
    limit_bytes: int | None = None
    card_limit_bytes: int | None = None
    lattice: tuple[int, ...] | None = None

    @property
    def extent(self) -> dict[str, Interval]:
        """The part that is segmented, by the names of its axes."""
        return dict(zip(self.axes, self.roi, strict=True))

    def grid(self) -> RegionGrid:
        """Return the run's regions and tiles.

        Raises
        ------
        GeometryError
            If they cannot be laid out.
        """
        first = len(self.axes) - len(self.halo)
        grids = []
        for axis, (size, (start, stop), step) in enumerate(
            zip(self.shape, self.roi, self.region, strict=True)
        ):
            core, context = 1, Context()
            if axis >= first:
                core, halo, tile = (sides[axis - first] for sides in (self.core, self.halo, self.tile))
                stride, slack = self._stride(axis - first), tile - core - 2 * halo
                if not 0 <= slack < stride:
                    raise GeometryError(
                        f"No network has a halo of {halo} and tiles of {tile} that give {core}"
                    )
                context = Context(halo, stride, slack)
            grids.append(AxisGrid(size, start, stop, max(step, 1), core, context))
        return RegionGrid(self.axes, tuple(grids))

    def _stride(self, axis: int) -> int:
        """Return the period of the network's pooling lattice; it is told where not all poolings are by 2."""
        if self.lattice is not None:
            return self.lattice[axis]
        # Of a U-Net of depth d whose poolings are by 2 the halo is 6 * 2**d - 4 and the lattice 2**d.
        halo = self.halo[axis]
        stride = (halo + 4) // 6
        return 0 if halo != 6 * stride - 4 or stride & (stride - 1) else stride


@dataclass(frozen=True)
class ArrayRecord(_Record):
    """A product: its name, its axes, and how many levels its pyramid has."""

    name: str
    axes: str
    levels: int


@dataclass(frozen=True)
class ModelRecord(_Record):
    """The run's model: the name of its file, and the checksum of its weights."""

    name: str
    checksum: str


@dataclass(frozen=True)
class SourceRecord:
    """The run's source: its address, its axes as they are stored, and the channels that were chosen, None for all."""

    url: str
    key: str
    axes: str
    channels: tuple[int, ...] | None


@dataclass(frozen=True)
class Manifest(_Record):
    """What a run says of itself.

    Attributes
    ----------
    fingerprint : what the values depend on, by name, as texts that are compared
    normalisation : offset and scale of every channel
    memory, card : bytes that a worker may use of its machine and of its GPU; None if a run says nothing of a GPU
    precision : of the network
    model, classes : of the run, and the names of what it tells apart
    plan, arrays, work : what was planned, the products, and the pieces of work
    mask : address, "auto", or None for none
    layout : of what lies in the run's folder while it goes on
    ranges : of feature maps, of a run of bytes
    nodes : checksums of documents by the paths of their nodes; None if a run of before says nothing of them
    """

    fingerprint: Mapping[str, str]
    normalisation: tuple[tuple[float, ...], tuple[float, ...]]
    memory: int
    precision: str
    model: ModelRecord
    classes: tuple[str, ...]
    plan: PlanRecord
    arrays: tuple[ArrayRecord, ...]
    work: int
    mask: str | None
    layout: int = 1
    card: int | None = None  # the document's name of it
    ranges: tuple[tuple[float, float], ...] = ()
    nodes: Mapping[str, str] | None = None

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Return what a document says, every field of which was checked."""
        parts = {
            "mask": document.get("mask"),
            "model": ModelRecord.from_json(document["model"]),
            "plan": PlanRecord.from_json({"skipped": 0, **document["plan"]}),
            "arrays": tuple(map(ArrayRecord.from_json, document["arrays"])),
            "ranges": tuple((float(low), float(high)) for low, high in document.get("ranges", ())),
        }
        return super().from_json({**document, **parts})

    @property
    def source(self) -> SourceRecord:
        """Where the run's source is, or was."""
        chosen = self.fingerprint["source.channels"]
        channels = None if chosen == "all" else tuple(map(int, chosen.split(",")))
        url, key, axes = (self.fingerprint[f"source.{name}"] for name in ("url", "key", "axes"))
        return SourceRecord(url, key, axes, channels)

    @property
    def settings(self) -> SegmentConfig:
        """The settings that values depend on beside the plan; all others are not those of the run."""
        return read_identity(SegmentConfig, self.fingerprint)

    @property
    def recorded(self) -> dict[str, Any]:
        """What else is said of settings, by the names that they declare."""
        plan, source = self.plan, self.source
        whole = all(interval == (0, size) for interval, size in zip(plan.roi, plan.shape, strict=True))
        part = ", ".join(f"{axis} {start}:{stop}" for axis, (start, stop) in plan.extent.items())
        return {
            "plan.device": plan.device,
            "plan.precision": plan.precision,
            "plan.roi": None if whole else part,
            "plan.tile": plan.core,
            "setting.measure": self.settings.measure,
            "memory": self.memory,
            "mask.url": self.mask,
            "source.key": source.key or None,
            "source.axes": source.axes,
            "source.channels": source.channels,
        }

    @property
    def software(self) -> dict[str, str]:
        """Versions of packages by their names."""
        return {
            name.removeprefix("software."): version
            for name, version in self.fingerprint.items()
            if name.startswith("software.")
        }

    def shape(self, array: ArrayRecord) -> tuple[int, ...]:
        """Return the shape that the finest level of a product has."""
        sizes = {axis: stop - start for axis, (start, stop) in self.plan.extent.items()}
        sizes["c"] = len(self.classes)
        return tuple(sizes[axis] for axis in array.axes)
