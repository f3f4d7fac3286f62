"""Volumes, networks and cuts at random: what comes out is one pass over the whole mirrored volume, each time.

Drawn are the number, order and lengths of axes, the type and byte order of the values, the format, codec, chunks and
shards of the source, the network, the part of the volume, and how regions, tiles and chunks cut it.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from zarr.codecs import BloscCodec, BytesCodec, GzipCodec, ZstdCodec

import unet_dask
from tests.conftest import tree_hash
from tests.oracle import disagreement, sure_classes_differ, whole_logits
from tests.torture.bench import fresh, refusal
from tests.torture.tier import SEED, Tier, counted, tiers
from unet_dask.engine.infer import softmax
from unet_dask.model.file import load_model
from unet_dask.model.header import NetworkSpec, Normalisation
from unet_dask.tiling import mirror

if TYPE_CHECKING:
    from pathlib import Path

    import pytest
    from distributed import Client
    from numpy.typing import NDArray

    from unet_dask.model.file import Model

TYPES = ("u1", "i1", "u2", "i2", "u4", "i4", "f2", "f4", "f8", "?")
#: Largest difference of probabilities where logits have a standard deviation of 1 or less: other tile shapes take
#: other kernels, so the last bits differ. Rounding is relative, so it grows with the logits: with a standard deviation
#: of 5 one pass in float32 is itself off by 1.3e-5 from one in float64.
BOUND = 1e-5


@dataclass(frozen=True)
class Case:
    """A volume, a network, and how both are cut.

    Attributes
    ----------
    spec : of the network
    axes : of the source, in its order
    sizes : voxels per axis, by its letter
    store : settings of the source's array
    settings : of the run
    window : part of the volume that is segmented, by axis
    """

    spec: NetworkSpec
    axes: str
    sizes: dict[str, int]
    store: dict[str, Any]
    settings: dict[str, Any]
    window: dict[str, slice]


def drawn(draw: random.Random) -> Case:
    """Draw a case."""
    dims = draw.choice((2, 2, 3))
    depth = draw.randint(1, 3 if dims == 2 else 2)
    spec = NetworkSpec(
        dims=dims,
        width=draw.randint(2, 4),
        depth=depth,
        channels=draw.choice((1, 1, 2, 3)),
        classes=draw.randint(2, 4),
        batch_norm=draw.random() < 0.3,
    )
    space = "zyx"[-dims:]
    others = "".join(each for each in ("tz" if dims == 2 else "t") if draw.random() < 0.3)
    axes = list(others + ("c" if spec.channels > 1 or draw.random() < 0.3 else "") + space)
    draw.shuffle(axes)
    halo = spec.halo[0]
    longest = 150 if dims == 2 else 40
    lengths = (
        1,
        2,
        halo - 1,
        halo,
        halo + 1,
        2 * halo + 1,
        draw.randint(3, longest),
        draw.randint(3, longest),
    )
    sizes = {axis: draw.choice(lengths) for axis in space}
    sizes |= {axis: draw.randint(1, 3) for axis in others} | {"c": spec.channels}
    window = {axis: slice(0, sizes[axis]) for axis in space}
    if draw.random() < 0.3:
        starts = {axis: draw.randint(0, sizes[axis] - 1) for axis in space}
        window = {axis: slice(start, draw.randint(start + 1, sizes[axis])) for axis, start in starts.items()}
    return Case(
        spec,
        "".join(axes),
        sizes,
        _store(draw, [sizes[axis] for axis in axes]),
        _cuts(draw, spec, [window[axis].stop - window[axis].start for axis in space]),
        window,
    )


def _store(draw: random.Random, shape: list[int]) -> dict[str, Any]:
    """Draw how the source is stored."""
    kind = np.dtype(draw.choice(TYPES))
    big = kind.itemsize > 1 and draw.random() < 0.3
    chunks = tuple(draw.randint(1, min(size, 70)) for size in shape)
    while math.prod(-(-size // side) for size, side in zip(shape, chunks, strict=True)) > 400:
        chunks = tuple(min(2 * side, size) for side, size in zip(chunks, shape, strict=True))
    if draw.random() < 0.3:
        order = draw.choice("CF")
        return {
            "zarr_format": 2,
            "dtype": kind.newbyteorder(">" if big else "<"),
            "chunks": chunks,
            "order": order,
        }
    many = draw.random() < 0.3
    return {
        "zarr_format": 3,
        "dtype": kind,
        "chunks": chunks,
        "shards": tuple(side * draw.randint(1, 3) for side in chunks) if many else None,
        "serializer": BytesCodec(endian="big" if big else "little"),
        "compressors": draw.choice((None, ZstdCodec(), GzipCodec(), BloscCodec())),
    }


def _cuts(draw: random.Random, spec: NetworkSpec, sizes: list[int]) -> dict[str, Any]:
    """Draw regions, tiles and chunks on the lattice, or leave some of them to the plan."""
    stride = spec.stride[0]
    chunks = [stride * draw.randint(1, 6) for _ in sizes]
    least = [-(-(2 * spec.halo[0]) // side) for side in chunks]
    regions = [side * (low + draw.randint(0, 3)) for side, low in zip(chunks, least, strict=True)]
    tiles = [stride * draw.randint(1 if spec.dims == 2 else 2, 8) for _ in sizes]
    found = {"chunks": tuple(chunks), "region": tuple(regions), "tile": tuple(tiles)}
    return {name: value for name, value in found.items() if draw.random() < 0.8}


def values_of(case: Case, draw: random.Random) -> NDArray[Any]:
    """Return grey values with the source's order of axes."""
    shape = [case.sizes[axis] for axis in case.axes]
    kind = np.dtype(case.store["dtype"])
    low, high = {"b": (0, 2), "i": (-128, 128)}.get(kind.kind, (0, 256))
    return np.random.default_rng(draw.getrandbits(32)).integers(low, high, shape).astype(kind)


def expected_of(case: Case, model: Model, values: NDArray[Any]) -> NDArray[np.float32]:
    """Return logits (classes, *others, *space) by the oracle, plane by plane."""
    space = "zyx"[-case.spec.dims :]
    others = "".join(axis for axis in "tz" if axis in case.axes and axis not in space)
    whole = np.expand_dims(values, ()) if "c" in case.axes else values[..., None]
    names = case.axes if "c" in case.axes else case.axes + "c"
    ordered = np.transpose(whole, [names.index(axis) for axis in (*others, "c", *space)])
    planes = [
        whole_logits(model, ordered[index]) for index in np.ndindex(*(case.sizes[axis] for axis in others))
    ]
    stacked = np.stack(planes, axis=1).reshape(
        case.spec.classes, *(case.sizes[axis] for axis in others), *planes[0].shape[1:]
    )
    return stacked[(slice(None), *(slice(None) for _ in others), *(case.window[axis] for axis in space))]


def found_in(sink: Path, product: str) -> NDArray[Any]:
    """Return a product with its axes in the order (c, t, z, y, x), as far as it has them."""
    array = zarr.open_array(str(sink / product / "0"), mode="r")
    names = list(array.metadata.to_dict()["dimension_names"])  # type: ignore[arg-type] # we write version 3
    return np.transpose(np.asarray(array[...]), [names.index(axis) for axis in "ctzyx" if axis in names])


def settings_of(case: Case) -> dict[str, Any]:
    """Return the settings of a run: parts and chunks are told for all spatial axes, those of single planes too."""
    whole = {axis: slice(0, case.sizes[axis]) for axis in "zyx" if axis in case.axes}
    asked = ",".join(f"{each.start}:{each.stop}" for each in (whole | case.window).values())
    planes = (1,) * (len(whole) - case.spec.dims)
    chunks = {"chunks": (*planes, *case.settings["chunks"])} if "chunks" in case.settings else {}
    return case.settings | chunks | ({} if whole | case.window == whole else {"roi": asked})


def save(case: Case, folder: Path, draw: random.Random) -> tuple[Path, Path, NDArray[Any]]:
    """Write the source and the model of a case; return both, and the values."""
    source, path = folder / "source.zarr", folder / "m.safetensors"
    offset, scale = (0.5, 0.5) if np.dtype(case.store["dtype"]).kind == "b" else (100.0, 64.0)
    constants = Normalisation("constant", (offset,) * case.spec.channels, (scale,) * case.spec.channels)
    unet_dask.save_model(
        unet_dask.new_model(case.spec, seed=draw.randrange(99), normalisation=constants), path
    )
    values = values_of(case, draw)
    named: dict[str, Any] = {"dimension_names": list(case.axes)} if case.store["zarr_format"] == 3 else {}
    store = {name: value for name, value in case.store.items() if name != "shards" or value is not None}
    zarr.create_array(str(source), shape=values.shape, **store, **named)[...] = values
    return source, path, values


def wrong(case: Case, folder: Path, client: Client, draw: random.Random) -> tuple[str, list[str]]:
    """Segment a case; return what it was refused with, and what is wrong."""
    source, path, values = save(case, folder, draw)
    sink, before = folder / "out.zarr", tree_hash(source)
    settings = settings_of(case) | {"precision": "float32", "memory": "2GiB", "axes": case.axes}
    settings["products"] = "classes,probabilities"
    refused = refusal(lambda: unet_dask.segment_store(source, sink, path, client=client, **settings))
    findings = [] if tree_hash(source) == before else ["the source was touched"]
    if refused:
        return refused, findings + (["a refused run left a sink"] if sink.exists() else [])
    logits = expected_of(case, load_model(path), values)
    bound = BOUND * max(1.0, float(logits.std()))
    expected = softmax(logits)
    found, classes = found_in(sink, "probabilities"), found_in(sink, "classes")
    if found.shape != expected.shape or (off := disagreement(found, expected)) > bound:
        findings.append(f"probabilities {found.shape} for {expected.shape} are off by {off}")
    elif sure_classes_differ(classes.reshape(expected.shape[1:]), expected):
        findings.append("classes differ")
    return "", findings


def survey(folder: Path, client: Client, count: int, counts: Any) -> list[str]:
    """Draw and run cases; return what is wrong."""
    findings = []
    for number in range(count):
        draw = random.Random(f"{SEED} generated {number}")
        case = drawn(draw)
        refused, found = wrong(case, fresh(folder / "room"), client, draw)
        counts["cases"] += 1
        counts["refused"] += bool(refused)
        counts[f"{case.spec.dims}-D"] += 1
        counts["wrong"] += len(found)
        findings += [f"case {number}: {each}; {case}" for each in found]
        if refused and "Regions of" not in refused and "memory" not in refused:
            findings.append(f"case {number} was refused: {refused}; {case}")
    return findings


@tiers
def test_any_volume_cut_anyhow_is_one_pass_over_the_whole(
    tier: Tier, threads: Client, tmp_path: Path
) -> None:
    with counted("B1-B9 generated volumes", tier) as counts:
        assert survey(tmp_path, threads, tier.count(20, 2000), counts) == []
        assert counts["refused"] < 0.1 * counts["cases"]


def test_control_mirror_that_repeats_the_edge_is_found(
    threads: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def repeat(block: Any, *, origin: Any, read: Any, shape: Any) -> Any:
        pad = [
            (max(start, 0) - start, stop - min(stop, size))
            for (start, stop), size in zip(read, shape, strict=True)
        ]
        return np.pad(block, pad, mode="edge")

    monkeypatch.setattr(mirror, "extend", repeat)
    with counted("control", Tier("small")) as counts:
        assert any("off by" in each for each in survey(tmp_path, threads, 5, counts))
