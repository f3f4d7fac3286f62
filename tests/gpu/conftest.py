"""What the tests of the GPU share. All of them are skipped, for one reason, where there is none."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from tests.oracle import write_array
from unet_dask.demo.synthetic import nuclei

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray


@pytest.fixture(scope="session", autouse=True)
def _gpu() -> None:
    if not torch.cuda.is_available():
        pytest.skip(
            f"torch {torch.__version__} finds no CUDA device: make gpu, on a machine with an NVIDIA GPU"
        )


@pytest.fixture(autouse=True)
def _given_back() -> Iterator[None]:
    """Give back what torch keeps of the GPU: the workers of the next test want it."""
    yield
    torch.cuda.empty_cache()


@pytest.fixture(scope="session")
def _native_bfloat16() -> None:
    """Skip where the GPU would emulate bfloat16."""
    if torch.cuda.get_device_capability() < (8, 0):
        pytest.skip("the GPU multiplies neither bfloat16 nor float32 of 10 bits: it is older than Ampere")


@pytest.fixture(scope="session")
def field() -> NDArray[np.uint16]:
    """Return an image of nuclei such as the demo makes, (y, x)."""
    return nuclei((1024, 1024), seed=3)[0]


@pytest.fixture
def field_store(field: NDArray[np.uint16], tmp_path: Path) -> Path:
    """Return the path of a part of it, small enough for a CPU to segment meanwhile."""
    return write_array(tmp_path / "field.zarr", field[:600, :700], chunks=(256, 256))
