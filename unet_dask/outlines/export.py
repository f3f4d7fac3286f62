"""The verb `export`: objects, or classes, of a finished result for other programs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from unet_dask.errors import OptionError
from unet_dask.io import remote
from unet_dask.io.source.received import consented
from unet_dask.measuring.finished import open_finished
from unet_dask.measuring.frame import frame_of
from unet_dask.measuring.measure import require_workers, source_places, written
from unet_dask.measuring.place import require_place
from unet_dask.measuring.survey import open_survey
from unet_dask.outlines.collection import write_geojson
from unet_dask.outlines.pictures import write_png, write_tiff
from unet_dask.products import PRODUCTS
from unet_dask.products.instances import Instances

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator
    from pathlib import Path

    from unet_dask.io.source.received import Consent
    from unet_dask.measuring.measure import OnBlock

_OUTLINES = ".geojson"
#: What QuPath calls an object, by what users ask for.
_KINDS = {"detections": "detection", "annotations": "annotation"}
#: What writes a picture, by the end of the name of the file.
_PICTURES = {".tif": write_tiff, ".tiff": write_tiff, ".png": write_png}


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written.

    Attributes
    ----------
    path : of the file
    objects : how many are in it; None if it holds no objects
    notes : what the user should know
    """

    path: Path
    objects: int | None
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, object]:
        """Return the same for programs."""
        return asdict(self) | {"path": str(self.path)}

    def lines(self) -> Iterator[tuple[str, str]]:
        """Yield the same for people: a label and a text for each line."""
        if self.objects is not None:
            yield "objects", f"{self.objects}"
        yield "written", str(self.path)
        for note in self.notes:
            yield "note", note


def export(
    sink: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    product: str = Instances.name,
    outlines: str | None = None,
    source: str | os.PathLike[str] | Consent | None = None,
    intensities: bool = True,
    workers: int | None = None,
    on_block: OnBlock = lambda done, total: None,
) -> Exported:
    """Write objects of a finished result for other programs, in the format that the name of the file says.

    ``.geojson`` holds an outline for each object, with its class and its measurements, for QuPath; ``.ome.tif`` (or
    ``.tif``) and ``.png`` the label image, for Fiji and ImageJ.

    Parameters
    ----------
    sink : path or URL of a result of `segment_store`
    output : file to write
    product : of a picture: "instances" or "classes"
    outlines : what QuPath takes them for: "detections", of which it shows millions, the default, or "annotations",
        to be edited
    source, intensities : of the measurements of outlines, as in :func:`unet_dask.measure`
    workers, on_block : as in :func:`unet_dask.measure`

    Raises
    ------
    SinkError
        If there is no finished result that holds it, it is damaged, or the file cannot be written.
    InputError
        If the source has changed since, or cannot be read.
    OptionError
        If the output is no place for a file, or of a kind that is not known, or cannot hold as much.
    """
    url = remote.location(sink, "sink")
    require_workers(workers)
    path = require_place(output, [url])
    _require_format(path.suffix.lower(), product)
    kind = _kind(path.suffix.lower(), outlines)
    if path.suffix.lower() == _OUTLINES:
        survey = open_survey(url, consented(source), intensities=intensities)
        require_place(path, source_places(survey))
        with written(path):
            count: int | None = write_geojson(survey, path, kind, workers, on_block)
        return Exported(path, count, survey.notes)
    result = open_finished(url, product)
    require_place(path, [result.manifest.source.url])
    with written(path):
        count = _PICTURES[path.suffix.lower()](result, frame_of(result, None), path, workers, on_block)
    return Exported(path, count)


def _kind(suffix: str, outlines: str | None) -> str:
    """Return what QuPath calls an object.

    Raises
    ------
    OptionError
        If it knows none of that name, or the file has no outlines.
    """
    if outlines is not None and suffix != _OUTLINES:
        raise OptionError(
            f"Only {_OUTLINES} holds {outlines}, not {suffix}. Name such a file, or leave it out."
        )
    kind = _KINDS.get(outlines or "detections")
    if kind is None:
        raise OptionError(f"Objects are no {outlines} of QuPath. Use {' or '.join(_KINDS)}.")
    return kind


def _require_format(suffix: str, product: str) -> None:
    """Raise unless a product can be written in a format.

    Raises
    ------
    OptionError
        If the format is not known, or is not for that product.
    """
    if suffix not in (_OUTLINES, *_PICTURES):
        raise OptionError(
            f"Nothing is exported as {suffix or 'a file without an ending'}. Name a file that ends in "
            f"{_OUTLINES}, .ome.tif, .tif or .png."
        )
    kind = PRODUCTS.get(product)
    if kind is None or kind.amounts or (suffix == _OUTLINES and not kind.joined):
        fitting = [name for name, each in PRODUCTS.items() if not each.amounts]
        fitting = [name for name in fitting if suffix != _OUTLINES or PRODUCTS[name].joined]
        raise OptionError(f"{product} are not exported as {suffix}. Use {' or '.join(fitting)}.")
