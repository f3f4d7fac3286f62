"""Networks of others: each gives the same in tiles as in one piece by torch, or is refused."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import dask.array as da
import numpy as np
import pytest
import torch

import unet_dask
from tests.model.foreign.networks import CASES, REFUSED, TILED, exported, made
from unet_dask.errors import ModelError
from unet_dask.model.file import inspect_model
from unet_dask.model.foreign.spec import MeasuredSpec

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

#: Pixels of mirror image around the whole: a multiple of every lattice, and more than any reach.
AROUND = 144


def saved(name: str, folder: Path) -> Path:
    path = folder / "net.onnx"
    path.write_bytes(exported(name))
    return path


def in_one_piece(name: str, image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return probabilities by torch of the whole image, mirrored so far around it that no padding is seen."""
    dims = CASES[name].dims
    around = AROUND if dims == 2 else 48
    ends = [(around, around + -size % 48) for size in image.shape[1:]]  # on every lattice
    padded = np.pad(image, [(0, 0), *ends], mode="reflect")
    with torch.inference_mode():
        output = made(name)(torch.from_numpy(padded)[None])[0].numpy()
    lost = [(a - b) // 2 for a, b in zip(padded.shape[1:], output.shape[1:], strict=True)]
    inner = tuple(
        slice(around - cut, around - cut + size) for cut, size in zip(lost, image.shape[1:], strict=True)
    )
    kept = output[(slice(None), *inner)].astype(np.float64)
    if kept.min() < 0 or kept.max() > 1:  # logits
        shares = np.exp(kept - kept.max(axis=0))
        return np.asarray(shares / shares.sum(axis=0), np.float32)
    if len(kept) > 1 and np.allclose(kept.sum(axis=0), 1, atol=1e-5):
        return np.asarray(kept, np.float32)
    return np.asarray(np.concatenate([1 - kept.max(axis=0, keepdims=True), kept]), np.float32)


@pytest.mark.parametrize("name", TILED)
def test_tiles_of_a_network_of_others_do_not_show(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    path = saved(name, tmp_path)
    spec = inspect_model(path).header.network
    assert isinstance(spec, MeasuredSpec)
    assert spec.stride == case.stride
    shape = {2: (151, 187 + 9 * max(spec.stride)), 3: (21, 47, 53)}[case.dims]
    image = np.random.default_rng(1).standard_normal((case.channels, *shape)).astype(np.float32)
    expected = in_one_piece(name, image)
    chunks = (-1, *((40,) * case.dims if case.dims == 2 else (10, 20, 20)))
    axes = ("c" if case.channels > 1 else "t") + "zyx"[-case.dims :]
    lazy = unet_dask.segment(da.from_array(image, chunks=chunks), path, axes=axes, output="probabilities")
    assert max(map(len, lazy.chunks)) > 1  # it is in tiles
    found = np.asarray(lazy.compute(scheduler="synchronous")).reshape(expected.shape)
    assert np.abs(found - expected).max() <= 1e-5


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_cut_into_tiles_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=CASES[name].refused) as caught:
        inspect_model(saved(name, tmp_path))
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith(str(tmp_path))


@pytest.mark.parametrize("name", TILED)
def test_no_output_has_a_gradient_beyond_the_measured_reach(name: str, tmp_path: Path) -> None:
    """Backwards by torch, from outputs at every phase of the lattice, on images of noise."""
    case = CASES[name]
    spec = inspect_model(saved(name, tmp_path)).header.network
    assert isinstance(spec, MeasuredSpec)
    network = made(name)
    side = {2: 288, 3: 48}[case.dims]
    image = torch.randn(1, case.channels, *(side,) * case.dims, requires_grad=True)
    output = network(image)
    furthest = [0] * case.dims
    for phase in product(*(range(0, stride, max(stride // 4, 1)) for stride in spec.stride)):
        at = [size // 2 + more for size, more in zip(output.shape[2:], phase, strict=True)]
        place = (0, slice(None), *at)
        (gradient,) = torch.autograd.grad(output[place].sum(), image, retain_graph=True)
        for axis in range(case.dims):
            others = tuple(each for each in range(case.dims + 2) if each != axis + 2)
            seen = np.flatnonzero(gradient.abs().amax(dim=others).numpy())
            if not len(seen):  # all units that lead there are at rest
                continue
            of_image = at[axis] + spec.offset[axis]
            furthest[axis] = max(furthest[axis], of_image - int(seen[0]), int(seen[-1]) - of_image)
    assert all(far <= reach for far, reach in zip(furthest, spec.reach, strict=True)), (furthest, spec.reach)
