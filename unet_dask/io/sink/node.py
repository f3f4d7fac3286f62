"""What the nodes of a sink say of it, as it was written: shapes, codecs, sizes of voxels, names of classes.

Zarr and viewers pass over a name that they do not know: of a scale whose name has lost a bit they show voxels of the
size 1, and say nothing. So the manifest holds a checksum of each node.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from unet_dask.io.sink.place import MARK, locate, read_document

if TYPE_CHECKING:
    from collections.abc import Iterable

#: Attributes that a run writes; others, such as how a viewer shall show an image, may come and go.
_OURS = (MARK, "ome")
_OME = ("version", "multiscales", "image-label")


def checksum(url: str, path: str) -> str:
    """Return a checksum of the metadata document of a node, without what may be added to it later.

    Parameters
    ----------
    url : of the sink
    path : of the node in it, "" for the root

    Raises
    ------
    OSError
        If there is no document.
    ValueError
        If it is not JSON, or no document of a node.
    """
    fs, root = locate(url)
    document = read_document(fs, f"{root}/{path}" if path else root)
    try:
        document.pop("consolidated_metadata", None)
        attributes = {key: value for key, value in document.pop("attributes", {}).items() if key in _OURS}
    except AttributeError as error:
        raise ValueError("zarr.json does not describe a node") from error
    if isinstance(attributes.get("ome"), dict):
        attributes["ome"] = {key: value for key, value in attributes["ome"].items() if key in _OME}
    return hashlib.sha256(json.dumps([document, attributes], sort_keys=True).encode()).hexdigest()


def checksums(url: str, paths: Iterable[str]) -> dict[str, str]:
    """Return the checksum of each node."""
    return {path: checksum(url, path) for path in paths}
