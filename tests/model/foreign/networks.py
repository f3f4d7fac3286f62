"""Networks as others make them: some can be cut into tiles, some cannot."""

from __future__ import annotations

import tempfile
import warnings
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Callable

_CONV: dict[int, Any] = {2: nn.Conv2d, 3: nn.Conv3d}
_POOL: dict[int, Any] = {2: functional.max_pool2d, 3: functional.max_pool3d}


class Plain(nn.Sequential):
    """Convolutions and nothing else."""

    def __init__(
        self,
        *,
        padding: int = 1,
        dilations: tuple[int, ...] = (1, 1, 1),
        channels: int = 1,
        out: int = 1,
        end: nn.Module | None = None,
        rest: Callable[[], nn.Module] = nn.ReLU,
    ) -> None:
        layers: list[nn.Module] = []
        width = channels
        for dilation in dilations:
            layers += [nn.Conv2d(width, 4, 3, padding=padding * dilation, dilation=dilation), rest()]
            width = 4
        super().__init__(*layers, nn.Conv2d(4, out, 1), end or nn.Sigmoid())


class UNet(nn.Module):
    """A U-Net of two convolutions a level."""

    def __init__(
        self,
        *,
        depth: int = 2,
        width: int = 3,
        out: int = 1,
        dims: int = 2,
        up: str = "nearest",
        valid: bool = False,
        factors: tuple[int, ...] = (2, 2),
        norm: Callable[[int], nn.Module] | None = None,
        corners: bool = False,
        end: nn.Module | None = None,
        kernel: int | tuple[int, ...] = 3,
    ) -> None:
        super().__init__()
        self.dims, self.depth, self.factors, self.valid = dims, depth, factors, valid
        self.up = {"mode": up} if up == "nearest" else {"mode": up, "align_corners": corners}
        taps = (kernel,) * dims if isinstance(kernel, int) else kernel
        padding = tuple(0 if valid else tap // 2 for tap in taps)

        def block(incoming: int, outgoing: int) -> nn.Sequential:
            layers: list[nn.Module] = []
            for before, after in ((incoming, outgoing), (outgoing, outgoing)):
                layers += [
                    _CONV[dims](before, after, taps, padding=padding),
                    *([norm(after)] if norm else []),
                    nn.ReLU(),
                ]
            return nn.Sequential(*layers)

        self.down = nn.ModuleList(block(width << (n - 1) if n else 1, width << n) for n in range(depth + 1))
        self.back = nn.ModuleList(block((width << n) + (width << (n + 1)), width << n) for n in range(depth))
        self.out, self.end = _CONV[dims](width, out, 1), end or nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        kept = []
        for number, block in enumerate(self.down):
            x = block(x)
            if number < self.depth:
                kept.append(x)
                x = _POOL[self.dims](x, self.factors)
        for number in reversed(range(self.depth)):
            x = functional.interpolate(x, scale_factor=tuple(map(float, self.factors)), **self.up)
            skip = kept[number]
            if self.valid:
                for axis in range(2, x.dim()):
                    cut = (skip.shape[axis] - x.shape[axis]) // 2
                    skip = skip.narrow(axis, cut, x.shape[axis])
            x = self.back[number](torch.cat([skip, x], 1))
        return self.end(self.out(x))  # type: ignore[no-any-return]


class Residual(nn.Module):
    """Blocks that add what they were given."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1)
            )
            for _ in range(3)
        )
        self.last = nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for block in self.blocks:
            x = torch.relu(x + block(x))
        return self.last(x)  # type: ignore[no-any-return]


class Strided(nn.Module):
    """Convolutions that step, and transposed ones that step back."""

    def __init__(
        self,
        *,
        kernel: int = 4,
        shuffled: bool = False,
        stem: bool = False,
        mean: bool = False,
        step: int = 2,
    ) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, padding=1)
        self.down = nn.Conv2d(4, 6, 3, stride=step, padding=1)
        if stem:
            self.down = nn.Sequential(nn.Conv2d(4, 6, 3, padding=1), nn.MaxPool2d(3, 2, 1))  # type: ignore[assignment]
        if mean:
            self.down = nn.Sequential(nn.AvgPool2d(step), nn.Conv2d(4, 6, 3, padding=1))  # type: ignore[assignment]
        up: nn.Module = nn.ConvTranspose2d(6, 4, kernel, stride=step, padding=(kernel - step) // 2)
        if shuffled:
            up = nn.Sequential(nn.Conv2d(6, 16, 3, padding=1), nn.PixelShuffle(2))
        self.up, self.out = up, nn.Conv2d(8, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        deep = torch.relu(self.up(torch.relu(self.down(x))))
        return torch.sigmoid(self.out(torch.cat([x, deep], 1)))


class Gated(nn.Module):
    """An attention gate, of each pixel by its surroundings."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 5, padding=2)
        self.gate, self.out = nn.Conv2d(4, 1, 1), nn.Conv2d(4, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.a(x))
        deep = torch.relu(self.b(functional.max_pool2d(x, 2)))
        deep = functional.interpolate(deep, scale_factor=2.0, mode="nearest")
        return torch.sigmoid(self.out(x * torch.sigmoid(self.gate(deep))))


class Whole(nn.Module):
    """A network with one thing that looks at the whole image."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.a, self.b = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 1, 3, padding=1)
        self.key = nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.a(x))
        if self.kind == "attention":
            flat = self.key(x).flatten(2)
            weights = torch.softmax(flat.transpose(1, 2) @ flat, dim=-1)
            x = x + (x.flatten(2) @ weights.transpose(1, 2)).reshape(x.shape)
        elif self.kind == "excitation":
            x = x * torch.sigmoid(self.key(functional.adaptive_avg_pool2d(x, 1)))
        elif self.kind == "context":
            x = x + self.key(functional.adaptive_max_pool2d(x, 1))
        elif self.kind == "range":
            x = x / (x.amax(dim=(2, 3), keepdim=True) + 1)
        elif self.kind == "place":
            ramp = torch.cumsum(torch.ones_like(x), dim=3)
            x = x + 0.1 * ramp
        return torch.sigmoid(self.b(x))


class PixelNorm(nn.Module):
    """Normalised over the channels of each pixel, which looks at nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm, self.b = (
            nn.Conv2d(1, 4, 7, padding=3, groups=1),
            nn.LayerNorm(4),
            nn.Conv2d(4, 1, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.a(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return torch.sigmoid(self.b(functional.gelu(x)))


class Ending(nn.Module):
    """A network whose output is something else."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.body = (
            kind,
            nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 3, padding=1)),
        )

    def forward(self, x: Tensor) -> Any:
        made = 5 * self.body(x)
        if self.kind == "tanh":
            return torch.tanh(made)
        if self.kind == "distances":
            return torch.relu(made)
        if self.kind == "mixed":
            return torch.cat([torch.sigmoid(made[:, :1]), made[:, 1:]], 1)
        if self.kind == "half":
            return functional.avg_pool2d(torch.sigmoid(made), 2)
        if self.kind == "two":
            return torch.sigmoid(made), made
        return made


@dataclass(frozen=True)
class Case:
    """A network, and what is known of it."""

    make: Callable[[], nn.Module]
    dims: int = 2
    channels: int = 1
    refused: str = ""
    stride: tuple[int, ...] = ()
    fixed: bool = False
    names: tuple[str, ...] = field(default=("y",))


def _instance(width: int) -> nn.Module:
    return nn.InstanceNorm2d(width, affine=True)


def _group(width: int) -> nn.Module:
    return nn.GroupNorm(1, width)


WHOLE = "depends on the whole image"
CASES: dict[str, Case] = {
    "same-padded": Case(Plain, stride=(1, 1)),
    "valid": Case(partial(Plain, padding=0), stride=(1, 1)),
    "dilated": Case(partial(Plain, dilations=(1, 2, 4, 8)), stride=(1, 1)),
    "valid and dilated": Case(partial(Plain, padding=0, dilations=(1, 3)), stride=(1, 1)),
    "of two channels": Case(partial(Plain, channels=2), channels=2, stride=(1, 1)),
    "of several sigmoids": Case(partial(Plain, out=3), stride=(1, 1)),
    "of leaky units": Case(partial(Plain, rest=partial(nn.LeakyReLU, 0.2)), stride=(1, 1)),
    "of clipped units": Case(partial(Plain, rest=nn.ReLU6), stride=(1, 1)),
    "residual": Case(Residual, stride=(1, 1)),
    "U-Net": Case(UNet, stride=(4, 4)),
    "U-Net of four levels": Case(partial(UNet, depth=4, width=2), stride=(16, 16)),
    "U-Net made for one size": Case(UNet, stride=(4, 4), fixed=True),
    "valid U-Net": Case(partial(UNet, valid=True, out=3, end=nn.Softmax(1)), stride=(4, 4)),
    "linear upsampling": Case(partial(UNet, up="bilinear"), stride=(4, 4)),
    "pooling by 3": Case(partial(UNet, depth=1, factors=(3, 3)), stride=(3, 3)),
    "anisotropic in 2-D": Case(partial(UNet, factors=(1, 2)), stride=(1, 4)),
    "batch normalisation": Case(partial(UNet, norm=nn.BatchNorm2d, out=2, end=nn.Identity()), stride=(4, 4)),
    "anisotropic in 3-D": Case(
        partial(UNet, dims=3, factors=(1, 2, 2), depth=1, width=2, kernel=(1, 3, 3)), dims=3, stride=(1, 2, 2)
    ),
    "valid in 3-D": Case(
        partial(UNet, dims=3, factors=(2, 2, 2), depth=1, width=2, valid=True), dims=3, stride=(2, 2, 2)
    ),
    "strided": Case(Strided, stride=(2, 2)),
    "strided by 2, back by 2": Case(partial(Strided, kernel=2), stride=(2, 2)),
    "shuffled": Case(partial(Strided, shuffled=True), stride=(2, 2)),
    "overlapping pooling": Case(partial(Strided, stem=True), stride=(2, 2)),
    "mean pooling": Case(partial(Strided, mean=True), stride=(2, 2)),
    "attention gate": Case(Gated, stride=(2, 2)),
    "normalised over channels": Case(PixelNorm, stride=(1, 1)),
    "instance normalisation": Case(partial(UNet, norm=_instance), refused=WHOLE),
    "group normalisation": Case(partial(UNet, norm=_group), refused=WHOLE),
    "attention": Case(partial(Whole, "attention"), refused=WHOLE),
    "squeeze and excitation": Case(partial(Whole, "excitation"), refused=WHOLE),
    "global pooling": Case(partial(Whole, "context"), refused=WHOLE),
    "range of the image": Case(partial(Whole, "range"), refused="would show"),
    "place in the image": Case(partial(Whole, "place"), refused="would show"),
    "corners aligned": Case(partial(UNet, up="bilinear", corners=True), refused="no lattice"),
    "hyperbolic tangent": Case(partial(Ending, "tanh"), refused="between -1 and 1"),
    "distances": Case(partial(Ending, "distances"), refused="distances"),
    "channels of several kinds": Case(partial(Ending, "mixed"), refused="something else in the others"),
    "half the size": Case(partial(Ending, "half"), refused="does not lie on the pixels"),
    "two outputs": Case(partial(Ending, "two"), refused="2 outputs", names=("y", "z")),
}
TILED = [name for name, case in CASES.items() if case.stride]
REFUSED = [name for name, case in CASES.items() if not case.stride]


def made(name: str) -> nn.Module:
    """Return a network in evaluation mode, the same at every call."""
    torch.manual_seed(len(name))
    network = CASES[name].make().eval()
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d):
            nn.init.kaiming_normal_(module.weight)  # nothing fades on the way, as in a trained network
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)  # type: ignore[arg-type] # it has one
            nn.init.uniform_(module.weight, 0.5, 1.5)
    return network


def exported(name: str) -> bytes:
    """Return a network as torch exports it."""
    case = CASES[name]
    axes = {number + 2: axis for number, axis in enumerate("zyx"[-case.dims :])}
    image = torch.zeros(1, case.channels, *(48 if case.dims == 2 else 24,) * case.dims)
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "net.onnx"
        warnings.simplefilter("ignore")  # torch's, on its own exporters
        torch.onnx.export(
            made(name),
            (image,),
            file,
            dynamo=False,
            input_names=["x"],
            output_names=list(case.names),
            dynamic_axes=None if case.fixed else dict.fromkeys(("x", *case.names), axes),
            opset_version=17,
        )
        return file.read_bytes()
