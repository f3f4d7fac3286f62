"""The verb `segment_many`: one cluster, one plan and one table for many images, each with a result of its own.

An image of one region is one task: a worker does all of its run, by the code that every run is done by, and what is
left of an image beside its network is a few small files. Larger images follow one after the other, each by all workers.
"""

from __future__ import annotations

import itertools
import os
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any

from unet_dask.config import SegmentConfig, configured
from unet_dask.errors import OptionError, UnetDaskError
from unet_dask.io import remote
from unet_dask.io.sink import place as places
from unet_dask.many.asked import Asked, require_place
from unet_dask.many.book import Book
from unet_dask.many.events import Surveyed
from unet_dask.many.listing import images_of, only
from unet_dask.many.outcome import ImagesFailedError, ManyRun
from unet_dask.many.survey import survey
from unet_dask.many.work import rows, staffed
from unet_dask.model.file import model_file, verify_model
from unet_dask.run.prepare import this_machine
from unet_dask.workers import running

if TYPE_CHECKING:
    from collections.abc import Sequence

    from distributed import Client

    from unet_dask.many.events import ManyListener
    from unet_dask.many.survey import Survey
    from unet_dask.model.file import Model


def segment_many(
    sources: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    model: Model | str | os.PathLike[str],
    *,
    client: Client | None = None,
    resume: bool = False,
    overwrite: bool = False,
    config: SegmentConfig | None = None,
    on_event: ManyListener | None = None,
    **settings: Any,  # fields of SegmentConfig
) -> ManyRun:
    """Segment many images in one run: those of plates, of folders, of patterns, of a list.

    Parameters
    ----------
    sources : paths, URLs or patterns such as ``"fields/*.tif"``; of an OME-Zarr plate all fields of all wells, of a
        store that bioformats2raw wrote all series, of a folder all images, unless they are planes of one stack
    output : path or URL of the folder for the results: ``output/NAME.zarr``, of a plate ``output/A/1/0.zarr``, each of
        which is what :func:`unet_dask.segment_store` writes of that image, and a table ``output/images.csv``
    model : loaded model, path of a model file, or name of a model
    client : of a running cluster; None starts local workers
    resume : go on with a run that was interrupted: results that are there are looked at, and not computed again
    overwrite : replace earlier results, and never anything else
    config : settings, which hold for every image; a part is one of the images
    on_event : called with every event of the run
    **settings : fields of :class:`unet_dask.config.SegmentConfig` that go before `config`, such as
        ``workers=4, products="classes,instances"``

    Returns
    -------
    what became of each image; that it returns means that all of them are segmented

    Raises
    ------
    ImagesFailedError
        If some images could not be opened or segmented; its `run` says which. All others are done.
    UnetDaskError
        One of the errors of :mod:`unet_dask.errors`, if none can be done, or the run cannot go on.
    """
    chosen = configured(config, settings)
    if client is not None:
        running.require_usable(client)
    given = [sources] if isinstance(sources, str | os.PathLike) else list(sources)
    texts = [remote.location(place, "source") for place in given]
    if not texts:
        raise OptionError("There are no sources. Name at least one.")
    found = images_of(texts, key=chosen.key)
    images = [only(texts[0], chosen.key)] if found is None else found
    folder = remote.location(output, "folder of results").rstrip("/")
    asked = Asked(images, folder, chosen, resume=resume, overwrite=overwrite)
    return segment_images(asked, model, on_event or (lambda event: None), client=client)


def segment_images(
    asked: Asked,
    model: Model | str | os.PathLike[str],
    on_event: ManyListener,
    *,
    client: Client | None = None,
) -> ManyRun:
    """Segment images that are listed: the rest of :func:`segment_many`.

    Parameters
    ----------
    asked : what to do
    model, on_event, client : of :func:`segment_many`
    """
    with places.refusals_told(asked.output), model_file(model) as file:
        book = Book(asked, asked.orders(file), on_event)
        require_place(asked, book.orders, book.table)
        if not book.orders:  # of more parts than images
            return book.closed()
        verify_model(file)
        with ExitStack() as opened:
            staff, found, notes = staffed(opened, asked, book.orders, client, on_event)
            on_event(Surveyed(found, asked.output, len(book.orders), notes))
            try:
                for row in itertools.chain(found.unreadable, rows(staff, found)):
                    book.enter(row)
            except BaseException:
                with suppress(UnetDaskError):  # what ended the run is what is to be told
                    book.closed()
                raise
        run = book.closed(notes)
    if run.failed:
        raise ImagesFailedError(run)
    return run


def plan_images(asked: Asked, model: Model | str | os.PathLike[str]) -> Survey:
    """Return what a run over many images would do, with nothing begun."""
    with model_file(model) as file:
        return survey(asked.orders(file), this_machine(asked.config))
