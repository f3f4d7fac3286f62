"""Slides of scanners, from files with their tags: values, levels, size of a pixel and channels."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile

from unet_dask.errors import InputError
from unet_dask.info import describe
from unet_dask.io.source.volume import levels, open_source, read_window

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


SLIDE = np.random.default_rng(0).integers(0, 255, (512, 768, 3), np.uint8)
PLANES = np.random.default_rng(1).integers(0, 60000, (2, 256, 384), np.uint16)
TILED: dict[str, Any] = {"tile": (128, 128), "compression": "zlib", "metadata": None}
RGB: dict[str, Any] = TILED | {"photometric": "rgb"}
PLAIN: dict[str, Any] = {"metadata": None, "photometric": "rgb"}


def resolution(micrometres: float) -> dict[str, Any]:
    return {"resolution": (1e4 / micrometres,) * 2, "resolutionunit": "CENTIMETER"}


def ndpi(path: Path) -> None:
    """Write the tags of Hamamatsu: 65420, a magnification for each page, and the maker."""
    with tifffile.TiffWriter(path) as file:
        for step, magnification in ((1, 20.0), (2, 10.0), (4, 5.0), (0, -1.0)):
            tags = [
                (271, 2, 10, "Hamamatsu", True),
                (65420, 4, 1, 1, True),
                (65421, 11, 1, magnification, True),
            ]
            page = SLIDE[::step, ::step] if step else SLIDE[:64, :100]
            file.write(page, extratags=tags, **resolution(0.25 * max(step, 1)), **(RGB if step else PLAIN))


def scn(path: Path) -> None:
    """Write the document of Leica: an overview, then the slide with two levels."""
    sizes = '<dimension sizeX="{}" sizeY="{}" r="{}" ifd="{}"/>'
    image = '<image name="{}"><pixels sizeX="{}" sizeY="{}">{}</pixels></image>'
    slide = sizes.format(768, 512, 0, 1) + sizes.format(384, 256, 1, 2)
    both = image.format("macro", 96, 64, sizes.format(96, 64, 0, 0)) + image.format("slide", 768, 512, slide)
    space = "http://www.leica-microsystems.com/scn/2010/10/01"
    text = f'<?xml version="1.0"?><scn xmlns="{space}"><collection name="a">{both}</collection></scn>'
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        file.write(SLIDE[:64, :96], description=text, **PLAIN)
        for step in (1, 2):
            file.write(SLIDE[::step, ::step], **resolution(0.25 * step), **RGB)


def bif(path: Path, overlap: int = 0) -> None:
    """Write the XMP of Ventana: the label, then the levels."""

    def xmp(text: str) -> dict[str, Any]:
        content = f'<Metadata><iScan ScanRes="0.25" Magnification="40"/>{text}</Metadata>'.encode()
        return {"extratags": [(700, 1, len(content), content, True)]}

    with tifffile.TiffWriter(path, bigtiff=True) as file:
        file.write(SLIDE[:64, :96], description="Label Image", **xmp(""), **PLAIN)
        for level in (0, 1):
            step = 2**level
            joint = f'<TileJointInfo OverlapX="{overlap}" OverlapY="0"/>'
            file.write(
                SLIDE[::step, ::step], description=f"level={level} mag={40 // step}", **xmp(joint), **RGB
            )


def philips(path: Path) -> None:
    """Write the document of Philips, in millimetres."""
    one = (
        '<DataObject ObjectType="PixelDataRepresentation"><Attribute Name="DICOM_PIXEL_SPACING" PMSVR="IDoubleArray">'
        "{}</Attribute></DataObject>"
    )
    every = "".join(
        one.format(f"&quot;{0.00025 * step}&quot; &quot;{0.00025 * step}&quot;") for step in (1, 2)
    )
    text = (
        '<?xml version="1.0"?><DataObject ObjectType="DPUfsImport"><Attribute Name="PIM_DP_SCANNED_IMAGES"><Array>'
        f'<DataObject ObjectType="DPScannedImage"><Attribute Name="S"><Array>{every}</Array></Attribute></DataObject>'
        "</Array></Attribute></DataObject>"
    )
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        for level in (0, 1):
            said = text if level == 0 else "level=1"
            page = SLIDE[:: level + 1, :: level + 1]
            file.write(page, description=said, software="Philips DP v1.0", **RGB)


@pytest.mark.parametrize(
    ("write", "kind", "count"),
    [(ndpi, "NDPI", 3), (scn, "Leica SCN", 2), (bif, "Ventana BIF", 2), (philips, "Philips TIFF", 2)],
)
def test_a_slide_is_read_with_levels_and_pixel_size(
    tmp_path: Path, write: Callable[[Path], None], kind: str, count: int
) -> None:
    write(tmp_path / "a.tif")
    source = open_source(tmp_path / "a.tif")
    assert (source.axes, source.shape) == ("cyx", (3, 512, 768))
    found = list(levels(source))
    assert len(found) == count
    for number, level in enumerate(found):
        values = read_window(
            pickle.loads(pickle.dumps(level.spec)), tuple(slice(0, size) for size in level.shape)
        )
        with tifffile.TiffFile(tmp_path / "a.tif") as file:
            series = max(file.series, key=lambda each: each.size)
            expected = series.levels[number].asarray()
        np.testing.assert_array_equal(np.moveaxis(values, 0, -1), expected)
        np.testing.assert_array_equal(expected, SLIDE[:: 2**number, :: 2**number])
        assert [level.spacing[axis] for axis in "yx"] == pytest.approx([0.25 * 2**number] * 2)
        assert set(level.unit.values()) == {"micrometer"}
    assert kind in str(describe(tmp_path / "a.tif"))


def test_channels_of_a_qptiff_have_their_names(tmp_path: Path) -> None:
    def said(name: str) -> dict[str, Any]:
        return {
            "software": "PerkinElmer-QPI",
            "description": f"<PerkinElmer-QPI-ImageDescription><Name>{name}</Name></PerkinElmer-QPI-ImageDescription>",
        }

    with tifffile.TiffWriter(tmp_path / "a.qptiff", bigtiff=True) as file:
        for plane, name in zip(PLANES, ("DAPI", "CD8 &amp; CD4"), strict=True):
            file.write(plane, **said(name), **resolution(0.5), **TILED)
        file.write(SLIDE[:64, :96], software="PerkinElmer-QPI", **PLAIN)
        for plane, name in zip(PLANES, ("DAPI", "CD8"), strict=True):
            file.write(np.ascontiguousarray(plane[::2, ::2]), **said(name), **resolution(1.0), **TILED)
    source = open_source(tmp_path / "a.qptiff")
    assert (source.axes, source.shape, source.channel_names) == ("cyx", PLANES.shape, ("DAPI", "CD8 & CD4"))
    fine, coarse = levels(source)
    assert (fine.spacing, coarse.spacing) == ({"y": 0.5, "x": 0.5}, {"y": 1.0, "x": 1.0})
    np.testing.assert_array_equal(fine.read((slice(0, 2), slice(0, 256), slice(0, 384))), PLANES)
    np.testing.assert_array_equal(
        coarse.read((slice(0, 2), slice(0, 128), slice(0, 192))), PLANES[:, ::2, ::2]
    )


def test_tiles_of_ventana_that_overlap_are_refused(tmp_path: Path) -> None:
    bif(tmp_path / "a.bif", overlap=12)
    with pytest.raises(InputError, match="whose tiles overlap, which are not stitched"):
        open_source(tmp_path / "a.bif")


def test_resolution_tags_of_other_programs_are_not_believed(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", PLANES[0], metadata=None, **resolution(0.25))
    assert set(open_source(tmp_path / "a.tif").unit.values()) == {None}
