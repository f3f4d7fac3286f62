"""What kind of file something is, told by its first bytes: the same words in every command."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

#: Bytes that are looked at: all headers that are known below lie in them.
LOOKED_AT = 1024
_SKIMAGE = "skimage.io.imread"


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of file.

    Attributes
    ----------
    name : with its article, such as "a TIFF image"
    reader : function that reads such a file into memory, if a package that we depend on has one
    pickled : whether opening it can run code
    image : whether an image may be in it, which can be converted
    instead : what to do with an image that is not read
    """

    name: str
    reader: str | None = None
    pickled: bool = False
    image: bool = True
    instead: str = "Convert it to Zarr, for microscope formats with bioformats2raw"


NOTHING = Kind("an empty file", image=False)
NO_FILE = Kind("no regular file", image=False)
BINARY = Kind("a binary file of unknown kind")
TEXT = Kind("a text file", image=False)
ZIP = Kind("a zip archive")
SAFETENSORS = Kind("a safetensors file", image=False)
TIFF = Kind("a TIFF image")
BIG_TIFF = Kind("a BigTIFF image")
PNG = Kind("a PNG image")
JPEG = Kind("a JPEG image")
HDF5 = Kind("an HDF5 file")
MRC = Kind("an MRC volume")
NIFTI = Kind("a NIfTI image")
NIFTI_PAIR = Kind("the header of a NIfTI image")
GZIP = Kind("a gzip archive")
REFERENCES = Kind(
    "a reference store of kerchunk",
    instead="Open it with xarray, and write it with to_zarr: references are not read",
)
_BESIDE = (
    "Convert it and the folder beside it with bioformats2raw: the file itself holds a small picture alone"
)
#: Slides that lie in a folder beside their file, which begins as the picture in it does.
_STAND_INS: dict[str, Kind] = {
    ".mrxs": Kind("a MIRAX slide", instead=_BESIDE),
    ".vsi": Kind("an Olympus VSI slide", instead=_BESIDE),
}
_PICKLE = Kind("a pickle, such as an old PyTorch checkpoint", pickled=True, image=False)

#: Where bytes lie that tell a kind, the bytes, and the kind; the first that fits counts.
_MAGIC: tuple[tuple[int, bytes, Kind], ...] = (
    (0, b"II*\x00", TIFF),
    (0, b"MM\x00*", TIFF),
    (0, b"II+\x00", BIG_TIFF),
    (0, b"MM\x00+", BIG_TIFF),
    (0, b"\x89PNG", PNG),
    (0, b"\xff\xd8\xff", JPEG),
    (0, b"\x00\x00\x00\x0cjP  ", Kind("a JPEG 2000 image")),
    (0, b"\xff\x4f\xff\x51", Kind("a JPEG 2000 image")),
    (0, b"GIF8", Kind("a GIF image", _SKIMAGE)),
    (8, b"WEBP", Kind("a WebP image", _SKIMAGE)),
    (0, b"\x93NUMPY", Kind("a NumPy array", "numpy.load")),
    (0, b"\x89HDF\r\n", HDF5),
    (0, b"CDF\x01", Kind("a NetCDF file")),
    (0, b"CDF\x02", Kind("a NetCDF file")),
    (0, b"ZISRAWFILE", Kind("a Zeiss CZI image")),
    (0, b"\xda\xce\xbe\x0a", Kind("a Nikon ND2 image")),
    (0, b"\x70\x00\x00\x00", Kind("a Leica LIF image")),
    (0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", Kind("an OLE file, such as a Zeiss ZVI or Olympus OIB image")),
    (0, b"OMAS_BF", Kind("an Imspector OBF image")),
    (0, b"NRRD0", Kind("an NRRD image")),
    (0, b"SIMPLE  =", Kind("a FITS image")),
    (0, b"# AmiraMesh", Kind("an Amira mesh")),
    (0, b"# vtk DataFile", Kind("a VTK file")),
    (0, b"MATLAB 5.0 MAT-file", Kind("a MATLAB file")),
    (128, b"DICM", Kind("a DICOM image")),
    (208, b"MAP ", MRC),
    (344, b"n+1\x00", NIFTI),
    (344, b"ni1\x00", NIFTI_PAIR),
    (4, b"n+2\x00", NIFTI),
    (4, b"ni2\x00", NIFTI_PAIR),
    (257, b"ustar", Kind("a tar archive")),
    (0, b"\x1f\x8b", GZIP),
    (0, b"BZh", Kind("a bzip2 archive")),
    (0, b"\xfd7zXZ\x00", Kind("an xz archive")),
    (0, b"\x28\xb5\x2f\xfd", Kind("a Zstandard archive")),
    (0, b"7z\xbc\xaf\x27\x1c", Kind("a 7z archive")),
    (0, b"Rar!", Kind("a RAR archive")),
    (0, b"%PDF", Kind("a PDF document", image=False)),
    (0, b"SQLite format 3\x00", Kind("an SQLite database", image=False)),
    (0, b"\x7fELF", Kind("a program", image=False)),
)
#: The name of the first entry of a zip archive, and what such an archive is.
_ZIPPED: tuple[tuple[re.Pattern[bytes], Kind], ...] = (
    (
        re.compile(rb"[^/]*/(data\.pkl|\.format_version|byteorder|\.data)"),
        Kind("a PyTorch checkpoint", pickled=True, image=False),
    ),
    (re.compile(rb"[^/]*\.npy"), Kind("a NumPy archive (.npz)")),
    (re.compile(rb"\[Content_Types\]\.xml|_rels/"), Kind("an Office document", image=False)),
)
#: How a document of kerchunk begins, of its version 1 and of version 0.
_REFERENCES = re.compile(
    rb'\s*\{\s*("version"\s*:\s*1\s*,|"refs"\s*:\s*\{|"[^"]*\.z(group|array|attrs)"\s*:)'
)
#: Control characters that no text has.
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")


def kind_of(path: Path) -> Kind:
    """Return the kind of a file; something else than a file or folder, such as a pipe, is not opened.

    The name counts for slides alone whose file is a picture of them: read as what it begins with, it would give a
    result of the wrong image.

    Raises
    ------
    OSError
        If it cannot be read.
    """
    if path.exists() and not path.is_file():
        return NO_FILE
    with path.open("rb") as file:
        kind = kind_of_bytes(file.read(LOOKED_AT))
    return _STAND_INS.get(path.suffix.lower(), kind) if kind in (JPEG, TIFF, BIG_TIFF) else kind


def kind_of_bytes(start: bytes) -> Kind:
    r"""Return the kind of a file that begins with these bytes, at most :data:`LOOKED_AT`.

    Examples
    --------
    >>> kind_of_bytes(b"II*\x00...").name, kind_of_bytes(b"y,x\n1,2\n").name, kind_of_bytes(b"\x00\x01").name
    ('a TIFF image', 'a text file', 'a binary file of unknown kind')
    """
    if not start:
        return NOTHING
    for offset, magic, kind in _MAGIC:
        if start.startswith(magic, offset):
            return kind
    if start.startswith(b"PK\x03\x04"):
        return _zipped(start)
    if start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return _PICKLE
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") < 1 << 40:
        return SAFETENSORS
    return _text(start) if _is_text(start) else BINARY


def _zipped(start: bytes) -> Kind:
    name = start[30 : 30 + int.from_bytes(start[26:28], "little")]
    return next((kind for pattern, kind in _ZIPPED if pattern.match(name)), ZIP)


def _text(start: bytes) -> Kind:
    return REFERENCES if _REFERENCES.match(start) else TEXT


def _is_text(start: bytes) -> bool:
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        return True  # UTF-16
    if _CONTROL.search(start):
        return False
    try:
        # The read may have cut the last character.
        (start[:-4] if len(start) == LOOKED_AT else start).decode()
    except UnicodeDecodeError:
        return False
    return True
