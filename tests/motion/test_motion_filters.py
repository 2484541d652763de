"""Temporal filters against autograd through the recursion, and against plain loops."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.fft
import torch
from torch import Tensor

from bbox.errors import UsageError
from bbox.motion.dynamics import fit_dynamics
from bbox.motion.filters import FILTERS, make_filter, stabilised
from bbox.motion.presence import present
from tests.motion.bodies import move, ragged

SPECS = (
    "none",
    "smi1",
    "smi2",
    "adjoint1",
    "adjoint",
    "adjoint1:stable",
    "adjoint:stable",
    "gaussian:2",
    "box:5",
    "dct:3",
    "constant",
)
SMOOTHERS = ("gaussian:1.5", "box:5", "dct:3", "constant")


def objective(motions: Tensor) -> Tensor:
    """Something that no coordinate enters alone, or linearly, absent ones too."""
    mixed = motions.cumsum(2) + motions.flip(3) * motions
    return (3 * mixed + 0.3).sin().sum() + (motions + 0.1).square().sum()


def gradient_of(motions: Tensor) -> Tensor:
    leaf = motions.clone().requires_grad_()
    return torch.autograd.grad(objective(leaf), leaf)[0]


def cases() -> list[Tensor]:
    return [ragged(4, 18).double(), *(move(2, frames, bodies=2).double() for frames in (1, 2, 3, 4))]


@pytest.mark.parametrize("motions", cases(), ids=lambda m: f"{m.shape[2]} frames")
@pytest.mark.parametrize("order", [1, 2])
def test_the_adjoint_is_the_gradient_through_the_recursion(motions: Tensor, order: int) -> None:
    there = present(motions)
    coefficients = fit_dynamics(motions, order=order).coefficients

    def follow(frames: list[Tensor], t: int) -> Tensor:
        return sum((coefficients[:, k - 1, :, t] * frames[t - k] for k in range(1, min(t, order) + 1)), torch.zeros(()))

    exact = list(motions.unbind(2))
    left = torch.stack([exact[t] - follow(exact, t) for t in range(len(exact))], 2).requires_grad_()
    built: list[Tensor] = []
    for t in range(len(exact)):
        built.append(follow(built, t) + left[:, :, t])
    whole = torch.stack(built, 2)
    torch.testing.assert_close(whole.detach(), motions)
    expected = torch.autograd.grad(objective(whole), left)[0] * there
    found = make_filter("adjoint1" if order == 1 else "adjoint", motions)(gradient_of(motions))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("motions", cases(), ids=lambda m: f"{m.shape[2]} frames")
@pytest.mark.parametrize("order", [1, 2])
def test_smi_is_the_gradient_through_as_many_frames_of_the_recursion(motions: Tensor, order: int) -> None:
    coefficients = fit_dynamics(motions, order=order).coefficients
    frames = motions.shape[2]
    expected = torch.zeros_like(motions)
    for t in range(frames):
        push = torch.zeros_like(motions[:, :, t], requires_grad=True)
        moved = {t: push}
        for ahead in range(t + 1, min(t + order + 1, frames)):
            lags = range(1, min(ahead - t, order) + 1)
            moved[ahead] = sum((coefficients[:, k - 1, :, ahead] * moved[ahead - k] for k in lags), torch.zeros(()))
        pushed = torch.stack([motions[:, :, i] + moved.get(i, torch.zeros(())) for i in range(frames)], 2)
        expected[:, :, t] = torch.autograd.grad(objective(pushed), push)[0]
    found = make_filter(f"smi{order}", motions)(gradient_of(motions))
    torch.testing.assert_close(found, expected * present(motions), rtol=1e-9, atol=1e-9)


def test_smi_is_its_formula() -> None:
    motions = move(2, 16).double()
    gradient = torch.randn(motions.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    c, d = fit_dynamics(motions, order=2, bandwidth="loo").coefficients.unbind(1)
    found = make_filter("smi2", motions, bandwidth="loo")(gradient)
    t = 7
    expected = (
        gradient[:, :, t]
        + c[:, :, t + 1] * gradient[:, :, t + 1]
        + (d[:, :, t + 2] + c[:, :, t + 2] * c[:, :, t + 1]) * gradient[:, :, t + 2]
    )
    torch.testing.assert_close(found[:, :, t], expected)
    torch.testing.assert_close(found[:, :, -1], gradient[:, :, -1])
    torch.testing.assert_close(found[:, :, -2], gradient[:, :, -2] + c[:, :, -1] * gradient[:, :, -1])


@pytest.mark.parametrize("spec", SMOOTHERS)
def test_smoothers_are_what_plain_loops_make(spec: str) -> None:
    motions = ragged(4, 18).double()
    gradient = torch.randn(motions.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = make_filter(spec, motions)(gradient)
    there = present(motions)
    name, _, number = spec.partition(":")
    for n, body in np.ndindex(4, 2):
        rows = there[n, 0, :, 0, body].nonzero().flatten().numpy()
        if len(rows) == 0:
            continue
        series = gradient[n, :, :, :, body].numpy()[:, rows]
        expected = np.zeros_like(series)
        if name == "constant":
            expected[:] = series.mean(1, keepdims=True)
        elif name == "dct":
            waves = scipy.fft.dct(series, axis=1, norm="ortho")
            waves[:, int(number) :] = 0
            expected = scipy.fft.idct(waves, axis=1, norm="ortho")
        else:
            for place, row in enumerate(rows):
                apart = np.abs(rows - row)
                weights = (
                    np.exp(-0.5 * (apart / 1.5) ** 2) * (apart <= 6)
                    if name == "gaussian"
                    else (apart <= 2).astype(float)
                )
                expected[:, place] = np.tensordot(weights / weights.sum(), series, (0, 1))
        np.testing.assert_allclose(found[n, :, rows, :, body].numpy(), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("spec", SPECS)
def test_every_filter_is_linear_masked_and_the_same_in_any_batch(spec: str) -> None:
    motions = ragged(5, 18)
    first, second = torch.randn(2, *motions.shape, generator=torch.Generator().manual_seed(0))
    whole = make_filter(spec, motions)
    kept = first.clone()
    found = whole(first)
    assert torch.equal(first, kept)
    assert found.shape == motions.shape
    assert found.dtype == torch.float32
    assert found.is_contiguous()
    assert not (found * ~present(motions)).any()
    assert torch.equal(whole(first * present(motions)), found)
    torch.testing.assert_close(whole(2 * first + second), 2 * found + whole(second), rtol=1e-4, atol=1e-3)
    for n in range(5):
        assert torch.equal(make_filter(spec, motions[n : n + 1])(first[n : n + 1])[0], found[n])


@pytest.mark.parametrize("spec", SPECS)
def test_one_frame_is_left_as_it_is(spec: str) -> None:
    motions = move(2, 1)
    gradient = torch.randn(motions.shape, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(make_filter(spec, motions)(gradient), gradient)


@pytest.mark.parametrize("order", [1, 2])
def test_stabilised_coefficients_have_no_root_outside_the_circle(order: int) -> None:
    motions = move(2, 40, seed=5) + 0.02 * torch.randn(2, 3, 40, 9, 1, generator=torch.Generator().manual_seed(0))
    model = fit_dynamics(motions, order=order, bandwidth=0.1)

    def radius(coefficients: Tensor) -> Tensor:
        flat = coefficients.double().movedim(1, -1).reshape(-1, order)
        companion = torch.zeros(len(flat), order, order, dtype=torch.float64)
        companion[:, 0] = flat
        companion[:, range(1, order), range(order - 1)] = 1
        return torch.linalg.eigvals(companion).abs().amax(1)

    held = stabilised(model)
    wild = radius(model.coefficients) > 1 + 1e-6
    assert bool(wild.any())
    assert float(radius(held.coefficients).max()) < 1 + 1e-3  # a double root at 1 is only known to half the digits
    inside = (~wild).view(2, 3, 40, 9, 1)
    torch.testing.assert_close(held.coefficients.movedim(1, -1)[inside], model.coefficients.movedim(1, -1)[inside])


@pytest.mark.parametrize(
    "spec",
    [
        *("fir", "smi3", "smi1:2", "none:1", "constant:2", "adjoint2", "adjoint:unstable", "gaussian", "gaussian:-1"),
        *("gaussian:inf", "box:4", "box:x", "dct:1.5", "dct:0", "dct:nan"),
    ],
)
def test_unknown_filters_are_refused(spec: str) -> None:
    with pytest.raises(UsageError, match=r"filter is '.*', expected one of: none \(.*constant \("):
        make_filter(spec, move(1, 4))


def test_every_filter_is_listed() -> None:
    assert {spec.partition(":")[0] for spec in SPECS} == set(FILTERS)
