"""A header as it stands in a model file: JSON that carries the checksum of itself."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from unet_dask.model.header import ModelHeader

#: Key of the metadata of a safetensors file under which the header stands. It is the only one: safetensors orders keys
#: at random, and equal models are equal bytes.
KEY = "unet_dask"
#: Field of the header that holds the checksum of all others.
SEAL = "header_checksum"


def sealed(header: ModelHeader, checksum: str) -> dict[str, str]:
    """Return the metadata of a model file whose weights have a checksum."""
    record = json.loads(header.to_json(checksum=checksum))
    return {KEY: json.dumps(record | {SEAL: seal_of(record)}, sort_keys=True)}


def seal_of(record: Mapping[str, object]) -> str:
    """Return the SHA-256 of a header's JSON, its own checksum left out."""
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()
