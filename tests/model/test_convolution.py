"""The convolution of volumes is torch's, by whatever kernel."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from unet_dask.model.convolution import Conv3d


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
@pytest.mark.parametrize(("incoming", "outgoing", "kernel"), [(1, 4, 3), (4, 3, 3), (3, 2, 1)])
def test_values_and_gradients_are_those_of_double_precision(
    incoming: int, outgoing: int, kernel: int, layout: torch.memory_format
) -> None:
    torch.manual_seed(0)
    ours = Conv3d(incoming, outgoing, kernel_size=kernel).to(memory_format=layout)  # type: ignore[call-overload] # torch's stubs omit it
    exact = nn.Conv3d(incoming, outgoing, kernel_size=kernel, dtype=torch.float64)
    exact.load_state_dict(ours.state_dict())
    image = torch.randn(1, incoming, 7, 9, 8).to(memory_format=layout).requires_grad_()
    image64 = image.detach().double().requires_grad_()
    found, expected = ours(image), exact(image64)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)
    (found**2).sum().backward()
    (expected**2).sum().backward()
    pairs = [(image.grad, image64.grad)] + [
        (a.grad, b.grad) for a, b in zip(ours.parameters(), exact.parameters(), strict=True)
    ]
    for ours_grad, exact_grad in pairs:
        assert ours_grad is not None
        assert exact_grad is not None
        torch.testing.assert_close(ours_grad.double(), exact_grad, rtol=1e-4, atol=1e-4)


def test_sixteen_bit_numbers_pass() -> None:
    convolution = Conv3d(2, 3, kernel_size=3)
    image = torch.randn(1, 2, 6, 6, 6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert convolution(image).dtype == torch.bfloat16
    assert convolution.bfloat16()(image.bfloat16()).dtype == torch.bfloat16
