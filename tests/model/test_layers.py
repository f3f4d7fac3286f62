"""Folds over the steps: the figures of the formulas that they replaced, and those of the torch module itself."""

from __future__ import annotations

import json
import weakref
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from tests.model.residual import residual
from unet_dask.errors import ModelError
from unet_dask.model import layers
from unet_dask.model.cost import activation_bytes, largest_map, nnpack_bytes, pass_bytes, tile_flop
from unet_dask.model.header import NetworkSpec
from unet_dask.model.layers import margins, parameter_count
from unet_dask.model.network import Network, initialise
from unet_dask.model.step import Kind, Step
from unet_dask.model.strips import streams, strip_bytes, strip_lines, tile_bytes
from unet_dask.tiling.valid import aligned

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

#: 160 networks with what the formulas of before said of them, one for each figure, written once and for U-Nets alone.
RECORDED = json.loads((Path(__file__).parent / "fixtures/networks.json").read_text(encoding="utf-8"))
NETWORKS = [dict(zip(RECORDED["names"], row, strict=True)) for row in RECORDED["rows"]]

FIGURES: dict[str, Callable[[NetworkSpec, Sequence[int]], Any]] = {
    "context": lambda spec, _: [spec.halo[0], spec.stride[0], spec.slack[0]],
    "margins": lambda spec, _: [each[0] for each in margins(spec)],
    "parameters": lambda spec, _: parameter_count(spec),
    "nnpack_bytes": lambda spec, _: nnpack_bytes(spec),
    "flop": lambda spec, sides: int(tile_flop(spec, sides)),
    "largest_map": lambda spec, sides: int(largest_map(spec, sides)),
    "pass_bytes": lambda spec, sides: [
        int(pass_bytes(spec, sides, item=item, averaged=averaged))
        for item, averaged in ((4, False), (2, False), (4, True))
    ],
    "strip_lines": lambda spec, sides: [int(strip_lines(spec, sides, item=item)) for item in (4, 2, 1)],
    "strip_bytes": lambda spec, sides: [
        [int(numbers) for numbers in strip_bytes(spec, sides, item=item)] for item in (4, 2, 1)
    ],
    "tile_bytes": lambda spec, sides: [
        int(tile_bytes(spec, sides, averaged=averaged)) for averaged in (False, True)
    ],
}


def spec_of(recorded: dict[str, Any]) -> NetworkSpec:
    names = ("dims", "width", "depth", "channels", "classes")
    return NetworkSpec(**{name: recorded[name] for name in names}, batch_norm=bool(recorded["batch_norm"]))


@pytest.mark.parametrize("name", FIGURES)
def test_figures_are_those_of_the_formulas_before(name: str) -> None:
    found = [FIGURES[name](spec_of(each), each["sides"]) for each in NETWORKS]
    assert found == [each[name] for each in NETWORKS]
    assert len(found) == 160


@pytest.mark.parametrize("name", ["flop", "largest_map", "pass_bytes", "strip_bytes"])
def test_figures_of_many_sizes_are_those_of_each(name: str) -> None:
    """The plan asks for thousands of candidates at once, in floating point."""
    spec = NetworkSpec(dims=3, width=4, depth=2, factors=((1, 2, 2), (2, 2, 2)))
    sides = [np.array([30.0, 62.0]), np.array([64.0, 44.0]), np.array([44.0, 128.0])]
    fold: dict[str, Callable[[Sequence[Any]], Any]] = {
        "flop": lambda sides: tile_flop(spec, sides),
        "largest_map": lambda sides: largest_map(spec, sides),
        "pass_bytes": lambda sides: pass_bytes(spec, sides, item=2, averaged=True),
        "strip_bytes": lambda sides: sum(strip_bytes(spec, sides, item=4)),
    }
    alone = [fold[name]([int(side[number]) for side in sides]) for number in (0, 1)]
    assert fold[name](sides).tolist() == alone


#: Fields of networks that are not the paper's, or of another architecture, with about the size that they are fed.
OTHERS: dict[str, tuple[dict[str, Any], tuple[int, ...]]] = {
    "paper": ({"width": 4, "depth": 2}, (60, 44)),
    "narrow-slices": ({"dims": 3, "width": 3, "depth": 2, "factors": ((1, 2, 2), (2, 2, 2))}, (26, 44, 52)),
    "slices-never-pooled": ({"dims": 3, "width": 2, "depth": 2, "factors": ((1, 2, 2),) * 2}, (22, 44, 48)),
    "one-axis": ({"width": 4, "depth": 3, "channels": 2, "factors": ((1, 2), (1, 2), (2, 1))}, (40, 60)),
    "by-three": ({"width": 2, "depth": 2, "classes": 4, "factors": ((3, 2), (2, 3))}, (76, 68)),
    "residual": ({"width": 4, "depth": 2, "architecture": "residual"}, (70, 74)),
    "residual-volume": (
        {"dims": 3, "width": 2, "depth": 1, "architecture": "residual", "factors": ((1, 2, 2),)},
        (22, 28, 30),
    ),
}


@pytest.fixture(autouse=True)
def _newcomer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(layers.ARCHITECTURES, "residual", residual)


@pytest.fixture(params=OTHERS)
def other(request: pytest.FixtureRequest) -> tuple[NetworkSpec, tuple[int, ...]]:
    """Return a network with a size that it takes."""
    fields, sides = OTHERS[request.param]
    spec = NetworkSpec(**fields)
    return spec, tuple(
        context.input_size(aligned(max(side - 2 * context.halo, 1), context.stride))
        for side, context in zip(sides, spec.contexts, strict=True)
    )


def test_operations_are_those_of_the_module(other: tuple[NetworkSpec, tuple[int, ...]]) -> None:
    spec, sides = other
    network, counted = Network(spec).eval(), list[int]()

    def count(module: nn.Module, _: Any, made: Tensor) -> None:
        weight = module.weight
        assert isinstance(weight, Tensor)
        up = isinstance(module, nn.ConvTranspose2d | nn.ConvTranspose3d)
        counted.append(2 * made.numel() * (len(weight) if up else weight[0].numel()))

    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d | nn.ConvTranspose3d):
            module.register_forward_hook(count)
    with torch.inference_mode():
        network(torch.zeros(1, spec.channels, *sides))
    assert int(tile_flop(spec, sides)) == sum(counted)


def test_parameters_are_those_of_the_module(other: tuple[NetworkSpec, tuple[int, ...]]) -> None:
    spec, _ = other
    assert parameter_count(spec) == sum(each.numel() for each in Network(spec).parameters())


def test_tiles_on_the_lattice_equal_the_whole(other: tuple[NetworkSpec, tuple[int, ...]]) -> None:
    """Of a run over everything, any core on the lattice is what the network makes of the core with its halo."""
    spec, _ = other
    network = initialise(Network(spec), seed=1).eval()
    whole = [context.input_size(2 * context.stride) for context in spec.contexts]
    image = torch.from_numpy(np.random.default_rng(0).standard_normal((1, spec.channels, *whole), np.float32))
    periods = [context.input_size(context.stride) for context in spec.contexts]
    with torch.inference_mode():
        expected = network(image)
        for start in product(*((0, stride) for stride in spec.stride)):
            at = [slice(first, first + side) for first, side in zip(start, periods, strict=True)]
            made = network(image[0][(slice(None), *at)][None].contiguous())
            inner = [slice(first, first + side) for first, side in zip(start, made.shape[2:], strict=True)]
            assert torch.allclose(
                made, expected[0][(slice(None), *inner)][None], atol=1e-5 * float(expected.abs().max())
            )


class Alive(TorchDispatchMode):  # type: ignore[no-untyped-call] # torch's own
    """Counts the bytes of the float32 arrays that are alive while torch runs, and keeps the most and the largest."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # the same
        self.peak = self.largest = 0
        self._alive: dict[int, tuple[int, int]] = {}

    def __torch_dispatch__(self, func: Any, types: Iterable[type], args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, tuple | list) else [made]:
            if isinstance(tensor, Tensor) and tensor.dtype == torch.float32:
                self._note(tensor)
        return made

    def _note(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage.data_ptr(), storage.nbytes()
        self._alive[key] = (self._alive.get(key, (0, 0))[0] + 1, size)
        weakref.finalize(tensor, self._forget, key)
        self.largest = max(self.largest, size)
        self.peak = max(self.peak, sum(size for _, size in self._alive.values()))

    def _forget(self, key: int) -> None:
        count, size = self._alive.pop(key)
        if count > 1:
            self._alive[key] = (count - 1, size)


def test_memory_is_that_of_the_module(other: tuple[NetworkSpec, tuple[int, ...]]) -> None:
    spec, sides = other
    network, image = Network(spec).eval(), torch.zeros(1, spec.channels, *sides)
    with torch.inference_mode(), Alive() as alive:
        network(image)
    planned = int(activation_bytes(spec, sides, item=4))
    # The image is held by whoever made it, and counted apart.
    assert planned - image.nbytes <= alive.peak <= planned
    assert int(largest_map(spec, sides)) * 4 == max(alive.largest, image.nbytes)


def test_the_strip_engine_knows_what_it_can_do() -> None:
    known = {name: streams(NetworkSpec(**fields)) for name, (fields, _) in OTHERS.items()}
    assert known == {
        "paper": True,
        "narrow-slices": True,
        "slices-never-pooled": True,
        "one-axis": True,
        "by-three": False,
        "residual": False,
        "residual-volume": False,
    }


WIDE = (3, 3)
MISFITS = {
    "channels": [Step(Kind.CONVOLVE, 3, 4, 0, WIDE, "a"), Step(Kind.HEAD, 4, 2, 0, (1, 1), "b")],
    "even-filter": [Step(Kind.CONVOLVE, 1, 4, 0, (2, 2), "a"), Step(Kind.HEAD, 4, 2, 0, (1, 1), "b")],
    "too-few-axes": [Step(Kind.CONVOLVE, 1, 4, 0, (3,), "a"), Step(Kind.HEAD, 4, 2, 0, (1, 1), "b")],
    "never-taken-back": [
        Step(Kind.CONVOLVE, 1, 4, 0, WIDE, "a"),
        Step(Kind.KEEP, 4, 4, 0, (1, 1)),
        Step(Kind.HEAD, 4, 2, 0, (1, 1), "b"),
    ],
    "nothing-kept": [Step(Kind.ADD, 1, 1, 0, (1, 1)), Step(Kind.HEAD, 1, 2, 0, (1, 1), "b")],
    "no-classes": [Step(Kind.CONVOLVE, 1, 4, 0, WIDE, "a")],
    "stays-below": [
        Step(Kind.CONVOLVE, 1, 4, 0, WIDE, "a"),
        Step(Kind.POOL, 4, 4, 1, (2, 2)),
        Step(Kind.HEAD, 4, 2, 1, (1, 1), "b"),
    ],
    "kept-elsewhere": [
        Step(Kind.KEEP, 1, 1, 0, (1, 1)),
        Step(Kind.POOL, 1, 1, 1, (2, 2)),
        Step(Kind.ADD, 1, 1, 1, (1, 1)),
        Step(Kind.UP, 1, 1, 0, (2, 2), "u"),
        Step(Kind.HEAD, 1, 2, 0, (1, 1), "b"),
    ],
    "up-alone": [Step(Kind.UP, 1, 1, 0, (2, 2), "u"), Step(Kind.HEAD, 1, 2, 0, (1, 1), "b")],
}


@pytest.mark.parametrize("name", MISFITS)
def test_steps_that_do_not_fit_are_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(layers.ARCHITECTURES, name, lambda _: MISFITS[name])
    with pytest.raises(ModelError):
        layers.steps(NetworkSpec(architecture=name))
