"""The tools that do what `segment` does, one small file each: how their own users would run our network with them.

Each file has one function, `predict(source, sink, model)`: classes of the image in a Zarr array to a new Zarr array.
`benchmarks/side_by_side.py` runs each in a process of its own.
"""

from __future__ import annotations

#: Name of a peer, and the distribution that must be installed for it. Its file is named like it.
PEERS = {
    "torch-em": "torch-em",
    "monai": "monai",
    "monai-gaussian": "monai",
    "patchworks": "patchworks",
    "daisy": "daisy",
    "bioimageio.core": "bioimageio.core",
}


def module_of(peer: str) -> str:
    """Return the module that runs a peer."""
    return "peers." + peer.replace("-", "_").replace(".", "_")
