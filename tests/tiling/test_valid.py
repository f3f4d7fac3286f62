"""Size arithmetic against the figures of the papers and against the network itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unet_dask.errors import GeometryError
from unet_dask.model.header import NetworkSpec
from unet_dask.model.network import Network

if TYPE_CHECKING:
    from unet_dask.tiling.valid import Context


def context(depth: int) -> Context:
    return NetworkSpec(depth=depth).contexts[0]


@st.composite
def networks(draw: st.DrawFn, *, most: int = 6) -> NetworkSpec:
    """Return a network whose poolings differ along its two axes."""
    depth = draw(st.integers(1, most))
    level = st.tuples(st.integers(1, 3), st.integers(1, 3)).filter(lambda factors: max(factors) > 1)
    factors = tuple(draw(level) for _ in range(depth))
    return NetworkSpec(width=1, depth=depth, factors=factors)


@pytest.mark.parametrize(
    ("depth", "size", "output"),
    [(4, 572, 388), (3, 132, 44)],
    ids=["ronneberger-2015-fig1", "cicek-2016-fig2"],
)
def test_sizes_of_the_papers(depth: int, size: int, output: int) -> None:
    assert context(depth).output_size(size) == output
    assert size - output == 2 * context(depth).halo


@given(st.integers(1, 6))
def test_two_convolutions_a_level_consume_what_their_formula_says(depth: int) -> None:
    """Summed by hand: 4 pixels a level on the way down and up, 2 ** level of the image each, and 4 at the bottom."""
    looked = context(depth)
    assert (looked.halo, looked.stride) == (6 * 2**depth - 4, 2**depth)
    assert (looked.slack + 2 * looked.halo - 4 * (2**depth - 1)) % 2**depth == 0


@given(networks(), st.integers(1, 40))
def test_a_core_on_the_lattice_has_a_legal_input(spec: NetworkSpec, units: int) -> None:
    for looked in spec.contexts:
        core = units * looked.stride
        assert looked.output_size(looked.input_size(core)) == core + looked.slack


@given(networks(), st.integers(1, 2000))
def test_an_illegal_input_names_a_legal_one(spec: NetworkSpec, size: int) -> None:
    for looked in spec.contexts:
        try:
            looked.output_size(size)
        except GeometryError as error:
            proposed = int(str(error).rsplit(" ", 1)[1].rstrip("."))
            assert proposed >= size
            assert looked.output_size(proposed) > 0


@settings(deadline=None, max_examples=25)
@given(networks(most=3), st.integers(1, 2))
def test_the_network_returns_what_the_arithmetic_says(spec: NetworkSpec, units: int) -> None:
    sides = [looked.input_size(units * looked.stride) for looked in spec.contexts]
    with torch.inference_mode():
        output = Network(spec)(torch.zeros(1, 1, *sides))
    expected = [looked.output_size(side) for looked, side in zip(spec.contexts, sides, strict=True)]
    assert list(output.shape[2:]) == expected


def test_a_core_off_the_lattice_is_refused_with_one_that_fits() -> None:
    with pytest.raises(GeometryError, match=r"388 samples does not fit .* multiple of 16, such as 400"):
        context(4).input_size(388)
