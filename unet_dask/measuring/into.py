"""A table of objects in the image that they were found in, where ngio looks: beside the labels that it is about."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unet_dask.durable import write
from unet_dask.errors import InputError
from unet_dask.io import remote
from unet_dask.io.source.received import Consent, changed, source_of
from unet_dask.measuring.measure import require_workers, summary, tables
from unet_dask.measuring.survey import open_survey
from unet_dask.measuring.table import csv_pieces
from unet_dask.products.instances import Instances
from unet_dask.shelves.documents import write_attributes
from unet_dask.shelves.host import host_of
from unet_dask.shelves.shelf import Shelf

if TYPE_CHECKING:
    import os

    from unet_dask.measuring.finished import Finished
    from unet_dask.measuring.measure import OnBlock
    from unet_dask.measuring.measurement import Measurement
    from unet_dask.shelves.host import Host


def measure_into(
    sink: str | os.PathLike[str],
    image: str | os.PathLike[str],
    *,
    name: str | None = None,
    overwrite: bool = False,
    intensities: bool = True,
    workers: int | None = None,
    on_block: OnBlock = lambda done, total: None,
) -> Measurement:
    """Put the table of a finished result into the ``tables/`` group of the OME-Zarr image that it was made of.

    It is a feature table as ngio has them, of ``labels/NAME``: a group with a ``table.csv``.

    Parameters
    ----------
    sink : path or URL of a result of `segment_store` with instances
    image : path of the source, a local OME-Zarr image of version 0.4 or 0.5
    name : of the table, and of the label image that it is about; None for "instances"
    overwrite : whether to replace a table of that name, if it was made by this function
    intensities, workers, on_block : as in :func:`unet_dask.measure`

    Raises
    ------
    SinkError
        If there is no finished result with objects, it is damaged, or the image cannot be written.
    InputError
        If the image is not what was segmented, or none that tables can be put into.
    OptionError
        If the name is none.
    """
    require_workers(workers)
    image, named = remote.location(image, "source"), name or Instances.name
    survey = open_survey(remote.location(sink, "sink"), Consent(image), intensities=intensities)
    host = image_of(survey.result, image)
    shelf, tally = Shelf(host, "tables"), survey.tally()
    with shelf.put(named, overwrite=overwrite) as place:
        place.mkdir()
        write_attributes(place, host.zarr_format, _attributes(named))
        with tables(survey, tally, place.parent, workers, on_block) as batches:
            write(place / "table.csv", csv_pieces(survey.head, batches))
    return summary(survey, tally, shelf.folder / named, None)


def image_of(result: Finished, image: str) -> Host:
    """Return the image that a result was made of, for something to be put into it.

    Raises
    ------
    InputError
        If it is another one, or none that anything can be put into.
    """
    source = source_of(result.manifest.fingerprint, Consent(image))
    moved = remote.source_aliases(source.spec.url) != result.manifest.fingerprint["source.url"]
    different = changed(result.manifest, source, None, elsewhere=moved)
    if different:
        raise InputError(
            f"{remote.redact_url(image)} is not what was segmented ({different}), so what was found may not fit it. "
            "Name the image that the result was made of."
        )
    return host_of(source)


def _attributes(name: str) -> dict[str, object]:
    """Return what a feature table says of itself [1]_.

    References
    ----------
    .. [1] https://biovisioncenter.github.io/ngio/stable/table_specs/table_types/feature_table
    """
    return {
        "type": "feature_table",
        "table_version": "1",
        "region": {"path": f"../labels/{name}"},
        "backend": "csv",
        "index_key": "label",
        "index_type": "int",
    }
