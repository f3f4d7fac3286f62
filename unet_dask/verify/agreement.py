"""Facts that a result holds more than once, compared: one of two that contradict each other is false.

The manifest says most things twice, in its fingerprint and in its plan; the OME-Zarr metadata of every product say them
again for viewers, and so do the source and the model that a result was made from. A seal protects each of them from
accidents, and none of them from somebody who changes one and not the other.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from unet_dask import axes as axes_
from unet_dask.choices import Precision
from unet_dask.io.sink import pyramid
from unet_dask.io.sink.multiscale import image_metadata
from unet_dask.run.making import joined_array
from unet_dask.verify.finding import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from unet_dask.io.sink.manifest import Manifest
    from unet_dask.io.sink.store import ArraySpec
    from unet_dask.io.source.volume import Source
    from unet_dask.model.file import ModelFile
    from unet_dask.tiling.region import RegionGrid

    #: The OME-Zarr metadata of each product, as it is stored.
    Images = Mapping[str, Mapping[str, Any]]

#: What to do about contradictions and damage that no recomputation mends.
RESTORE = "Restore it from a copy, or start over with segment --overwrite"


def within_manifest(manifest: Manifest, grid: RegionGrid) -> list[Finding]:
    """Compare what the manifest says twice."""
    identity = manifest.fingerprint
    wrong = [name for name, value in _twice(manifest, grid) if identity.get(name) != value]
    wrong += [name for name, agrees in _related(manifest, grid) if not agrees]
    return [
        Finding("metadata", f"the manifest contradicts itself about {name}. {RESTORE}")
        for name in dict.fromkeys(wrong)
    ]


def _twice(manifest: Manifest, grid: RegionGrid) -> Iterator[tuple[str, str]]:
    """Yield what the fingerprint has to say of what is said elsewhere."""
    plan = manifest.plan
    offset, scale = manifest.normalisation
    yield "plan.roi", str(grid.roi)
    yield "plan.region", str(plan.region)
    yield "plan.tile", str(plan.tile)
    yield "plan.precision", plan.precision
    yield "plan.precision", manifest.precision
    yield "plan.device", plan.device
    yield "source.shape", ",".join(map(str, plan.shape))
    yield "model.checksum", manifest.model.checksum
    yield "model.normalisation", f"{offset} {scale}"
    if manifest.ranges:
        yield "model.ranges", str(manifest.ranges)


def _related(manifest: Manifest, grid: RegionGrid) -> Iterator[tuple[str, bool]]:
    """Yield what follows from something else that the manifest says, and whether it does."""
    plan, identity, mask = manifest.plan, manifest.fingerprint, manifest.mask
    sizes = axes_.by_axis(plan.axes, plan.shape)
    source = manifest.source
    yield "source.axes", axes_.canonical(source.axes) == plan.axes
    yield "source.channels", source.channels is None or len(source.channels) == sizes["c"]
    told = {"dims": len(plan.halo), "channels": sizes["c"], "classes": len(manifest.classes)}
    if plan.lattice is None:  # all poolings are by 2, and the halo tells how many they are
        told["depth"] = grid.grids[-1].context.stride.bit_length() - 1
    network = identity.get("model.network", "").partition("(")[2].rstrip(")").split(", ")
    yield (
        "model.network",
        {f"{name}={value}" for name, value in told.items()} <= set(network)
        and (plan.lattice is not None or len(set(plan.halo)) == 1),
    )
    names = [f"('{entry.name}'," for entry in manifest.arrays]
    products = identity.get("plan.products", "")
    yield "plan.products", products.count("(") == len(names) and all(name in products for name in names)
    yield "regions", plan.regions == len(grid)
    yield "skipped regions", plan.skipped <= (plan.regions if mask else 0)
    yield "memory", plan.limit_bytes in (None, manifest.memory)
    yield "card", plan.card_limit_bytes in (None, manifest.card or 0)
    yield "ranges", bool(manifest.ranges) <= (plan.precision == Precision.INT8)
    yield "mask", (mask is not None) == ("mask.url" in identity) == ("plan.tiling" in identity)
    if mask not in (None, "auto"):
        address = "/".join(identity[name] for name in ("mask.url", "mask.key") if identity.get(name))
        yield "mask", mask == address


def work_of(manifest: Manifest, grid: RegionGrid, arrays: tuple[ArraySpec, ...]) -> list[Finding]:
    """Compare the pieces of work of a run with those of its regions and pyramids."""
    blocks = sum(
        math.prod(pyramid.block_counts(array, level))
        for array in arrays
        for level in range(1, len(array.levels))
    )
    planned = len(grid) * (1 + bool(joined_array(arrays))) + blocks
    if planned == manifest.work:
        return []
    text = f"the manifest speaks of {manifest.work} blocks, and its plan has {planned}. {RESTORE}"
    return [Finding("metadata", text)]


def image_text(ome: Mapping[str, Any], spec: ArraySpec, classes: Sequence[str]) -> str:
    """Return in what OME-Zarr metadata do not describe the arrays of a product, "" if they do.

    Raises
    ------
    Exception
        Of any kind, if they are no such metadata at all.
    """
    (image,) = ome["multiscales"]
    first = image["datasets"][0]["coordinateTransformations"]
    spacing = axes_.by_axis(spec.axes, map(float, first[0]["scale"]))
    shift = axes_.by_axis(spec.axes, map(float, first[1]["translation"]))
    unit = {axis["name"]: axis.get("unit") for axis in image["axes"]}
    expected = image_metadata(
        spec.axes, spec.levels, name=str(image["name"]), spacing=spacing, unit=unit, translation=shift
    )
    (wanted,) = expected["multiscales"]
    paths = [[each["path"] for each in one["datasets"]] for one in (image, wanted)]
    names, wanted_names = (
        label.get("image-label", {}).get("properties") for label in (ome, spec.product.described(classes))
    )
    facts = {
        f"OME-Zarr version is {ome['version']}": ome["version"] == expected["version"],
        "OME-Zarr axes are others": image["axes"] == wanted["axes"],
        "the OME-Zarr name is that of another product": str(image["name"]).endswith(f" {spec.name}"),
        f"OME-Zarr levels are {paths[0]}": paths[0] == paths[1],
        "the names of its classes are not those of the manifest": wanted_names is None
        or names == wanted_names,
        "OME-Zarr scales or translations do not fit the levels": all(
            _close(one["coordinateTransformations"], other["coordinateTransformations"])
            for one, other in zip(image["datasets"], wanted["datasets"], strict=False)
        ),
    }
    return next((text for text, holds in facts.items() if not holds), "")


def _close(found: Any, wanted: Any) -> bool:  # any JSON, and ours
    """Return whether transformations are the same but for rounding."""
    return [each["type"] for each in found] == [each["type"] for each in wanted] and all(
        math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-9 * max(1.0, abs(b)))
        for one, other in zip(found, wanted, strict=True)
        for a, b in zip(one[one["type"]], other[other["type"]], strict=True)
    )


def among_products(images: Images) -> list[Finding]:
    """Compare what products say of the same voxels: size, unit and place."""
    told = {name: _physical(ome) for name, ome in images.items()}
    findings = []
    for what in ("spacing", "unit", "translation"):
        every = [physical[what] for physical in told.values()]
        if any(
            one[axis] != every[0].get(axis, one[axis])
            for one in every
            for axis in one
            if not axes_.is_channel(axis)
        ):
            text = f"the OME-Zarr metadata of {', '.join(told)} contradict each other about the {what}. {RESTORE}"
            findings.append(Finding("metadata", text))
    return findings


def _physical(ome: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return spacing, unit and translation of level 0, per axis, from metadata that are sound."""
    (image,) = ome["multiscales"]
    names = [axis["name"] for axis in image["axes"]]
    scale, shift = image["datasets"][0]["coordinateTransformations"]
    return {
        "spacing": dict(zip(names, scale["scale"], strict=True)),
        "unit": {axis["name"]: axis.get("unit") for axis in image["axes"]},
        "translation": dict(zip(names, shift["translation"], strict=True)),
    }


def against_model(manifest: Manifest, model: ModelFile) -> list[Finding]:
    """Compare what a result says of its model with the model."""
    header, identity, plan = model.header, manifest.fingerprint, manifest.plan
    constants, stride = header.normalisation, header.network.stride
    offset, scale = manifest.normalisation
    facts = {
        "classes": manifest.classes == header.class_names,
        "network": identity.get("model.network") == str(header.network),
        "context": (plan.halo, plan.lattice or stride) == (header.network.halo, stride),
        "normalisation": constants.of_volume or (offset, scale) == (constants.offset, constants.scale),
    }
    return [
        Finding("metadata", f"the manifest and the model contradict each other about the {what}. {RESTORE}")
        for what, agrees in facts.items()
        if not agrees
    ]


def against_source(manifest: Manifest, images: Images, source: Source) -> list[Finding]:
    """Compare the size and place of a result's voxels with those of its source."""
    plan = manifest.plan
    corner = {
        axis: source.translation.get(axis, 0.0) + start * source.spacing.get(axis, 1.0)
        for axis, (start, _) in plan.extent.items()
    }
    wrong = set()
    for ome in images.values():
        told = _physical(ome)
        for axis in told["unit"].keys() - {"c"}:
            if not math.isclose(told["spacing"][axis], source.spacing.get(axis, 1.0), rel_tol=1e-9):
                wrong.add("spacing")
            if not math.isclose(told["translation"][axis], corner[axis], rel_tol=1e-9, abs_tol=1e-9):
                wrong.add("translation")
            if told["unit"][axis] not in (None, source.unit.get(axis)):
                wrong.add("unit")
    return [
        Finding("metadata", f"the result and its source contradict each other about the {what}. {RESTORE}")
        for what in sorted(wrong)
    ]
