"""The verbs `verify_store` and `repair_store`: whether a sink is whole and right, and how it becomes so again.

Nothing is written, except by a repair. Regions are read a few at a time, by threads: reading is decoding and hashing,
which leave the interpreter free.
"""

from __future__ import annotations

import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from unet_dask.engine.device import available_cores
from unet_dask.errors import OptionError, UnetDaskError
from unet_dask.io import remote
from unet_dask.ledger import Ledger
from unet_dask.verify import crops as crops_
from unet_dask.verify.again import find_origin, mask_of
from unet_dask.verify.finding import Finding, Verification
from unet_dask.verify.record import read_record, unrecorded
from unet_dask.verify.repair import repair
from unet_dask.verify.seams import seam_scores
from unet_dask.verify.stored import open_stored
from unet_dask.verify.values import examine

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from distributed import Client

    from unet_dask.run.events import Listener
    from unet_dask.verify.stored import Piece, Stored

    #: Called with the pieces of work that were read so far, and their number.
    OnPiece = Callable[[int, int], None]

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass
class _Tally:
    """What a verification has found so far."""

    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    pieces: int = 0
    read_bytes: int = 0
    crops: int = 0
    seams: Mapping[str, float] = field(default_factory=dict)


def verify_store(
    sink: str | os.PathLike[str],
    model: str | os.PathLike[str] | None = None,
    *,
    crops: int = 4,
    seed: int = 0,
    workers: int | None = None,
    on_piece: OnPiece | None = None,
) -> Verification:
    """Verify a sink: its ledger, every checksum, sentinels, seams, and random crops recomputed.

    Parameters
    ----------
    sink : path or URL of a result of `segment_store`, complete or not; it is never written
    model : path of the run's model file, or name of a bundled model; None looks among the bundled ones
    crops : random boxes to recompute from the source on another grid of tiles; 0 for none
    seed : of the boxes, and of the faces that are looked at for seams
    workers : threads that read; None for one per core
    on_piece : called with the pieces of work that were read so far and their number

    Returns
    -------
    findings, of which there are none if the sink is whole and right

    Raises
    ------
    SinkError
        If there is no sink of ours.
    """
    return _verified(remote.location(sink, "sink"), model, (crops, seed), workers, on_piece)[1]


def repair_store(
    sink: str | os.PathLike[str],
    model: str | os.PathLike[str] | None = None,
    *,
    crops: int = 4,
    seed: int = 0,
    workers: int | None = None,
    client: Client | None = None,
    on_piece: OnPiece | None = None,
    on_event: Listener | None = None,
) -> Verification:
    """Verify a sink, do again what is wrong, and verify it once more.

    Parameters
    ----------
    sink, model, crops, seed, on_piece : as in :func:`verify_store`
    workers : threads that read, and local processes that compute; None for the defaults of both
    client : of a running cluster to compute on; None starts local workers
    on_event : called with every event of the run that computes

    Returns
    -------
    findings that are left

    Raises
    ------
    SinkError
        If there is no sink of ours, or a product's metadata is damaged.
    MismatchError
        If source, model or software are not those of the run.
    ModelError
        If the run's model is not at hand.
    """
    began, url = time.perf_counter(), remote.location(sink, "sink")
    stored, before = _verified(url, model, (crops, seed), workers, on_piece)
    wrong = {key for finding in before.findings for key in finding.pieces}
    if stored is None or (not wrong and (before.findings or Ledger(stored.sink.run_folder).complete())):
        return before  # but a run that was killed before its ledger's last step has nothing wrong, and no end
    recorded = read_record(stored).entries
    computed = repair(stored, wrong, model=model, client=client, workers=workers, on_event=on_event)
    now, after = _verified(url, model, (crops, seed), workers, on_piece)
    kept = {
        key for finding in before.findings if finding.kind in ("values", "bytes") for key in finding.pieces
    }
    entries = {} if now is None else read_record(now).entries
    others = sum(recorded[key] != entries.get(key) for key in kept)
    note = f"{others} pieces of work came out otherwise than they were recorded at first"
    return replace(
        after,
        notes=(*after.notes, note) if others else after.notes,
        repaired=computed,
        seconds=time.perf_counter() - began,
    )


def _verified(
    url: str,
    model: str | os.PathLike[str] | None,
    drawn: tuple[int, int],
    workers: int | None,
    on_piece: OnPiece | None,
) -> tuple[Stored | None, Verification]:
    """Return the sink, None if it cannot be known what it should hold, and what was found."""
    crops, seed = drawn
    if crops < 0 or seed < 0 or (workers is not None and workers < 1):
        raise OptionError("Use at least one of --workers, and for --crops and --seed a number from 0.")
    began = time.perf_counter()
    stored, findings = open_stored(url)
    tally = _Tally(findings)
    if stored is not None:
        if "nodes" not in stored.manifest:
            tally.notes.append(
                "the run was begun by an earlier version, which kept no checksums of metadata: what nobody reads may "
                "have changed there"
            )
        _values(stored, tally, workers, on_piece or (lambda done, total: None))
        _seams_and_crops(stored, tally, model, crops, seed)
    return stored, Verification(
        url,
        tuple(tally.findings),
        tuple(dict.fromkeys(tally.notes)),
        tally.pieces,
        tally.read_bytes,
        tally.crops,
        tally.seams,
        repaired=0,
        seconds=time.perf_counter() - began,
    )


def _values(stored: Stored, tally: _Tally, workers: int | None, on_piece: OnPiece) -> None:
    """Compare the ledger with the plan, and all values with the ledger."""
    record = read_record(stored)
    tally.findings += unrecorded(stored, record)
    total = sum(1 for _ in stored.pieces())

    def look(piece: Piece) -> tuple[int, list[Finding], int] | None:
        digest = record.digest(piece)
        return None if digest is None else examine(stored, piece, digest)

    foreign = 0
    for done, seen in enumerate(_in_threads(look, stored.pieces(), workers or available_cores()), 1):
        on_piece(done, total)
        if seen is None:
            continue
        tally.pieces += 1
        tally.read_bytes += seen[0]
        tally.findings += seen[1]
        foreign += seen[2]
    if foreign:
        tally.notes.append(
            f"{foreign} files hold the right values, but not in the bytes that this version of the compressor makes"
        )


def _in_threads(function: Callable[[Item], Result], items: Iterable[Item], workers: int) -> Iterator[Result]:
    """Yield ``function(item)`` in order, a few items at a time: unlike `map`, which submits them all."""
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Any] = deque()
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _seams_and_crops(
    stored: Stored, tally: _Tally, model: str | os.PathLike[str] | None, crops: int, seed: int
) -> None:
    """Look at faces between tiles, and recompute random boxes."""
    random = np.random.default_rng(seed)
    mask, reason = mask_of(stored.manifest)
    try:
        if not reason:
            tally.seams, seams = seam_scores(stored, random, mask)
            tally.findings += seams
    except UnetDaskError as error:
        reason = f"the mask cannot be read: {error}"
    if reason:
        tally.notes.append(f"seams not looked at: {reason}")
    if not crops or not len(stored.grid):
        return
    reason = crops_.unable(stored)
    if reason:
        crops = 0
        tally.notes.append(f"crops not recomputed: {reason}")
    origin, notes, different = find_origin(stored, model)
    tally.notes += [f"crops not recomputed: {note}" for note in notes]
    if different:
        text = f"the source has changed since the run ({different}), so crops are not recomputed"
        tally.findings.append(Finding("source", text))
    for _ in range(crops if origin is not None else 0):
        assert origin is not None
        outcome = crops_.recompute(stored, origin, crops_.draw(stored, origin, random))
        tally.findings += outcome.findings
        tally.notes += outcome.notes
        tally.crops += outcome.recomputed
