"""bbox's attacks inside foolbox code: foolbox's own call, criteria, bounds and epsilons."""

from __future__ import annotations

import foolbox
import pytest
import torch
from torch import nn

import bbox
from bbox.errors import UsageError
from bbox.zoo.digits import load_digits_model

BUDGET = 120


class Counting(nn.Module):
    """The digits model for inputs in [low, high], counting rows."""

    def __init__(self, low: float = 0.0, high: float = 1.0) -> None:
        super().__init__()
        self.model, self.low, self.high, self.rows = load_digits_model(), low, high, 0

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        self.rows += len(rows)
        return self.model((rows - self.low) / (self.high - self.low))


@pytest.fixture(scope="module")
def digits() -> bbox.Dataset:
    return bbox.data.load("zoo:digits").select(limit=4)


def foolbox_model(low: float = 0.0, high: float = 1.0) -> tuple[Counting, foolbox.PyTorchModel]:
    module = Counting(low, high).eval()
    return module, foolbox.PyTorchModel(module, bounds=(low, high), device="cpu")


@pytest.mark.parametrize("name", ["cgba", "cgba-h"])
def test_foolbox_calls_it_like_its_own(name: str, digits: bbox.Dataset) -> None:
    module, model = foolbox_model()
    attack = bbox.as_foolbox(name, budget=BUDGET)
    assert isinstance(attack, foolbox.attacks.base.MinimizationAttack)
    raw, clipped, success = attack(model, digits.inputs, digits.labels, epsilons=None)
    assert bool(success.all())
    assert torch.equal(raw, clipped)
    assert attack.queries.tolist() == [BUDGET] * 4
    # foolbox itself asks once for each epsilon (here: None) what came out.
    assert module.rows == 4 * BUDGET + 4
    assert bool((model(raw).argmax(1) != digits.labels).all())


def test_it_is_the_attack_that_bbox_runs(digits: bbox.Dataset) -> None:
    _, model = foolbox_model()
    raw, _, _ = bbox.as_foolbox("cgba", budget=BUDGET)(model, digits.inputs, digits.labels, epsilons=None)
    result = bbox.attack(load_digits_model(), digits.inputs, digits.labels, "cgba", budget=BUDGET)
    found = (raw.double() - digits.inputs.double()).flatten(1).norm(dim=1)
    assert torch.allclose(found, result.distance, rtol=0.2)  # start points differ: foolbox brings no pool


def test_epsilons_are_in_the_model_s_units(digits: bbox.Dataset) -> None:
    _, model = foolbox_model(-1.0, 3.0)
    inputs = digits.inputs * 4 - 1
    attack = bbox.as_foolbox("cgba", budget=BUDGET)
    raw, _, success = attack(model, inputs, digits.labels, epsilons=[0.01, 40.0])
    assert not bool(success[0].any())
    assert bool(success[1].all())
    assert float(raw[1].min()) >= -1.0
    assert float(raw[1].max()) <= 3.0


def test_targeted_from_starting_points(digits: bbox.Dataset) -> None:
    _, model = foolbox_model()
    others = bbox.data.load("zoo:digits")
    wanted = (digits.labels + 1) % 10
    predicted = load_digits_model()(others.inputs).argmax(1)
    starts = torch.stack([others.inputs[(predicted == w).nonzero()[0, 0]] for w in wanted])
    attack = bbox.as_foolbox("cgba-h", budget=BUDGET)
    criterion = foolbox.criteria.TargetedMisclassification(wanted)
    raw, _, success = attack(model, digits.inputs, criterion, epsilons=None, starting_points=starts)
    assert bool(success.all())
    assert torch.equal(model(raw).argmax(1), wanted)


def test_what_is_not_found_comes_back_unchanged(digits: bbox.Dataset) -> None:
    constant = nn.Sequential(nn.Flatten(), nn.Linear(784, 10)).eval()
    nn.init.zeros_(constant[1].weight)
    model = foolbox.PyTorchModel(constant, bounds=(0, 1), device="cpu")
    labels = constant(digits.inputs).argmax(1)
    raw, _, success = bbox.as_foolbox("cgba", budget=60)(model, digits.inputs, labels, epsilons=None)
    assert torch.equal(raw, digits.inputs)
    assert not bool(success.any())


def test_bad_arguments(digits: bbox.Dataset) -> None:
    with pytest.raises(UsageError, match="did you mean 'cgba'"):
        bbox.as_foolbox("cgab")
    _, model = foolbox_model()
    with pytest.raises(TypeError):
        bbox.as_foolbox("cgba")(model, digits.inputs, digits.labels, epsilons=None, stepz=3)
