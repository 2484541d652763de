"""Perturbations that know no gradient: their size, their shape over time, each drawn for its motion alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from bbox.attacks.smi import BASELINES, perturb
from bbox.attacks.smi.baselines import drift
from bbox.motion.domain import Tube
from bbox.motion.presence import present
from bbox.zo import root_keys
from tests.motion.bodies import move, ragged

EPSILON = 0.03


def keys(count: int, seed: int = 0) -> Tensor:
    return root_keys(seed, torch.arange(count))


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("name", BASELINES)
def test_the_full_size_of_the_budget(name: str, norm: str) -> None:
    motions = ragged(6)
    rows = perturb(name, motions, keys(6), epsilon=EPSILON, norm=norm)
    distance = Tube(norm=norm).distance(motions, rows)
    assert float(distance.max()) <= EPSILON and float(distance.min()) > EPSILON * (1 - 1e-4)
    there = present(motions).expand_as(motions)
    assert not rows[~there].any()
    if norm == "linf":
        full = (rows - motions)[there].abs() > EPSILON * (1 - 1e-4)
        assert float(full.double().mean()) > 0.995, "every coordinate moves by epsilon, save for a draw of exactly 0"


def test_shapes_over_time() -> None:
    motions = move(6, 40)
    change = {n: perturb(n, motions, keys(6), epsilon=EPSILON, norm="l2") - motions for n in BASELINES}
    steps = {n: float((c[:, :, 1:] - c[:, :, :-1]).abs().mean()) for n, c in change.items()}
    assert steps["offset"] < 1e-6 and steps["drift"] < 1e-6
    assert 1e-4 < steps["smooth-noise"] < 0.4 * steps["noise"]
    between = change["offset"][:, :, 0, 1:] - change["offset"][:, :, 0, :-1]
    assert float(between.abs().mean()) > 1e-3, "each joint has its own"


def test_the_direction_of_drift() -> None:
    """Eight still poses at 0, 1, ..., 7 along x: of those nearest to 0 the one at a quarter of the list is at 2."""
    place = torch.arange(8.0) + 1
    pool = torch.zeros(8, 3, 5, 4, 1)
    pool[:, 0] = place.view(-1, 1, 1, 1)
    pool[:, 1] = 1.0
    pool[0, :, 3:] = 0  # padding is not part of its mean pose
    found = drift(pool[:1], pool)
    assert found.shape == (1, 3, 5, 4, 1)
    assert torch.equal(found[0, 0], torch.full((5, 4, 1), 2.0)) and not found[0, 1:].any()
    assert drift(pool[7:], pool)[0, 0, 0, 0, 0] == -2
    assert not drift(pool[:1], pool[:1]).any(), "a lone motion has nowhere to go"
    rows = perturb("drift", pool[:1], keys(1), epsilon=EPSILON, norm="linf", pool=pool)
    assert float((rows - pool[:1])[0, 0, :3].mean()) == pytest.approx(EPSILON, rel=1e-4)


@pytest.mark.parametrize("name", BASELINES)
def test_drawn_from_seed_and_index_alone(name: str) -> None:
    motions, pool = ragged(5), move(9, 20, bodies=2)
    drawn = keys(5)
    for norm in ("linf", "l2"):
        whole = perturb(name, motions, drawn, epsilon=EPSILON, norm=norm, pool=pool)
        for order in ([3], [4, 1, 3]):
            part = perturb(name, motions[order], drawn[order], epsilon=EPSILON, norm=norm, pool=pool)
            assert torch.equal(part, whole[order])
    other = perturb(name, motions, keys(5, seed=1), epsilon=EPSILON, norm="l2", pool=pool)
    assert torch.equal(other, whole) == (name == "drift")
