"""Pieces of a finished result that rot, vanish, or change places: each is found, and a mended result is whole again."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import unet_dask
from tests.torture.tier import SEED, Tier, counted, tiers

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from distributed import Client


def spoil(
    chunk: Path, chunks: list[Path], stranger: Path, draw: random.Random
) -> tuple[str, dict[Path, bytes]]:
    """Do one thing to a chunk, and perhaps to another; return what, and what the files held.

    `stranger` is the chunk of the same place in the result of another source.
    """
    whole, theirs = chunk.read_bytes(), stranger.read_bytes()
    other = draw.choice([each for each in chunks if each.read_bytes() != whole])
    kind = draw.choice(["flip", "bit", "truncation", "nothing", "deletion", "swap", "stale"])
    if kind == "stale" and theirs == whole:
        kind = "swap"
    before = {chunk: whole}
    at = draw.randrange(len(whole))
    if kind == "deletion":
        chunk.unlink()
    elif kind == "swap":
        before[other] = other.read_bytes()
        chunk.write_bytes(before[other])
        other.write_bytes(whole)
    elif kind in ("flip", "bit"):
        changed = draw.randrange(1, 256) if kind == "flip" else 1 << draw.randrange(8)
        chunk.write_bytes(whole[:at] + bytes([whole[at] ^ changed]) + whole[at + 1 :])
    else:
        chunk.write_bytes({"truncation": whole[:at], "nothing": b"", "stale": theirs}[kind])
    return kind, before


@tiers
def test_whatever_is_done_to_a_chunk_is_found(
    tier: Tier, tiny_model: Path, make_source: Callable[..., Path], threads: Client, tmp_path: Path
) -> None:
    sink, other = tmp_path / "0.seg.zarr", tmp_path / "1.seg.zarr"
    for seed, place in enumerate((sink, other)):
        source = make_source(tmp_path / f"{seed}.zarr", (24, 520), seed=seed)
        unet_dask.segment_store(
            source,
            place,
            tiny_model,
            client=threads,
            precision="float32",
            products="classes,probabilities",
            region=(24, 260),
            tile=(32, 32),
            chunks=(12, 130),
        )
    chunks = sorted(path for path in sink.rglob("c/**/*") if path.is_file())
    missed = []
    with counted("A10 corruptions of a result", tier) as counts:
        for number in range(tier.count(100, 10_000)):
            draw = random.Random(f"{SEED} corruption {number}")
            chunk = draw.choice(chunks)
            kind, before = spoil(chunk, chunks, other / chunk.relative_to(sink), draw)
            if not unet_dask.verify_store(sink, crops=0).findings:
                missed.append((number, kind, chunk))
            counts[kind] += 1
            for path, data in before.items():
                path.write_bytes(data)
        counts["missed"] = len(missed)
        assert missed == []
        assert unet_dask.verify_store(sink, crops=0).findings == ()
