"""What a path is: a Zarr store, a model file or a result of ours, described from headers and metadata alone."""

from __future__ import annotations

import math
import posixpath
from typing import TYPE_CHECKING, Any

import numpy as np

from unet_dask.axes import one_or_all, times
from unet_dask.config import format_bytes
from unet_dask.errors import ModelError
from unet_dask.io import remote
from unet_dask.io.sink.place import RUN_FOLDER, exists, is_unfinished, result_manifest
from unet_dask.io.source import formats, node, not_zarr, resolve
from unet_dask.io.source.volume import open_source
from unet_dask.io.source.window import opened
from unet_dask.kinds import SAFETENSORS, ZIP, kind_of
from unet_dask.ledger import Ledger
from unet_dask.model.file import inspect_model
from unet_dask.model.foreign.brought import brought

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator
    from pathlib import Path

    from unet_dask.io.sink.manifest import ArrayRecord, Manifest
    from unet_dask.io.source.volume import Source
    from unet_dask.model.file import ModelFile

#: Arrays of a group that are listed.
_LISTED = 40
#: Fields of a network's record that are told, where it has them.
_OF_NETWORK = ("width", "depth", "channels", "batch_norm", "head")
#: Fields of a training record that fit a screen, in order.
_TRAINING = ("iterations", "images", "seed", "torch", "target_kind", "licence")

Description = dict[str, Any]


def describe(place: str | os.PathLike[str], *, key: str | None = None) -> Description:
    """Return what stands at a place, as plain JSON; "kind" is "model", "result", "image" or "group".

    Parameters
    ----------
    place : path or URL of a store or a result, path of a model file, or name of a model
    key : of an array in a store

    Raises
    ------
    UnetDaskError
        If it is none of these.
    """
    text = remote.location(place, "place")
    if remote.is_local(text):
        path = remote.local_path(text)
        if not path.exists() and "/" not in text and not path.suffix:
            try:
                return _model(inspect_model(text))
            except ModelError as error:
                raise ModelError(f"{text} is neither a path nor the name of a model. {error}") from error
        if not formats.reads_zarr(text):
            return _image(open_source(text, key=key))
        if brought(path) or (path.is_file() and kind_of(path) is not ZIP):
            return _file(path)
    if key is None and (manifest := result_manifest(text)) is not None:
        return _result(text, manifest)
    if key is None and is_unfinished(text):
        state = "interrupted while it was created"
        return {"kind": "result", "path": remote.redact_url(text), "state": state, "complete": False}
    return _store(text, key)


def _file(path: Path) -> Description:
    """Describe a model file; any other file is called what it is."""
    if brought(path):
        return _model(inspect_model(path))
    kind = kind_of(path)
    if kind is SAFETENSORS or kind.pickled or path.suffix == ".safetensors":
        return _model(inspect_model(path))
    raise not_zarr.no_store(path)


def _model(file: ModelFile) -> Description:
    network, normalisation = file.header.network, file.header.normalisation
    return {
        "kind": "model",
        "path": str(file.origin or file.path),
        "bytes": file.path.stat().st_size,
        "dims": network.dims,
        "network": network.text,
        **{name: value for name, value in network.record().items() if name in _OF_NETWORK},
        "parameters": network.parameters,
        "halo": list(network.halo),
        "lattice": list(network.stride),
        "axes": file.header.axes,
        "normalisation": {
            "kind": normalisation.kind,
            "offset": list(normalisation.offset),
            "scale": list(normalisation.scale),
        },
        "classes": list(file.header.class_names),
        "spacing": None if file.header.spacing is None else list(file.header.spacing),
        "unit": file.header.unit,
        "training": dict(file.header.training),
        "checksum": file.checksum,
        "notes": list(network.notes),
    }


def _result(url: str, manifest: Manifest) -> Description:
    shown = remote.redact_url(url)
    folder = f"{url.rstrip('/')}/{RUN_FOLDER}"
    done, total = len(Ledger(folder).entries()), manifest.work
    complete = exists(f"{folder}/ledger.jsonl")
    plan = manifest.plan
    return {
        "kind": "result",
        "path": shown,
        "state": "complete" if complete else f"{done} of {total} blocks done",
        "complete": complete,
        "done": done,
        "total": total,
        "source": remote.printable(posixpath.join(manifest.source.url, manifest.source.key), 400),
        "axes": plan.axes,
        "shape": list(plan.shape),
        "roi": [list(span) for span in plan.roi],
        "model": {"name": remote.printable(manifest.model.name, 400), "checksum": manifest.model.checksum},
        "classes": [remote.printable(name) for name in manifest.classes],
        "precision": plan.precision,
        "device": plan.device,
        "regions": plan.regions,
        "region": list(plan.region),
        "software": {name: remote.printable(version) for name, version in manifest.software.items()},
        "products": [_product(url, entry) for entry in manifest.arrays],
    }


def _product(url: str, entry: ArrayRecord) -> Description:
    finest = _image(open_source(url, key=posixpath.join(entry.name, "0"), axes=entry.axes))
    wanted = ("shape", "dtype", "chunks", "shards", "spacing", "unit")
    return {"name": entry.name, "axes": entry.axes, "levels": entry.levels} | {
        name: finest[name] for name in wanted
    }


def _store(url: str, key: str | None) -> Description:
    location, inner = resolve.locate(url, key)
    found = node.read_node(location, inner)
    if found is not None and not (found.is_array or found.is_image):
        below = [child for child in node.descend(found) if child.is_array or child.is_image]
        if len(below) > 1:
            return {
                "kind": "group",
                "path": location.describe(inner).strip("'"),
                "zarr_format": found.zarr_format,
                "nodes": [_node(child) for child in below[:_LISTED]],
                "more": max(len(below) - _LISTED, 0),
            }
    return _image(open_source(url, key=key, axes=_guessed(url, key)))


def _guessed(url: str, key: str | None) -> str | None:
    """Return axes for an array that says nothing about them, so that it can be described all the same."""
    location, inner = resolve.locate(url, key)
    chosen = resolve.choose(location, inner, None)
    try:
        resolve.decide_axes(chosen, None, dims=None, network_channels=None)
    except ValueError:
        count = len(chosen.node.shape)
        return {3: "zyx", 4: "czyx", 5: "tczyx"}.get(count)
    return None


def _node(child: node.Node) -> Description:
    if child.is_array:
        return {"key": child.key, "kind": "array", "shape": list(child.shape), "dtype": child.dtype_name}
    return {"key": child.key, "kind": "OME-Zarr image"}


def _image(source: Source) -> Description:
    stored = opened(source.spec)
    unspoken = source.origin_of_axes == "--axes"
    return {
        "kind": "image",
        "path": _path(source),
        "name": source.name,
        "axes": source.spec.axes,
        "origin_of_axes": "not stated; say it with --axes" if unspoken else source.origin_of_axes,
        "shape": list(stored.shape),
        "dtype": source.dtype.name,
        **stored.facts,
        "spacing": source.spacing,
        "unit": source.unit,
        "level": source.level,
        "levels": [] if source.level is None else formats.named(source.spec.format).levels(source.spec),
        "bytes": int(math.prod(stored.shape)) * np.dtype(source.dtype).itemsize,
    }


def _path(source: Source) -> str:
    place, key = remote.redact_url(source.spec.url), source.spec.key
    return posixpath.join(place, key) if key or source.spec.format == "zarr" else place


def lines(description: Description) -> Iterator[tuple[str, str]]:
    """Yield a description for people: label and text, a screenful at most."""
    kinds = {"model": _model_lines, "result": _result_lines, "group": _group_lines, "image": _image_lines}
    yield from kinds[description["kind"]](description)


def _model_lines(found: Description) -> Iterator[tuple[str, str]]:
    yield "model", f"{found['path']} ({format_bytes(found['bytes'])})"
    yield "network", found["network"] + (", batch normalisation" if found.get("batch_norm") else "")
    yield "parameters", f"{found['parameters']:,}"
    halo, lattice = one_or_all(found["halo"]), one_or_all(found["lattice"])
    yield "geometry", f"axes {found['axes']}; halo {halo}, lattice {lattice} voxels"
    constants = found["normalisation"]
    if constants["offset"]:
        pairs = zip(constants["offset"], constants["scale"], strict=True)
        yield "normalisation", ", ".join(f"(value - {offset:g}) / {scale:g}" for offset, scale in pairs)
    else:
        yield "normalisation", "by mean and standard deviation of the whole volume"
    yield "classes", ", ".join(f"{value} {name}" for value, name in enumerate(found["classes"]))
    if found["spacing"]:
        sizes = times(f"{size:g}" for size in found["spacing"])
        yield "spacing", f"{sizes} {found['unit'] or ''} in training".replace("  ", " ")
    training = found["training"]
    told = [f"{name} {training[name]}" for name in _TRAINING if training.get(name) is not None]
    yield "training", ", ".join(told) or "no record"
    scores = training.get("validation")
    if isinstance(scores, dict) and scores:
        yield "validation", ", ".join(f"{name} {_short(value)}" for name, value in scores.items())
    yield "checksum", found["checksum"]
    yield from (("note", note) for note in found["notes"])


def _short(value: Any) -> str:  # any JSON
    if isinstance(value, float):
        return f"{value:.4g}"
    return "/".join(map(_short, value)) if isinstance(value, list | tuple) else str(value)


def _result_lines(found: Description) -> Iterator[tuple[str, str]]:
    yield "result", f"{found['path']}"
    yield "state", found["state"] + ("" if found["complete"] else "; go on with segment --resume")
    if "source" not in found:
        return
    sizes = _sizes(found["axes"], found["shape"])
    yield "source", f"{found['source']}, {sizes}"
    if found["roi"] != [[0, size] for size in found["shape"]]:
        parts = (f"{axis} {a}:{b}" for axis, (a, b) in zip(found["axes"], found["roi"], strict=True))
        yield "part", ", ".join(parts)
    yield "model", f"{found['model']['name']}, checksum {found['model']['checksum'][:12]}"
    yield "classes", ", ".join(f"{value} {name}" for value, name in enumerate(found["classes"]))
    region = times(found["region"])
    yield (
        "regions",
        f"{found['regions']} of {region} ({found['axes']}); {found['precision']} on {found['device']}",
    )
    for product in found["products"]:
        shards = f", shards {times(product['shards'])}" if product["shards"] else ""
        size = f"{_sizes(product['axes'], product['shape'])}, {product['dtype']}"
        levels = f"{product['levels']} level{'s' * (product['levels'] > 1)}"
        yield product["name"], f"{size}, chunks {times(product['chunks'])}{shards}, {levels}"
    yield "software", ", ".join(f"{name} {version}" for name, version in found["software"].items())


def _group_lines(found: Description) -> Iterator[tuple[str, str]]:
    yield "group", f"{found['path']}, Zarr v{found['zarr_format']}; choose with --key"
    for child in found["nodes"]:
        yield (
            child["key"],
            child["kind"] if "shape" not in child else f"{times(child['shape'])}, {child['dtype']}",
        )
    if found["more"]:
        yield "", f"and {found['more']} more"


def _image_lines(found: Description) -> Iterator[tuple[str, str]]:
    yield "image", f"{found['path']}, {found.get('format') or 'Zarr v' + str(found['zarr_format'])}"
    yield (
        "shape",
        f"{_sizes(found['axes'], found['shape'])}, {found['dtype']} ({format_bytes(found['bytes'])})",
    )
    yield "axes", f"{found['axes']} ({found['origin_of_axes']})"
    shards = f", shards {times(found['shards'])}" if found["shards"] else ""
    how = f", {found['compression']}" if "compression" in found else ""
    yield "chunks", times(found["chunks"]) + shards + how
    told = [
        axis for axis in found["axes"] if found["unit"].get(axis) or found["spacing"].get(axis, 1.0) != 1.0
    ]
    sizes = (f"{axis} {found['spacing'][axis]:g} {found['unit'].get(axis) or ''}".rstrip() for axis in told)
    yield "spacing", ", ".join(sizes) or "unknown"
    for number, level in enumerate(found["levels"]):
        yield f"level {number}", f"{level['path']}: {times(level['shape']) if level['shape'] else 'missing'}"


def _sizes(axes: str, shape: list[int]) -> str:
    return f"{times(shape)} ({axes})"
