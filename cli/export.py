"""``unet-dask export``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from .options import PATH, common, of_objects, refuse_beside
from .terminal import fact, progress, show

if TYPE_CHECKING:
    from unet_dask.outlines.export import Exported


@click.command(short_help="Write outlines, pictures or labels of objects for other programs.")
@click.argument("sink", type=PATH)
@click.option(
    "-o", "--output", type=PATH, metavar="FILE", help="File to write, .geojson, .ome.tif, .tif or .png."
)
@click.option(
    "--labels-in",
    "image",
    type=PATH,
    metavar="SOURCE",
    help="The OME-Zarr image that was segmented, to put a label image into its labels.",
)
@click.option(
    "--product",
    default="instances",
    metavar="PRODUCT",
    help="Of a picture, or of labels: instances or classes [instances].",
)
@click.option("--name", metavar="NAME", help="With --labels-in: of the label image [the product].")
@click.option("--overwrite", is_flag=True, help="With --labels-in: replace one that was exported before.")
@click.option(
    "--as",
    "outlines",
    type=click.Choice(["detections", "annotations"]),
    default=None,
    help="What QuPath takes outlines for [detections].",
)
@of_objects
@common(printed="what was written")
def export(
    sink: str, output: str | None, *, image: str | None, quiet: bool, as_json: bool, **settings: Any
) -> None:
    """Write the objects of the finished result SINK for other programs.

    \b
    unet-dask export big.seg.zarr -o objects.geojson     (QuPath: outlines, classes, measurements)
    unet-dask export big.seg.zarr -o objects.ome.tif     (Fiji, ImageJ: a number per object)
    unet-dask export big.seg.zarr -o classes.png --product classes
    unet-dask export big.seg.zarr --labels-in big.zarr   (napari, ngio, vizarr: a label image in the image)

    Outlines are in pixels of the finest level of the source, along the edges of pixels.
    """  # noqa: D301 # click takes the escaped b for "keep these lines"
    if (output is None) == (image is None):
        raise click.UsageError("Say where to, once: a file with -o, or the source with --labels-in.")
    settings["on_block"] = progress("blocks", quiet=quiet)
    made = _file(sink, str(output), **settings) if image is None else _labels(sink, image, **settings)
    if as_json:
        show(json.dumps(made.to_json()))
    elif not quiet:
        for label, text in made.lines():
            fact(label, text, err=True)


def _file(sink: str, output: str, *, no_source: bool, **settings: Any) -> Exported:
    from unet_dask.io.source.received import Consent
    from unet_dask.outlines.export import export as write_file

    refuse_beside("--labels-in", **{name: settings.pop(name) for name in ("name", "overwrite")})
    consent = Consent(settings.pop("source"), settings.pop("trusted"))
    return write_file(sink, output, source=consent, intensities=not no_source, **settings)


def _labels(sink: str, image: str, *, outlines: str | None, trusted: bool, **settings: Any) -> Exported:
    from unet_dask.outlines.labels import export_labels

    unsaid = {name: settings.pop(name) for name in ("source", "no_source")}
    refuse_beside("-o", trust_source=trusted, **unsaid, **{"as": outlines})
    return export_labels(sink, image, **settings)
