"""Size arithmetic against the figures of the papers and against the network itself."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unet_dask.errors import GeometryError
from unet_dask.model.header import NetworkSpec
from unet_dask.model.unet import UNet
from unet_dask.tiling import valid

depths = st.integers(1, 6)


@pytest.mark.parametrize(
    ("depth", "size", "output"),
    [(4, 572, 388), (3, 132, 44)],
    ids=["ronneberger-2015-fig1", "cicek-2016-fig2"],
)
def test_sizes_of_the_papers(depth: int, size: int, output: int) -> None:
    assert valid.output_size(size, depth) == output
    assert size - output == 2 * valid.halo(depth)


@given(depths, st.integers(1, 40))
def test_a_core_on_the_lattice_has_a_legal_input(depth: int, units: int) -> None:
    core = units * valid.stride(depth)
    output = valid.output_size(valid.input_size(core, depth), depth)
    assert output == core + valid.slack(depth)


@given(depths, st.integers(1, 2000))
def test_an_illegal_input_names_a_legal_one(depth: int, size: int) -> None:
    try:
        valid.output_size(size, depth)
    except GeometryError as error:
        proposed = int(str(error).rsplit(" ", 1)[1].rstrip("."))
        assert proposed >= size
        assert valid.output_size(proposed, depth) > 0


@settings(deadline=None, max_examples=12)
@given(st.integers(1, 4), st.integers(1, 2))
def test_the_network_returns_what_the_arithmetic_says(depth: int, units: int) -> None:
    side = valid.input_size(units * valid.stride(depth), depth)
    with torch.inference_mode():
        output = UNet(NetworkSpec(width=1, depth=depth))(torch.zeros(1, 1, side, side))
    assert output.shape[-1] == valid.output_size(side, depth)


def test_a_core_off_the_lattice_is_refused_with_one_that_fits() -> None:
    with pytest.raises(GeometryError, match=r"388 samples is not on .* multiple of 16, such as 400"):
        valid.input_size(388, 4)


def test_a_network_without_pooling_is_refused() -> None:
    with pytest.raises(GeometryError, match="at least one pooling, but depth is 0"):
        valid.halo(0)
