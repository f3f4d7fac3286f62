"""A manifest is one record and one document, and each is made of the other."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from unet_dask.io.sink.manifest import ArrayRecord, Manifest, ModelRecord, PlanRecord

numbers = st.integers(0, 1 << 40)
lists = st.lists(numbers, max_size=4).map(tuple)
constants = st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=3).map(tuple)
texts = st.dictionaries(st.text(max_size=9), st.text(max_size=9), max_size=3)
KNOWN = {each.name for kind in (Manifest, PlanRecord, ArrayRecord, ModelRecord) for each in fields(kind)}
others = st.dictionaries(
    st.text(max_size=9).filter(lambda name: name not in KNOWN),
    numbers | st.lists(numbers, max_size=2),
    max_size=2,
)
arrays = st.builds(ArrayRecord, st.text(), st.text(), numbers, others=others)
models = st.builds(ModelRecord, st.text(), st.text(), others=others)
plans = st.builds(
    PlanRecord,
    axes=st.text(), shape=lists, roi=st.lists(st.tuples(numbers, numbers), max_size=3).map(tuple), regions=numbers,
    region=lists, tile=lists, core=lists, halo=lists, precision=st.text(), device=st.text(), skipped=numbers,
    limit_bytes=st.none() | numbers, card_limit_bytes=st.none() | numbers, lattice=st.none() | lists, others=others,
)  # fmt: skip
manifests = st.builds(
    Manifest,
    fingerprint=texts, normalisation=st.tuples(constants, constants), memory=numbers, precision=st.text(),
    model=models, classes=st.lists(st.text(), max_size=3).map(tuple), plan=plans,
    arrays=st.lists(arrays, max_size=2).map(tuple), work=numbers, mask=st.none() | st.text(), layout=numbers,
    card=st.none() | numbers, nodes=st.none() | texts, others=others,
    ranges=st.lists(st.tuples(st.floats(0, 1), st.floats(1, 2)), max_size=2).map(tuple),
)  # fmt: skip


@given(manifests)
def test_what_is_written_is_read(manifest: Manifest) -> None:
    document: dict[str, Any] = json.loads(json.dumps(manifest.to_json()))
    assert Manifest.from_json(document) == manifest
    assert Manifest.from_json(document).to_json() == document


def test_document_of_before_is_read_without_what_came_later() -> None:
    sizes = {
        "roi": ((0, 1), (0, 9), (0, 9)),
        "region": (1, 9, 9),
        "tile": (8, 8),
        "core": (4, 4),
        "halo": (2, 2),
    }
    plan = PlanRecord(
        "cyx",
        (1, 9, 9),
        regions=1,
        precision="float32",
        device="cpu",
        skipped=0,
        **sizes,  # type: ignore[arg-type] # each of its type
    )
    record = Manifest(
        {}, ((0.0,), (1.0,)), 1, "float32", ModelRecord("m", "0"), ("a", "b"), plan, (), 1, None
    )
    document = record.to_json()
    assert {"layout", "card", "ranges", "nodes"} & set(document) == set()
    del document["mask"], document["plan"]["skipped"]
    assert Manifest.from_json(document) == record
