"""The manifest as it is read: believed only after everything in it was looked at.

A result may come from anywhere, and a seal proves no more than that nobody damaged it by accident. So the document is
bounded before it is parsed, and every field that somebody reads is checked here for its type, its range and its fit to
the others, in the order in which they depend on each other, before it becomes a :class:`Manifest`.
"""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, Any

from unet_dask.axes import CANONICAL
from unet_dask.config import SegmentConfig
from unet_dask.errors import GeometryError, SinkError
from unet_dask.io.remote import printable, redact_url
from unet_dask.io.sink.manifest import Manifest, PlanRecord
from unet_dask.products import PRODUCTS
from unet_dask.setting import settings_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from unet_dask.setting import Setting

#: Bytes of a document; that of the largest run has some kilobytes.
LARGEST = 16 << 20
#: Voxels of a volume, so that no offset overflows.
_MOST_VOXELS = 1 << 62
#: Regions, and tiles, along an axis: their edges are held in memory.
_MOST_REGIONS = 1 << 20
#: Halves of an axis that a number of 63 bits has.
_MOST_LEVELS = 62
_MOST_CLASSES = 255
#: Characters of a path or a name, and of a field of the fingerprint, which may list the ranges of all feature maps.
_LONGEST = 4096
_LONGEST_FIELD = 1 << 20
_DIGEST = re.compile(r"[0-9a-f]{64}")
_CHANNELS = re.compile(r"all|\d{1,9}(,\d{1,9}){0,4095}", re.ASCII)
_PRECISIONS = ("float32", "bfloat16", "float16", "int8")
_DEVICES = ("cpu", "cuda", "mps")


def parse_json(data: bytes) -> Any:  # any JSON
    """Return what a document holds.

    Raises
    ------
    ValueError
        If it is no JSON, too large or too deep, or says something twice.
    """
    if len(data) > LARGEST:
        raise ValueError(f"it is larger than {LARGEST >> 20} MiB")
    try:
        return json.loads(data, object_pairs_hook=_once)
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error


def parse(document: Mapping[str, Any], url: str) -> Manifest:
    """Return a manifest, every field of it checked.

    Parameters
    ----------
    document : as it was read, with its seal
    url : of the sink, for the message

    Raises
    ------
    SinkError
        In one line, naming the field.
    """
    try:
        for check in (
            _check_settings,
            _check_plan,
            _check_geometry,
            _check_arrays,
            _check_constants,
            _check_rest,
        ):
            check(document)
    except _Senseless as error:
        raise SinkError(
            f"The manifest of the run in {redact_url(url)} makes no sense: {error}. Restore _unet_dask/zarr.json from "
            "a copy, or start over with --overwrite."
        ) from None
    return Manifest.from_json(document)


class _Senseless(Exception):  # noqa: N818 # never seen by anybody
    """A field is not what it has to be."""


def _need(true: object, field: str, value: object, wanted: str) -> None:
    if not true:
        raise _Senseless(f"{field} is {printable(value)}, and not {wanted}")


def _get(record: Any, name: str, kind: type, prefix: str = "", default: Any = None) -> Any:
    """Return a field of a record of any kind, of just the type that it has to have: True is no number."""
    found = record.get(name, default) if type(record) is dict else None
    named = {dict: "a record", list: "a list", str: "a text", int: "a whole number"}[kind]
    _need(type(found) is kind, f"{prefix}{name}", found, named)
    return found


def _text(record: Any, name: str, prefix: str = "", *, longest: int = _LONGEST) -> str:
    found: str = _get(record, name, str, prefix)
    _need(_is_text(found) and len(found) <= longest, f"{prefix}{name}", found, "a text that can be shown")
    return found


def _is_text(text: str) -> bool:
    """Return whether a text can be a path of this machine or part of one: no half characters, no NUL."""
    try:
        text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return "\0" not in text


def _number(
    record: Any,
    name: str,
    prefix: str = "",
    *,
    least: int = 0,
    most: int = _MOST_VOXELS,
    default: int | None = None,
) -> int:
    found: int = _get(record, name, int, prefix, default)
    _need(least <= found <= most, f"{prefix}{name}", found, f"from {least} to {most}")
    return found


def _numbers(record: Any, name: str, count: int, *, least: int = 0) -> list[int]:
    found: list[int] = _get(record, name, list, "plan.")
    sound = len(found) == count and all(type(n) is int and least <= n <= _MOST_VOXELS for n in found)
    _need(sound, f"plan.{name}", found, f"a list of {count} whole numbers from {least}")
    return found


def _is_finite(value: object) -> bool:
    """Return whether a value is a number that a float can hold; JSON's may be larger."""
    return type(value) in (int, float) and abs(value) < 1e300  # type: ignore[arg-type] # a number, as was just seen


def _check_settings(record: Mapping[str, Any]) -> None:
    """Check the fingerprint, and what is chosen from a few."""
    identity = _get(record, "fingerprint", dict)
    _need(len(identity) <= 100, "fingerprint", f"of {len(identity)} fields", "of at most 100")
    for name in identity:
        _need(name.isprintable() and len(name) <= 100, "a field of the fingerprint", name, "a name")
        _text(identity, name, "fingerprint.", longest=_LONGEST_FIELD)
    for name in ("source.url", "source.key"):
        _text(identity, name, "fingerprint.")
    _need(identity["source.url"], "fingerprint.source.url", "empty", "the address of a source")
    _one_axis_each(identity, "source.axes", "fingerprint.")
    channels = _get(identity, "source.channels", str, "fingerprint.")
    _need(_CHANNELS.fullmatch(channels), "fingerprint.source.channels", channels, "all, or numbers like 0,2")
    for said in settings_of(SegmentConfig):
        if said.own and (said.required or said.values in identity):
            _setting(said, _text(identity, said.values, "fingerprint."))
    _one_of(record, "precision", _PRECISIONS)


def _setting(said: Setting, text: str) -> None:
    """Check a setting that the fingerprint holds as it is."""
    try:
        said.read(text)
    except ValueError as error:
        _need(None, f"fingerprint.{said.values}", text, str(error))


def _one_of(record: Any, name: str, known: tuple[str, ...], prefix: str = "") -> None:
    value = _get(record, name, str, prefix)
    _need(value in known, f"{prefix}{name}", value, f"one of {', '.join(known)}")


def _one_axis_each(record: Any, name: str, prefix: str) -> str:
    axes: str = _get(record, name, str, prefix)
    sound = len(set(axes)) == len(axes) and {"y", "x"} <= set(axes) <= set(CANONICAL)
    _need(sound, f"{prefix}{name}", axes, "axes such as czyx")
    return axes


def _check_plan(record: Mapping[str, Any]) -> None:
    """Check types and lengths of what was planned."""
    plan = _get(record, "plan", dict)
    axes = _one_axis_each(plan, "axes", "plan.")
    ordered = "c" in axes and axes == "".join(axis for axis in CANONICAL if axis in axes)
    _need(ordered, "plan.axes", axes, "in the order tczyx, with c")
    shape = _numbers(plan, "shape", len(axes))
    _need(math.prod(shape) <= _MOST_VOXELS, "plan.shape", shape, "a volume that could be stored")
    for interval in (roi := _get(plan, "roi", list, "plan.")):
        pair = type(interval) is list and len(interval) == 2 and all(type(at) is int for at in interval)
        _need(pair, "plan.roi", roi, "a list of pairs of whole numbers")
    within = len(roi) == len(axes) and all(0 <= a <= b <= n for (a, b), n in zip(roi, shape, strict=False))
    _need(within, "plan.roi", roi, f"within the shape {shape}")
    _numbers(plan, "region", len(axes))
    halo = _get(plan, "halo", list, "plan.")
    _need(len(halo) in (2, 3) and len(halo) < len(axes), "plan.halo", halo, "one for each axis of a network")
    for name, least in (("halo", 2), ("tile", 1), ("core", 1)):
        _numbers(plan, name, len(halo), least=least)
    if "lattice" in plan:
        _numbers(plan, "lattice", len(halo), least=1)
    _need("z" in axes or len(halo) == 2, "plan.halo", halo, f"for the axes {axes}")
    _one_of(plan, "precision", _PRECISIONS, "plan.")
    _one_of(plan, "device", _DEVICES, "plan.")
    _number(plan, "regions", "plan.")
    for name in ("skipped", "limit_bytes", "card_limit_bytes"):
        _number(plan, name, "plan.", default=0)


def _check_geometry(record: Mapping[str, Any]) -> None:
    """Check that regions and tiles can be laid out as planned."""
    plan = record["plan"]
    cores = [1 << 62] * (len(plan["axes"]) - len(plan["core"])) + plan["core"]
    for axis, (start, stop), step, core in zip(plan["axes"], plan["roi"], plan["region"], cores, strict=True):
        for name, side in (("region", max(step, 1)), ("core", core)):
            few = (stop - start) // side <= _MOST_REGIONS
            _need(few, f"plan.{name}", plan[name], f"long enough for {stop - start} voxels along {axis}")
    try:
        PlanRecord.from_json({"skipped": 0, **plan}).grid()
    except GeometryError as error:
        raise _Senseless(f"plan: {str(error).rstrip('.')}") from None


def _check_arrays(record: Mapping[str, Any]) -> None:
    """Check the products, and the names of what they tell apart."""
    classes = _get(record, "classes", list)
    _need(2 <= len(classes) <= _MOST_CLASSES, "classes", classes, f"2 to {_MOST_CLASSES} names")
    for name in classes:
        _need(type(name) is str and _is_text(name) and len(name) <= _LONGEST, "classes", name, "a name")
    entries = _get(record, "arrays", list)
    axes = record["plan"]["axes"]
    for number, entry in enumerate(entries[: len(PRODUCTS)]):
        prefix = f"arrays[{number}]."
        _one_of(entry, "name", tuple(PRODUCTS), prefix)
        of_product = axes if PRODUCTS[entry["name"]].has_channels else axes.replace("c", "")
        _one_of(entry, "axes", (of_product,), prefix)
        _number(entry, "levels", prefix, least=1, most=_MOST_LEVELS)
    names = [entry["name"] for entry in entries[: len(PRODUCTS)]]
    once = names and len(set(names)) == len(entries)
    _need(once, "arrays", names, f"some of {', '.join(PRODUCTS)}, each once")
    _number(record, "work")


def _check_constants(record: Mapping[str, Any]) -> None:
    """Check the numbers that voxels are computed with."""
    constants = _get(record, "normalisation", list)
    lists = len(constants) == 2 and all(type(numbers) is list for numbers in constants)
    _need(lists, "normalisation", constants, "a list of offsets and one of scales")
    channels = record["plan"]["shape"][record["plan"]["axes"].index("c")]
    for numbers in constants:  # a run without voxels may have had none to take
        _need(
            len(numbers) in (0, channels),
            "normalisation",
            numbers,
            f"one number for each of {channels} channels",
        )
        _need(all(map(_is_finite, numbers)), "normalisation", numbers, "of finite numbers")
    _need(len(constants[0]) == len(constants[1]), "normalisation", constants, "of equal lengths")
    _need(0 not in constants[1], "normalisation", constants[1], "of scales that are not 0")
    ranges = _get(record, "ranges", list, default=[])
    for pair in ranges:
        sound = type(pair) is list and len(pair) == 2 and all(map(_is_finite, pair)) and pair[0] <= pair[1]
        _need(sound, "ranges", pair, "a pair of finite numbers in order")


def _check_rest(record: Mapping[str, Any]) -> None:
    """Check memory, model, mask and the checksums of nodes."""
    _number(record, "memory")
    _number(record, "card", default=0)
    _number(record, "layout", default=1)
    model = _get(record, "model", dict)
    _text(model, "name", "model.")
    _digest(_get(model, "checksum", str, "model."), "model.checksum")
    if record.get("mask") is not None:
        _need(_text(record, "mask"), "mask", "empty", "an address")
    nodes = _get(record, "nodes", dict, default={})
    paths = {"", *(entry["name"] for entry in record["arrays"])}
    paths |= {f"{entry['name']}/{n}" for entry in record["arrays"] for n in range(entry["levels"])}
    _need(
        not nodes or set(nodes) == paths, "nodes", sorted(nodes), "one checksum for each node of the result"
    )
    for path, digest in nodes.items():
        _digest(digest, f"nodes.{path}")


def _digest(value: object, field: str) -> None:
    _need(type(value) is str and _DIGEST.fullmatch(str(value)), field, value, "a checksum")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a record, of which nothing is said twice: readers would differ in what they take."""
    record = dict(pairs)
    if len(record) != len(pairs):
        raise ValueError("it says something twice")
    return record
