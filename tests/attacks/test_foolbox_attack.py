"""Foolbox's attacks behind the oracle, and ours inside foolbox."""

from __future__ import annotations

import threading

import pytest
import torch

from bbox.attacks import make_attack
from bbox.errors import TargetError, UsageError
from tests.toys import Constant, Examples, Quadratic, RaisesAfter, attack, examples_of

HSJ = "foolbox:HopSkipJumpAttack"


def test_the_closest_row_that_it_asked_counts_when_it_is_cut_off() -> None:
    target = Quadratic()
    found = attack(HSJ, target, examples_of(target, 2), 150)
    for outcome in found.values():
        assert outcome.stopped == "budget"
        assert outcome.distance == outcome.trace[-1][1] < outcome.trace[0][1]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("foolbox:BoundaryAttack", {"steps": "20"}),
        ("foolbox:LinearSearchBlendedUniformNoiseAttack", {}),
        ("foolbox:GaussianBlurAttack", {}),
        ("foolbox:L2RepeatedAdditiveGaussianNoiseAttack", {"epsilon": "4.0", "repeats": "10"}),
    ],
)
@pytest.mark.filterwarnings("ignore:foolbox gave up")
@pytest.mark.filterwarnings("ignore:init_attack failed")
def test_others_run_too(name: str, options: dict) -> None:
    target = Quadratic((1, 8, 8))
    found = attack(name, target, examples_of(target, 2), 60, options=options)
    assert target.rows == sum(o.spent for o in found.values()) > 0
    assert {o.stopped for o in found.values()} <= {"budget", "converged", "start_not_found"}


def test_targeted_starts_from_the_pool() -> None:
    target = Quadratic()
    examples = examples_of(target, 8)
    found = attack(HSJ, target, examples, 120, targeted=True)
    for i, outcome in found.items():
        assert int(target.answer(outcome.best[None]).argmax()) == int(examples.others[i])


def test_an_attack_that_wants_gradients_is_refused() -> None:
    target = Quadratic()
    with pytest.raises(UsageError, match="a black box has none"):
        attack("foolbox:L2FastGradientAttack", target, examples_of(target, 1), 20, options={"epsilon": "1"})


@pytest.mark.filterwarnings("ignore:LinearSearchBlendedUniformNoiseAttack failed")
def test_an_example_that_foolbox_gives_up_on_does_not_end_the_others() -> None:
    inputs = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))

    with pytest.warns(RuntimeWarning, match="foolbox gave up on an example"):
        found = attack(HSJ, Constant(), Examples(inputs, torch.zeros(2, dtype=torch.int64)), 2000)
    assert {o.stopped for o in found.values()} == {"start_not_found"}


def test_no_thread_is_left_behind() -> None:
    before = threading.active_count()
    target = Quadratic()
    attack(HSJ, target, examples_of(target, 3), 40)
    with pytest.raises(TargetError):
        attack(HSJ, RaisesAfter(good=20), examples_of(Quadratic(), 3), 100)
    assert threading.active_count() <= before


def test_ours_inside_foolbox() -> None:
    import foolbox

    from bbox.attacks.foolbox_adapter import as_foolbox

    centres = Quadratic().centres.flatten(1)
    calls: list[int] = []

    class Nearest(torch.nn.Module):
        def forward(self, rows: torch.Tensor) -> torch.Tensor:
            calls.append(len(rows))
            return -(rows.flatten(1)[:, None] - centres).square().sum(2)

    model = foolbox.PyTorchModel(Nearest().eval(), bounds=(0, 1), device="cpu")
    examples = examples_of(Quadratic(), 4)
    labels = model(examples.inputs).argmax(1)
    calls.clear()
    method = as_foolbox("cgba", budget=120)
    raw, _clipped, success = method(model, examples.inputs, labels, epsilons=[0.01, 10.0])
    assert success[1].all() and not success[0].any()
    assert method.queries.tolist() == [120] * 4
    assert sum(calls) == 480 + 2 * 4, "the attack's queries, and foolbox's own check of each epsilon"
    assert (model(raw[1]).argmax(1) != labels).all()
    assert float(raw[1].min()) >= 0 and float(raw[1].max()) <= 1
    one = as_foolbox("cgba", budget=120)
    alone, _, _ = one(model, examples.inputs[:1], labels[:1], epsilons=[0.01, 10.0])
    assert torch.equal(alone[1][0], raw[1][0])
    early = as_foolbox("cgba", budget=120)
    early(model, examples.inputs, labels, epsilons=[10.0])
    assert int(early.queries.max()) < 120, "foolbox stops at its smallest epsilon"


def test_options_reach_foolbox() -> None:
    made = make_attack(HSJ, {"steps": "3", "gamma": "2"})
    assert (made.attack.steps, made.attack.gamma) == (3, 2.0)
