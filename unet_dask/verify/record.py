"""The ledger against the plan: what is not recorded as done, and what is recorded but was never planned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from unet_dask.ledger import Ledger
from unet_dask.verify.finding import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from unet_dask.ledger import Entry
    from unet_dask.verify.finding import Key
    from unet_dask.verify.stored import Piece, Stored


#: Pieces of work that are listed one by one if they are not done.
_LISTED = 10_000


@dataclass(frozen=True)
class Record:
    """What the ledger of a sink says.

    Attributes
    ----------
    entries : by level and index; those of levels up to 0 are all about regions, one for each stage of the work
    regions : checksum of every product of a region, by index
    """

    entries: Mapping[Key, Entry]
    regions: Mapping[tuple[int, ...], Mapping[str, str]]

    def digest(self, piece: Piece) -> str | None:
        """Return the checksum of a piece of work, None if it is not done."""
        if piece.level:
            entry = self.entries.get(piece.key)
            return None if entry is None else entry.checksums.get(piece.product)
        return self.regions.get(piece.index, {}).get(piece.product)


def read_record(stored: Stored) -> Record:
    """Read the ledger of a sink."""
    entries = Ledger(stored.sink.run_folder).entries()
    regions: dict[tuple[int, ...], dict[str, str]] = {}
    for (level, index), entry in sorted(entries.items()):
        if level <= 0:
            regions.setdefault(index, {}).update(entry.checksums)
    return Record(entries, regions)


def senseless(stored: Stored) -> Iterator[Finding]:
    """Yield a finding if the ledger has lines that no run wrote, or says two things of one piece of work."""
    ledger = Ledger(stored.sink.run_folder)
    lines = ledger.senseless()
    if lines:
        text = f"{lines} lines of the ledger have a right checksum and hold nothing that a run writes"
        yield Finding("ledger", f"{text}; they do not count")
    twice = ledger.contradictions() if ledger.complete() else set()
    for level, index in sorted(twice):
        text = f"the ledger says two things of level {level}, index {index}"
        yield Finding("ledger", text, pieces=((level, index),))


def unrecorded(stored: Stored, record: Record) -> Iterator[Finding]:
    """Yield what a complete ledger would hold and this one does not, and the reverse."""
    done = {piece.key for piece in stored.pieces_of(record.entries)}
    missing = stored.work - len(done)
    if missing > _LISTED:
        yield Finding(
            "ledger", f"{missing} of {stored.work} pieces of work are not done; segment --resume does them"
        )
    planned: set[Key] = done
    silent: set[Key] = set()
    for piece in stored.pieces() if missing <= _LISTED else ():
        planned.add(piece.key)
        if record.digest(piece) is None and piece.key not in silent:
            silent.add(piece.key)
            whole = piece.level or piece.index not in record.regions
            yield Finding(
                "ledger",
                "is not done" if whole else f"{piece.product} of this region are not done",
                piece.product if piece.level else "",
                piece.level,
                stored.shown(piece.level, piece.box),
                (piece.key,),
            )
    known = {array.name for array in stored.arrays}
    for key, entry in record.entries.items():
        # A product whose metadata is damaged has pieces that are not known here.
        if key not in planned and key[0] >= 0 and set(entry.checksums) <= known:
            text = f"the ledger holds work that was never planned: level {key[0]}, index {key[1]}"
            yield Finding("ledger", text, pieces=(key,))
