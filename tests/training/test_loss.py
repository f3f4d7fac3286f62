from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unet_dask.training.loss import dice_loss, weighted_cross_entropy


def test_loss_equals_the_value_computed_by_hand() -> None:
    # Two pixels: logits (ln 3, 0) of true class 0, and (0, ln 4) of true class 0.
    logits = torch.tensor([[[[math.log(3.0), 0.0]], [[0.0, math.log(4.0)]]]])
    target = torch.zeros(1, 1, 2, dtype=torch.int64)
    weight = torch.tensor([[[1.0, 3.0]]])
    expected = (1 * math.log(4 / 3) + 3 * math.log(5)) / 4
    assert weighted_cross_entropy(logits, target, weight).item() == pytest.approx(expected, rel=1e-6)


def test_gradient_is_that_of_the_value() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1, 3, 2, 4, dtype=torch.float64, generator=generator, requires_grad=True)
    target = torch.randint(0, 3, (1, 2, 4), generator=generator)
    weight = torch.rand(1, 2, 4, dtype=torch.float64, generator=generator)
    assert torch.autograd.gradcheck(lambda free: weighted_cross_entropy(free, target, weight), (logits,))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000))
def test_pixels_without_weight_change_nothing(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(1, 3, 4, 4, generator=generator, requires_grad=True)
    target = torch.randint(0, 3, (1, 4, 4), generator=generator)
    weight = (torch.rand(1, 4, 4, generator=generator) > 0.5).float()
    other = torch.where(weight > 0, target, (target + 1) % 3)
    loss = weighted_cross_entropy(logits, target, weight)
    same = weighted_cross_entropy(logits, other, weight)
    assert loss.item() == same.item()
    (gradient,) = torch.autograd.grad(same, logits)
    assert not gradient[:, :, weight[0] == 0].any()


def test_no_weight_at_all_is_no_loss() -> None:
    logits = torch.randn(1, 2, 2, 2)
    loss = weighted_cross_entropy(logits, torch.zeros(1, 2, 2, dtype=torch.int64), torch.zeros(1, 2, 2))
    assert loss.item() == 0


def test_dice_is_the_formula_over_known_pixels() -> None:
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(1, 4, 6, 5, generator=generator, requires_grad=True)
    target = torch.randint(0, 3, (1, 6, 5), generator=generator)  # class 3 is not there, and is left out
    weight = (torch.rand(1, 6, 5, generator=generator) > 0.3).float() * 7
    known = (weight > 0).numpy()[0]
    probability = logits.softmax(dim=1).detach().double().numpy()[0]
    indices = []
    for number in (1, 2):
        true, found = (target.numpy()[0] == number) & known, probability[number] * known
        indices.append(2 * (found * true).sum() / ((found**2).sum() + true.sum()))
    loss = dice_loss(logits, target, weight)
    assert loss.item() == pytest.approx(1 - sum(indices) / 2, abs=1e-6)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert not gradient[:, :, weight[0] == 0].any()


def test_dice_of_background_alone_is_nothing() -> None:
    logits = torch.randn(1, 2, 3, 3, requires_grad=True)
    loss = dice_loss(logits, torch.zeros(1, 3, 3, dtype=torch.int64), torch.ones(1, 3, 3))
    assert loss.item() == 0
    torch.autograd.grad(loss, logits)
