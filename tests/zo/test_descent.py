"""Descent against torch's own optimisers, step by step with a rate that changes."""

import pytest
import torch
from torch import Tensor, nn

from bbox.zo import Adam, Descent, GradientCorrection

STEPS = 200
RATES = [0.01 / (t + 1) ** 0.4 for t in range(1, STEPS + 1)]
ESTIMATES = torch.randn(STEPS, 50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
START = torch.linspace(-1, 1, 50, dtype=torch.float64)


def _path(descent: Descent, estimates: Tensor = ESTIMATES) -> Tensor:
    weights, path = START.to(estimates), []
    for estimate, rate in zip(estimates, RATES, strict=True):
        weights = descent.step(weights, estimate, rate)
        path.append(weights)
    return torch.stack(path)


def _torch_path(make, estimates: Tensor = ESTIMATES) -> Tensor:
    weights = nn.Parameter(START.to(estimates, copy=True))
    optimizer, path = make([weights]), []
    for estimate, rate in zip(estimates, RATES, strict=True):
        optimizer.param_groups[0]["lr"] = rate
        weights.grad = estimate.clone()
        optimizer.step()
        path.append(weights.detach().clone())
    return torch.stack(path)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("momentum", [0.0, 0.3, 0.9, 0.95])
def test_gradient_correction_is_nesterov_sgd(momentum, dtype) -> None:
    estimates = ESTIMATES.to(dtype)
    found = _path(GradientCorrection(momentum), estimates)
    expected = _torch_path(lambda p: torch.optim.SGD(p, lr=1.0, momentum=momentum, nesterov=momentum > 0), estimates)
    assert found.dtype == dtype
    rounding = 1e-12 if dtype == torch.float64 else 2e-6
    torch.testing.assert_close(found, expected, rtol=rounding, atol=rounding)


def test_without_momentum_it_is_plain_spsa_and_with_it_steps_are_longer() -> None:
    same = torch.ones(STEPS, 50, dtype=torch.float64)
    plain, corrected = (_path(GradientCorrection(momentum), same) for momentum in (0.0, 0.9))
    torch.testing.assert_close(plain[-1], START - sum(RATES))
    length = (corrected[-2] - corrected[-1]) / (plain[-2] - plain[-1])
    torch.testing.assert_close(length, torch.full_like(length, 10.0), rtol=1e-3, atol=0)


@pytest.mark.parametrize("betas", [(0.9, 0.99), (0.8, 0.999)])
def test_adam_is_torchs(betas) -> None:
    expected = _torch_path(lambda p: torch.optim.Adam(p, lr=1.0, betas=betas, eps=1e-8))
    torch.testing.assert_close(_path(Adam(*betas)), expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("make", [GradientCorrection, Adam])
def test_forgetting_starts_again(make) -> None:
    descent = make()
    _path(descent)
    assert not torch.equal(descent.step(START, ESTIMATES[0], 0.1), make().step(START, ESTIMATES[0], 0.1))
    descent.forget()
    assert torch.equal(_path(descent), _path(make()))


@pytest.mark.parametrize("make", [GradientCorrection, Adam])
def test_a_step_changes_nothing_in_place_and_keeps_no_alias(make) -> None:
    descent, weights, estimate = make(), START.clone(), ESTIMATES[0].clone()
    descent.step(weights, estimate, 0.1)
    assert torch.equal(weights, START) and torch.equal(estimate, ESTIMATES[0])
    estimate.fill_(1e9)
    fresh = make()
    fresh.step(weights, ESTIMATES[0], 0.1)
    assert torch.equal(descent.step(weights, ESTIMATES[1], 0.1), fresh.step(weights, ESTIMATES[1], 0.1))
