"""Objects across regions: the stage that follows the regions when a run makes numbers of objects.

Each region has numbered its pieces by itself, while their classes were at hand, and put the numbers aside (`NUMBERS`);
where it could not, that is done here (:mod:`unet_dask.run.numbering`). Then the faces between regions are looked at
(:mod:`unet_dask.run.edges`), the driver finds out which numbers are one object, and each region is written to the
product, renumbered (:mod:`unet_dask.run.finish`): see :mod:`unet_dask.objects.pieces` for why that may be interrupted
anywhere and done again. Of a region that is done, the numbers that it has now meet those of its neighbours in the same
objects; but if objects are given another shape (:mod:`unet_dask.run.shape`) or other names
(:mod:`unet_dask.run.naming`), those that were put aside are needed until the end.

The ledger holds the checksum of a region's numbers from this stage, at level :data:`LEVEL`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from unet_dask.dispatch import Failure, run_calls
from unet_dask.io.sink.place import NUMBERS, SHAPED
from unet_dask.io.sink.store import create_numbers
from unet_dask.objects.hierarchy import joined
from unet_dask.objects.neurites import small
from unet_dask.objects.pieces import followed, merged
from unet_dask.objects.planes import added
from unet_dask.run import finish
from unet_dask.run.edges import Edges, edges, faces
from unet_dask.run.making import LEVEL
from unet_dask.run.naming import LastNames, Present, present
from unet_dask.run.numbering import Numbered, number, unnumbered
from unet_dask.run.room import Room, free_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Sequence

    from unet_dask.graph import Record
    from unet_dask.io.sink.store import Sink
    from unet_dask.objects.adjacency import Graph
    from unet_dask.objects.pieces import Changes
    from unet_dask.objects.rule import ObjectRule
    from unet_dask.run.finish import Work
    from unet_dask.run.making import Index, Making
    from unet_dask.workers.cluster import Cluster

    #: What is put in its place, and whether some failed.
    Steps = Generator[Record | Failure, None, bool]


def join(
    workers: Cluster, sink: Sink, making: Making, done: set[tuple[int, Index]]
) -> Generator[Record | Failure, None, None]:
    """Give each object one number and its final shape, and yield a record for each region, also of what is put aside.

    Parameters
    ----------
    workers : that look at faces and renumber
    sink : whose regions are all written
    making : of the objects
    done : keys of the ledger's entries
    """
    missing = [index for index in making.grid.indices() if (LEVEL, index) not in done]
    if missing:
        yield from _Stage(workers, sink, making, missing).steps()


@dataclass(frozen=True, slots=True)
class _Known:
    """What all regions have said of their pieces, and of their edges, in raster order."""

    parts: list[Numbered]
    edges: list[Edges]

    def changed(self, rule: ObjectRule, room: Room) -> Changes:
        """Return the numbers that change because objects go on in other regions, and what each becomes."""
        pairs = np.concatenate([each.pairs for each in self.edges])
        if not rule.threshold:
            return merged(pairs)
        changed = joined(self.graphs(), pairs, rule.threshold, room.merge)
        size = [part.size.renamed(*changed) for part in self.parts if part.size is not None]
        return followed(changed, small(added(size), rule.min_size))

    def graphs(self) -> list[Graph]:
        """Return what each region knows of its basins and of its upper faces."""
        return [
            graph
            for both in zip(self.parts, self.edges, strict=True)
            for each in both
            for graph in each.graphs
        ]


@dataclass(frozen=True, slots=True)
class _Stage:
    """The stage of a run: workers, sink, how objects are made, and the regions that are not done."""

    workers: Cluster
    sink: Sink
    making: Making
    missing: list[Index]

    def steps(self) -> Steps:
        """Do one step after the other, until one fails."""
        product = self.making.array.name
        if not self.making.rule.renames:
            return (yield from self._finished(self.missing, product))
        every = list(self.making.grid.indices())
        create_numbers(self.sink, SHAPED)
        if (yield from self._finished(every, SHAPED)):
            return True
        there: dict[Index, Present] = {}
        asked = ((index, (self.sink, self.making, index)) for index in every)
        if (yield from self._asked(present, asked, there)):
            return True
        names = LastNames(there, self.making.rule)
        return (yield from self._done(finish.renaming(self.sink, self.making, self.missing, product, names)))

    def _finished(self, regions: Sequence[Index], place: str) -> Steps:
        """Write the objects of some regions in their final shape to an array."""
        work = yield from self._learnt(regions, place)
        return True if work is None else (yield from self._done(work))

    def _learnt(self, regions: Sequence[Index], place: str) -> Generator[Record | Failure, None, Work | None]:
        """Return what is to be done with some regions, None if that cannot be found out.

        The driver keeps what it tells them, and nothing more of what it was told.
        """
        every, room = list(self.making.grid.indices()), Room(free_memory())
        parts: dict[Index, Numbered] = {}
        found: dict[Index, Edges] = {}
        if (yield from self._numbered(every, parts, room)):
            return None

        def heard(each: Edges) -> None:
            room.take(each.graphs, each.pairs)

        if (yield from self._asked(edges, self._looks(every), found, heard)):
            return None
        known = _Known([parts[index] for index in every if index in parts], [found[index] for index in every])
        return self._finish(regions, place, known, room)

    def _numbered(self, every: Sequence[Index], parts: dict[Index, Numbered], room: Room) -> Steps:
        """Give numbers to the pieces of regions that have put none aside, where these are needed."""
        sink, making, kept = self.sink, self.making, self._kept()
        if making.source is None:
            return False
        absent = unnumbered(sink, making, [index for index in every if index not in kept])
        failed = False
        for index, outcome in self._called(number, ((index, (sink, making, index)) for index in absent)):
            if isinstance(outcome, str):
                failed = True
                yield Failure(index, LEVEL, outcome)
            else:
                parts[index] = outcome
                yield outcome.record
                room.take(outcome.graphs)
        return failed

    def _looks(self, every: Iterable[Index]) -> Iterable[tuple[Index, tuple[Any, ...]]]:
        """Yield where each region has to look."""
        making, kept = self.making, self._kept()

        def place(index: Index) -> str:
            return making.array.name if index in kept else NUMBERS

        for index in every:
            looks = [
                (axis, box, (place(index), place(other)))
                for axis, box, other in faces(making.grid, index, making.dims)
            ]
            yield index, (self.sink, making, index, looks)

    def _kept(self) -> set[Index]:
        """Return the regions whose objects in the result still meet what their pieces met."""
        rule = self.making.rule
        if rule.shapes or rule.renames or rule.threshold:
            return set()
        return set(self.making.grid.indices()).difference(self.missing)

    def _finish(self, regions: Sequence[Index], place: str, known: _Known, room: Room) -> Work:
        """Return what is done once it is known which numbers are one object."""
        sink, making = self.sink, self.making
        changed = known.changed(making.rule, room)
        if not making.rule.shapes:
            return finish.renumbering(sink, making, regions, place, changed)
        crossings = [each.crossing for each in known.edges if each.crossing is not None]
        return finish.reshaping(sink, making, regions, place, changed, crossings)

    def _done(self, work: Work) -> Steps:
        """Yield what becomes of work."""
        failed = False
        for index, outcome in self._called(*work):
            failed |= isinstance(outcome, str)
            yield Failure(index, LEVEL, outcome) if isinstance(outcome, str) else outcome
        return failed

    def _asked(
        self,
        question: Callable[..., Any],
        calls: Iterable[tuple[Index, tuple[Any, ...]]],
        answers: dict[Index, Any],
        heard: Callable[[Any], None] = lambda answer: None,
    ) -> Steps:
        """Ask workers what they see, and yield what they cannot; each answer is `heard` when it comes."""
        for index, outcome in self._called(question, calls):
            if isinstance(outcome, str):
                yield Failure(index, LEVEL, outcome)
            else:
                answers[index] = outcome
                heard(outcome)
        return len(answers) < len(self.making.grid)

    def _called(
        self, function: Callable[..., Any], calls: Iterable[tuple[Index, tuple[Any, ...]]]
    ) -> Iterable[tuple[Index, Any]]:
        return run_calls(self.workers.client, function, calls, in_flight=4 * self.workers.workers)
