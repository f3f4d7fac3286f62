"""The verbs `verify_store` and `repair_store`: whether a sink is whole and right, and how it becomes so again.

Nothing is written, except by a repair. Regions are read a few at a time, by threads: reading is decoding and hashing,
which leave the interpreter free.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from unet_dask.ahead import in_order
from unet_dask.engine.device import available_cores
from unet_dask.errors import ModelError, OptionError, UnetDaskError
from unet_dask.io import remote
from unet_dask.io.source.received import consented, mask_at_hand
from unet_dask.ledger import Ledger
from unet_dask.verify import crops as crops_
from unet_dask.verify import objects
from unet_dask.verify.agreement import against_model, against_source
from unet_dask.verify.finding import Finding, Verification
from unet_dask.verify.record import read_record, senseless, unrecorded
from unet_dask.verify.reopen import find_model_of, find_origin
from unet_dask.verify.repair import repair
from unet_dask.verify.seams import seam_scores
from unet_dask.verify.stored import open_stored
from unet_dask.verify.values import examine

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping

    from distributed import Client

    from unet_dask.io.source.received import Consent
    from unet_dask.run.events import Listener
    from unet_dask.verify.stored import Piece, Stored

    #: Called with the pieces of work that were read so far, and their number.
    OnPiece = Callable[[int, int], None]


@dataclass
class _Tally:
    """What a verification has found so far."""

    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    pieces: int = 0
    read_bytes: int = 0
    crops: int = 0
    objects: int = 0
    seams: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Thoroughness:
    """How a sink is verified.

    Attributes
    ----------
    crops : random boxes to recompute from the source on another grid of tiles; 0 for none
    seed : of the boxes, and of the faces that are looked at for seams
    workers : threads that read; None for one per core
    source : path or URL of the source; None for where the result says, if that is on this machine. A
        :class:`unet_dask.io.source.received.Consent` can say more
    on_piece : called with the pieces of work that were read so far and their number

    Raises
    ------
    OptionError
        If a number is too small.
    """

    crops: int = 4
    seed: int = 0
    workers: int | None = None
    source: str | os.PathLike[str] | Consent | None = None
    on_piece: OnPiece = lambda done, total: None

    def __post_init__(self) -> None:
        if self.crops < 0 or self.seed < 0 or (self.workers is not None and self.workers < 1):
            raise OptionError("Use at least one of --workers, and for --crops and --seed a number from 0.")

    @property
    def consent(self) -> Consent:
        """What may be opened beyond this machine."""
        return consented(self.source)


def verify_store(
    sink: str | os.PathLike[str],
    model: str | os.PathLike[str] | None = None,
    **settings: Any,  # fields of Thoroughness
) -> Verification:
    """Verify a sink: its ledger, every checksum, sentinels, seams, and random crops recomputed.

    Parameters
    ----------
    sink : path or URL of a result of `segment_store`, complete or not; it is never written
    model : path of the run's model file, or its name; None looks for it here and among the named ones
    **settings : fields of :class:`Thoroughness`, such as ``crops=16``

    Returns
    -------
    findings, of which there are none if the sink is whole and right

    Raises
    ------
    SinkError
        If there is no sink of ours.
    """
    return _verified(remote.location(sink, "sink"), model, Thoroughness(**settings))[1]


def repair_store(
    sink: str | os.PathLike[str],
    model: str | os.PathLike[str] | None = None,
    *,
    client: Client | None = None,
    on_event: Listener | None = None,
    **settings: Any,  # fields of Thoroughness
) -> Verification:
    """Verify a sink, do again what is wrong, and verify it once more.

    Parameters
    ----------
    sink, model : as in :func:`verify_store`
    client : of a running cluster to compute on; None starts local workers
    on_event : called with every event of the run that computes
    **settings : fields of :class:`Thoroughness`; `workers` also counts the local processes that compute

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
    how = Thoroughness(**settings)
    stored, before = _verified(url, model, how)
    wrong = {key for finding in before.findings for key in finding.pieces}
    anew = wrong or any(finding.kind == "ledger" for finding in before.findings)
    if stored is None or (not anew and (before.findings or Ledger(stored.sink.run_folder).complete())):
        return before  # but a run that was killed before its ledger's last step has nothing wrong, and no end
    recorded = read_record(stored).entries
    computed = repair(
        stored, wrong, model=model, client=client, workers=how.workers, on_event=on_event, consent=how.consent
    )
    now, after = _verified(url, model, how)
    kept = {
        key for finding in before.findings if finding.kind in ("values", "bytes") for key in finding.pieces
    }
    entries = {} if now is None else read_record(now).entries
    others = sum(recorded[key] != entries.get(key) for key in kept)
    note = f"{others} blocks came out otherwise than they were recorded at first"
    return replace(
        after,
        notes=(*after.notes, note) if others else after.notes,
        repaired=computed,
        seconds=time.perf_counter() - began,
    )


def _verified(
    url: str, model: str | os.PathLike[str] | None, how: Thoroughness
) -> tuple[Stored | None, Verification]:
    """Return the sink, None if it cannot be known what it should hold, and what was found."""
    began = time.perf_counter()
    stored, findings = open_stored(url)
    tally = _Tally(findings)
    if stored is not None:
        if stored.manifest.nodes is None:
            tally.notes.append(
                "the run was begun by an earlier version, which kept no checksums of metadata: what nobody reads may "
                "have changed there"
            )
        _values(stored, tally, how)
        if stored.arrays:
            tally.findings += _of_model(stored, model)
            _seams_and_crops(stored, tally, model, how)
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
        objects=tally.objects,
    )


def _values(stored: Stored, tally: _Tally, how: Thoroughness) -> None:
    """Compare the ledger with the plan, and all values with the ledger."""
    record = read_record(stored)
    tally.findings += [*senseless(stored), *unrecorded(stored, record)]
    total = sum(1 for _ in stored.pieces_of(record.entries))

    def look(piece: Piece) -> tuple[int, list[Finding], int] | None:
        digest = record.digest(piece)
        return None if digest is None else examine(stored, piece, digest)

    recompressed = 0
    threads = how.workers or available_cores()
    pieces = stored.pieces_of(record.entries)
    for done, seen in enumerate(in_order(look, pieces, threads=threads, ahead=2 * threads), 1):
        how.on_piece(done, total)
        if seen is None:
            continue
        tally.pieces += 1
        tally.read_bytes += seen[0]
        tally.findings += seen[1]
        recompressed += seen[2]
    if recompressed:
        tally.notes.append(
            f"{recompressed} files hold the right values, but in other bytes than this version of the compressor makes"
        )


def _of_model(stored: Stored, model: str | os.PathLike[str] | None) -> list[Finding]:
    """Compare what a result says of its model with the model, if that is at hand."""
    try:
        return against_model(stored.manifest, find_model_of(stored.manifest, model))
    except ModelError:
        if model is not None:
            raise
        return []  # crops, which need it, say so


def _seams_and_crops(
    stored: Stored, tally: _Tally, model: str | os.PathLike[str] | None, how: Thoroughness
) -> None:
    """Look at faces between tiles, make objects again, and recompute random boxes."""
    random = np.random.default_rng(how.seed)
    _seams(stored, tally, random, how)
    if not tally.findings:  # of values that are wrong, objects would be, too
        _objects(stored, tally, how)
    if how.crops and len(stored.grid):
        _crops(stored, tally, model, random, how)


def _seams(stored: Stored, tally: _Tally, random: np.random.Generator, how: Thoroughness) -> None:
    mask, reason = mask_at_hand(stored.manifest, how.consent)
    try:
        if not reason:
            tally.seams, seams = seam_scores(stored, random, mask)
            tally.findings += seams
    except UnetDaskError as error:
        reason = f"the mask cannot be read: {error}"
    if reason:
        tally.notes.append(f"seams not looked at: {reason}")


def _objects(stored: Stored, tally: _Tally, how: Thoroughness) -> None:
    """Make the objects of random boxes again, of the classes that are stored."""
    # Drawn by themselves, so that the crops of a seed are those of before.
    random = np.random.default_rng([how.seed, 1])
    outcome = objects.remade(stored, random, boxes=how.crops)
    tally.findings += outcome.findings
    tally.objects += outcome.objects
    tally.notes += [f"objects not made again: {outcome.reason}"] if outcome.reason else []


def _crops(
    stored: Stored,
    tally: _Tally,
    model: str | os.PathLike[str] | None,
    random: np.random.Generator,
    how: Thoroughness,
) -> None:
    """Compare with the source, and recompute random boxes of it where that can be done here."""
    origin, notes, different = find_origin(stored, model, how.consent)
    reason = crops_.unable(stored)
    tally.notes += [f"crops not recomputed: {note}" for note in (*([reason] if reason else []), *notes)]
    if different:
        text = f"the source has changed since the run ({different}), so crops are not recomputed"
        tally.findings.append(Finding("source", text))
    if origin is None:
        return
    tally.findings += against_source(stored.manifest, stored.images, origin.source)
    for _ in range(0 if reason else how.crops):
        outcome = crops_.recompute(stored, origin, crops_.draw(stored, origin, random))
        tally.findings += outcome.findings
        tally.notes += outcome.notes
        tally.crops += outcome.recomputed
