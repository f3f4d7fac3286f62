"""A manifest as a run of a small two-dimensional network writes it, for results that are written without one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from unet_dask.io.sink.store import ArraySpec

#: Of a network of depth 2, and the length of its tiles.
HALO, CORE = 20, 64


def manifest_of(
    arrays: Sequence[ArraySpec],
    classes: Sequence[str],
    *,
    shape: Sequence[int],
    roi: Sequence[Sequence[int]] | None = None,
    identity: Mapping[str, str] | None = None,
    work: int = 1,
) -> dict[str, Any]:
    """Return a manifest of a result of one region over the axes czyx, or cyx.

    Parameters
    ----------
    arrays : of the sink
    classes : their names
    shape : of the source along z, y and x, or along y and x
    roi : (start, stop) of the result along them; None for all
    identity : of the source
    work : pieces of it
    """
    axes = "zyx"[-len(shape) :]
    box = [[0, 1], *(list(each) for each in roi or [(0, size) for size in shape])]
    return {
        "fingerprint": {
            "source.url": "/nowhere/source.zarr",
            "source.key": "",
            "source.axes": axes,
            "source.channels": "all",
            "setting.nan": "stop",
            "setting.tta": "none",
            "setting.backend": "torch",
            **(identity or {}),
        },
        "normalisation": [[0.0], [1.0]],
        "memory": 1 << 30,
        "precision": "float32",
        "model": {"name": "cells.safetensors", "checksum": "ab" * 32},
        "classes": list(classes),
        "plan": {
            "axes": f"c{axes}",
            "shape": [1, *shape],
            "roi": box,
            "regions": 1,
            "region": [stop - start for start, stop in box],
            "tile": [CORE + 2 * HALO] * 2,
            "core": [CORE] * 2,
            "halo": [HALO] * 2,
            "precision": "float32",
            "device": "cpu",
            "skipped": 0,
        },
        "arrays": [{"name": each.name, "axes": each.axes, "levels": len(each.levels)} for each in arrays],
        "work": work,
        "mask": None,
    }
