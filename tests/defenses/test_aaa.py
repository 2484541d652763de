"""AAA: labels never change, margins run backwards within intervals, confidence and calibration stay."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from bbox.defenses import make_defense
from bbox.defenses.aaa import AAA
from tests.toys import Answers

KINDS = [{"kind": "linear"}, {"kind": "sine", "strength": 0.7}, {"kind": "sine"}, {"kind": "linear", "interval": 0.01}]


def answers(scores: Tensor, **options: Any) -> Tensor:
    wrapped = make_defense("aaa", options).wrap(Answers(lambda rows: scores.clone(), classes=scores.shape[1]))
    return wrapped(torch.zeros(len(scores), 1))


def margin(scores: Tensor) -> Tensor:
    best = scores.double().topk(2, dim=1).values
    return best[:, 0] - best[:, 1]


def hard_rows() -> Tensor:
    """10,000 score rows: of all sizes, with ties, on interval borders, extreme, masked, probabilities."""
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(10_000, 10, generator=generator)
    scores[:4000] *= 10 ** (12 * torch.rand(4000, 1, generator=generator) - 6)
    scores[4000:5000] = scores[4000:5000].round()
    scores[5000:5500] *= 1e37
    scores[5500:6000] = (8 * scores[5500:6000]).softmax(1)
    scores[6000:6500] = (40 * scores[6000:6500]).softmax(1)
    scores[6500:7000] = scores[6500:7000].masked_fill(scores[6500:7000] < -0.5, -torch.inf)
    scores[7000:7500] = 4 * scores[7000:7500].round()
    scores[7500:7600] = 0
    return scores


@pytest.mark.parametrize("options", KINDS)
def test_no_label_of_ten_thousand_changes(options: dict[str, Any]) -> None:
    scores = hard_rows()
    changed = answers(scores, **options)
    assert torch.equal(changed.argmax(1), scores.argmax(1))
    assert not changed.isnan().any() and torch.isfinite(changed.amax(1)).all()
    sums = changed[5500:6500].double().sum(1)
    assert (changed[5500:6500] >= 0).all() and (sums - 1).abs().max() < 1e-5


def test_the_order_of_all_classes_stays() -> None:
    scores = 5 * torch.randn(500, 10, generator=torch.Generator().manual_seed(1))
    ordered = answers(scores).gather(1, scores.argsort(1))
    assert (ordered.diff(dim=1) >= 0).all() and (ordered[:, -1] > ordered[:, -2]).all()


@pytest.mark.parametrize("kind", ["linear", "sine"])
def test_the_margin_runs_backwards_through_the_attractor(kind: str) -> None:
    tau = 4.0
    true = torch.linspace(tau + 0.01, 2 * tau - 0.01, 201).double()
    defense = AAA(kind="sine" if kind == "sine" else "linear")
    shown = defense.reversed_margin(true)
    attractor = 1.5 * tau
    inside = (true - attractor).abs() < (2 if kind == "linear" else tau / 8)
    assert (shown.diff()[inside[1:] & inside[:-1]] < 0).all()
    assert shown[100] == pytest.approx(attractor, abs=0.05)
    if kind == "linear":
        assert torch.allclose(shown, 2 * attractor - true)
    scores = torch.cat([true[:, None].float(), torch.zeros(201, 1), torch.full((201, 3), -1.0)], 1)
    assert torch.allclose(margin(answers(scores, kind=kind)), shown, atol=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_the_confidence_is_that_of_the_temperature_where_a_margin_allows_it(temperature: float) -> None:
    # The margin and the others' spread leave room: with 10 classes the odds S reach from 1 to 9 times exp(-margin).
    scores = torch.randn(2000, 10, generator=torch.Generator().manual_seed(2)) * 3
    wanted = (scores.double() / temperature).softmax(1).amax(1)
    changed = answers(scores, temperature=temperature)
    reached = changed.double().softmax(1).amax(1)
    odds = (1 / wanted - 1) * margin(changed).exp()
    possible = (odds > 1.01) & (odds < 8.9)
    assert possible.float().mean() > 0.1
    assert (reached - wanted)[possible].abs().max() < 1e-4
    beyond = reached[odds >= 9.1]  # as unsure as the margin allows
    assert (beyond - 1 / (1 + 9 * (-margin(changed)[odds >= 9.1]).exp())).abs().max() < 2e-2


def test_what_has_no_margin_passes_as_it_is() -> None:
    single = torch.tensor([[2.0], [-1.0]])
    assert torch.equal(answers(single), single)
    scores = torch.tensor([[1.0, -torch.inf, -torch.inf], [torch.nan] * 3, [1.0, torch.nan, 0.0]])
    assert torch.equal(answers(scores).nan_to_num(7.0), scores.nan_to_num(7.0))


def test_two_classes_keep_the_label() -> None:
    scores = torch.randn(1000, 2, generator=torch.Generator().manual_seed(3)) * 10
    assert torch.equal(answers(scores).argmax(1), scores.argmax(1))
