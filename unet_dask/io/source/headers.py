"""The size of a compressed picture, read from its header before anything of it is decoded.

A few bytes can claim any size, and decoders allocate what is claimed.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Markers of JPEG (ITU T.81, table B.1) that begin a frame: all of C0 to CF but DHT, JPG and DAC.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
#: Markers without a length: those that stand for themselves.
_BARE = frozenset({0x01, *range(0xD0, 0xDA)})
#: The marker of a scan, SOS, after which the values follow.
_SCAN = 0xDA
#: Samples of a pixel by the colour types of PNG (ISO 15948, 11.2.2); a palette is decoded to RGB, or RGBA.
_PNG_SAMPLES = {0: 1, 2: 3, 3: 4, 4: 2, 6: 4}


def jpeg_shape(content: bytes) -> tuple[int, int, int] | None:
    """Return height, width and components of a JPEG, None if it has no frame header.

    Examples
    --------
    >>> jpeg_shape(bytes.fromhex("ffd8ffc0000b080010002001011100"))
    (16, 32, 1)
    """
    place = next((place for marker, place in _markers(content) if marker in _FRAMES), None)
    if place is None or place + 10 > len(content):
        return None
    height, width, components = struct.unpack(">HHB", content[place + 5 : place + 10])
    return height, width, components


def jpeg_is_whole(content: bytes) -> bool:
    """Tell whether a JPEG goes on to its end: the marker EOI occurs nowhere in its values."""
    scan = next((place for marker, place in _markers(content) if marker == _SCAN), None)
    return scan is not None and content.find(b"\xff\xd9", scan) >= 0


def _markers(content: bytes) -> Iterator[tuple[int, int]]:
    """Yield the markers of a JPEG up to its first scan, and where they stand."""
    place = 0
    while place + 4 <= len(content) and content[place] == 0xFF:
        marker = content[place + 1]
        if marker == 0xFF:  # padding
            place += 1
            continue
        yield marker, place
        if marker == _SCAN:
            return
        place += 2 if marker in _BARE else 2 + int.from_bytes(content[place + 2 : place + 4], "big")


def jpeg2000_shape(content: bytes) -> tuple[int, int, int] | None:
    """Return height, width and components of a JPEG 2000 image, a codestream or a file; None if it says none."""
    place = content.find(b"\xff\x4f\xff\x51", 0, 4096)
    if place < 0 or place + 42 > len(content):
        return None
    right, bottom, left, top = struct.unpack(">IIII", content[place + 8 : place + 24])
    (components,) = struct.unpack(">H", content[place + 40 : place + 42])
    return max(bottom - top, 0), max(right - left, 0), components


def png_shape(content: bytes) -> tuple[int, int, int, int] | None:
    """Return height, width, samples as they are decoded, and bits of a sample of a PNG; None if it is damaged."""
    if len(content) < 26 or content[:8] != b"\x89PNG\r\n\x1a\n" or content[12:16] != b"IHDR":
        return None
    width, height, bits, colour = struct.unpack(">IIBB", content[16:26])
    return height, width, _PNG_SAMPLES.get(colour, 4), bits
