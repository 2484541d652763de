"""Each update rule against its formula, and the budget that none of them exceeds."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from bbox.attacks.smi.updates import UPDATES, Ascent
from bbox.motion.domain import Tube
from bbox.motion.presence import present
from tests.motion.bodies import ragged

EPSILON, STEP, DECAY = 0.03, 0.004, 0.9


def made(motions: Tensor, **changes: object) -> Ascent:
    options = {"epsilon": EPSILON, "norm": "linf", "update": "ifgsm", "step": STEP, "decay": DECAY, **changes}
    return Ascent(motions, **options)


def gradients(like: Tensor, count: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(like.shape, generator=generator) for _ in range(count)]


def size(change: Tensor, motions: Tensor, norm: str) -> Tensor:
    """Of the part that is there: the largest change of a coordinate, or the root mean square change of a joint."""
    change = (change * present(motions)).double()
    if norm == "linf":
        return change.abs().flatten(1).amax(1)
    joints = present(motions).double().flatten(1).sum(1) * motions.shape[3]
    return (change.square().flatten(1).sum(1) / joints).sqrt()


def by_hand(motions: Tensor, given: list[Tensor], update: str, norm: str, decay: float) -> list[Tensor]:
    """x <- clip(x + a u), u = sign or G / rms(G), in float64."""
    there = present(motions)
    origin, point, momentum = motions.double(), motions.double(), torch.zeros_like(motions).double()
    found = []
    for gradient in given:
        gradient = gradient.double() * there
        if update in ("mifgsm", "nifgsm"):
            share = there.expand_as(gradient).double().flatten(1).sum(1)
            mean = gradient.abs().flatten(1).sum(1) / share
            momentum = decay * momentum + gradient / mean.view(-1, 1, 1, 1, 1)
            gradient = momentum
        if norm == "linf":
            point = point + STEP * gradient.sign()
            point = torch.minimum(torch.maximum(point, origin - EPSILON), origin + EPSILON)
        else:
            point = point + STEP * gradient / size(gradient, motions, norm).view(-1, 1, 1, 1, 1)
            length = size(point - origin, motions, norm).view(-1, 1, 1, 1, 1)
            point = origin + (point - origin) * (EPSILON / length).clamp(max=1.0)
        point = torch.where(there, point, origin)
        found.append(point)
    return found


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("update", UPDATES)
def test_the_formula(update: str, norm: str) -> None:
    motions = ragged(4)
    given = gradients(motions, 12)
    if norm == "l2":  # one direction, so that the ball is reached
        given = [g + 2 * given[0] for g in given]
    ascent = made(motions, update=update, norm=norm)
    for gradient, point in zip(given, by_hand(motions, given, update, norm, DECAY), strict=True):
        ascent.climb(ascent.normalised(gradient))
        assert torch.allclose(ascent.point.double(), point, rtol=0, atol=2e-6)
    reached = size(ascent.point - motions, motions, norm)
    assert float(reached.min()) > (1 - 1e-4) * EPSILON, "it has reached the ball"


def test_no_decay_is_ifgsm() -> None:
    motions = ragged(4)
    plain, momentum, ahead = (made(motions, update=update, decay=0.0) for update in ("ifgsm", "mifgsm", "nifgsm"))
    for gradient in gradients(motions, 5):
        assert torch.equal(ahead.probe(), plain.point)
        for ascent in (plain, momentum, ahead):
            ascent.climb(ascent.normalised(gradient))
    assert torch.equal(plain.point, momentum.point) and torch.equal(plain.point, ahead.point)


def test_nesterov_looks_ahead() -> None:
    motions = ragged(4)
    ahead, behind = made(motions, update="nifgsm"), made(motions, update="mifgsm")
    total = torch.zeros_like(motions)
    for gradient in gradients(motions, 3):
        assert torch.allclose(ahead.probe(), ahead.point + STEP * DECAY * total, rtol=0, atol=1e-6)
        assert torch.equal(behind.probe(), behind.point)
        for ascent in (ahead, behind):
            ascent.climb(ascent.normalised(gradient))
        total = DECAY * total + ahead.normalised(gradient)
    assert not ahead.probe()[~present(motions).expand_as(motions)].any()


def test_normalised_is_over_what_is_there() -> None:
    motions = ragged(4)
    ascent = made(motions)
    (gradient,) = gradients(motions, 1)
    found = ascent.normalised(gradient)
    there = present(motions).expand_as(motions)
    assert not found[~there].any()
    for row, mask in zip(found, there, strict=True):
        assert float(row[mask].abs().mean()) == pytest.approx(1, rel=1e-5)
    assert not ascent.normalised(torch.zeros_like(gradient)).any()


@pytest.mark.parametrize("far", [0.0, 60.0])
@pytest.mark.parametrize("epsilon", [0.03, 2e-6])
@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("update", UPDATES)
def test_the_budget_is_never_exceeded(update: str, norm: str, epsilon: float, far: float) -> None:
    """In float64, of float32 coordinates, which 60 m from the origin are 4e-6 m apart."""
    motions = ragged(4)
    motions = motions + far * present(motions)
    ascent = made(motions, update=update, norm=norm, epsilon=epsilon, step=epsilon / 2)
    for gradient in gradients(motions, 6):
        ascent.climb(gradient * 1e3)
        distance = Tube(norm=norm, radius=1.0).distance(motions, ascent.point)
        assert float(distance.max()) <= epsilon
        assert not ascent.point[~present(motions).expand_as(motions)].any()
    if far == 0 and epsilon > 1e-3:
        assert float(distance.min()) > 0.5 * epsilon


def test_confidences_stay() -> None:
    motions = ragged(4)
    for norm in ("linf", "l2"):
        ascent = made(motions, norm=norm, axes=2)
        for gradient in gradients(motions, 2):
            ascent.climb(gradient)
        assert torch.equal(ascent.point[:, 2], motions[:, 2]) and not torch.equal(ascent.point[:, 0], motions[:, 0])


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_alone_as_in_a_batch(norm: str) -> None:
    motions = ragged(5)
    given = gradients(motions, 4)
    whole = made(motions, update="mifgsm", norm=norm)
    for gradient in given:
        whole.climb(whole.normalised(gradient))
    for i in range(5):
        alone = made(motions[i : i + 1], update="mifgsm", norm=norm)
        for gradient in given:
            alone.climb(alone.normalised(gradient[i : i + 1]))
        assert torch.equal(alone.point[0], whole.point[i])
