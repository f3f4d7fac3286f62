"""The table of objects: the last thing that a run makes which was asked for it (decision 33).

Workers look at blocks of the label image, with what is stored and the source; the driver puts together what they have
seen, in the order of the blocks, so that the table does not depend on who was faster. It is made in one go: killed
within, there is none, and whoever goes on begins it anew.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from unet_dask import graph
from unet_dask.dispatch import run_calls
from unet_dask.engine.slots import REGION_SLOTS, region_slots
from unet_dask.errors import IncompleteError, InputError, OptionError
from unet_dask.io.remote import redact_url
from unet_dask.io.sink.place import RUN_FOLDER, is_local, locate, require_manifest
from unet_dask.io.source.received import Consent
from unet_dask.io.source.volume import open_source
from unet_dask.measuring.finished import as_finished
from unet_dask.measuring.kept import digest_of, keep, keeps_table, table_of
from unet_dask.measuring.measure import gathered, summary
from unet_dask.measuring.survey import Survey, survey_of, surveyed
from unet_dask.measuring.table import require_arrow
from unet_dask.planning.demand import PROCESS_BYTES
from unet_dask.products.instances import Instances
from unet_dask.run.events import Remark, Stage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from unet_dask.config import SegmentConfig
    from unet_dask.ledger import Ledger
    from unet_dask.measuring.finished import Finished
    from unet_dask.measuring.tally import Seen
    from unet_dask.run.prepared import Prepared
    from unet_dask.run.recorder import Recorder
    from unet_dask.tiling.box import Box
    from unet_dask.workers.cluster import Cluster

    #: Says how an opened result is measured.
    HowMeasured = Callable[[Finished], Survey]

#: Blocks that are looked at, per worker, before what was seen of them is put together in their order.
_TOGETHER = 8


def require_table(config: SegmentConfig) -> None:
    """Raise if a table is asked for that cannot be written, before anything is computed.

    Raises
    ------
    OptionError
        If no objects are made, or what writes it is not installed.
    """
    if not config.measure:
        return
    if Instances.name not in config.products:
        wanted = ",".join((*config.products, Instances.name))
        raise OptionError(
            f"--measure makes a table of objects, and the run makes none. Ask for them with --products {wanted}, or "
            "leave --measure out."
        )
    require_arrow("leave --measure out and write .csv with unet-dask measure when the run is done")


def of_run(prepared: Prepared, result: Finished) -> Survey:
    """Return how the objects of a run are measured: in all channels of its source."""
    spec = prepared.source.spec
    return survey_of(result, open_source(spec.url, key=spec.key, axes=spec.axes), prepared.mask)


def of_result(result: Finished) -> Survey:
    """Return how the objects of a result are measured that are made again: without grey values if these are gone."""
    try:
        return surveyed(result, Consent())
    except InputError as changed:
        survey = surveyed(result, Consent(), intensities=False)
        return survey_of(survey.result, None, survey.mask, [*survey.notes, str(changed)])


def make_table(
    workers: Cluster, url: str, limit: int, ledger: Ledger, recorder: Recorder, how: HowMeasured
) -> None:
    """Measure the objects of a run, and keep the table in its result; one that is there and right is kept.

    Parameters
    ----------
    workers : that look
    url : of the sink, whose objects are all in their place
    limit : bytes that a worker may use
    ledger, recorder : of the run
    how : the result is measured

    Raises
    ------
    IncompleteError
        If something could not be read. The run is not complete, and makes the table when it goes on.
    """
    if not keeps_table(url):
        recorder.say(Stage("table of objects"))
        manifest = require_manifest(url)
        survey = how(as_finished(url, manifest))
        for note in survey.notes:
            recorder.say(Remark(f"in the table of objects, {note}"))
        tally, (fs, path) = survey.tally(), locate(url)
        folder = Path(path, RUN_FOLDER) if is_local(fs) else None
        with gathered(survey, tally, folder, _seen(workers, survey, limit, recorder)) as batches:
            keep(
                url,
                digest_of(manifest, ledger),
                survey.head,
                batches,
                lambda: summary(survey, tally, None, None),
            )
    recorder.done.table = table_of(url)


def _seen(workers: Cluster, survey: Survey, limit: int, recorder: Recorder) -> Iterator[Seen]:
    """Yield what workers see in every block, in raster order."""
    # Of a worker's memory each of two that look at a time has half, beside what the process takes.
    most = max(limit - PROCESS_BYTES, 0) // REGION_SLOTS // survey.voxel_bytes
    boxes = list(survey.result.blocks(most))
    step = _TOGETHER * workers.workers
    for first in range(0, len(boxes), step):
        calls = (((number,), (survey, box)) for number, box in enumerate(boxes[first : first + step]))
        found = dict(run_calls(workers.client, _look, calls, in_flight=REGION_SLOTS * workers.workers))
        for number in sorted(found):
            if isinstance(found[number], str):
                raise IncompleteError(
                    f"The table of the objects of {redact_url(survey.result.url)} could not be made: "
                    f"{found[number].rstrip('.')}. All else is written: mend the cause, then --resume."
                )
            seen, peak = found[number]
            recorder.done.peak_bytes = max(recorder.done.peak_bytes, peak)
            yield seen


def _look(survey: Survey, box: Box) -> tuple[Seen, int]:
    """Look at a block on a worker, and return the most memory that it has had, too."""
    with region_slots:
        return survey.look(box), graph.peak_bytes()
