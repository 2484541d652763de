"""Query attacks on motion: the budget to the row, the tube, padding, and the same result in any batch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import bbox
from bbox.data.base import MotionSet
from bbox.errors import UsageError
from bbox.motion.domain import Tube
from bbox.motion.presence import present
from bbox.targets import wrap
from tests.motion_toys import MotionToy, motion_set, near_centres
from tests.toys import attack

BUDGET = 60
KINDS = [("cgba", "l2"), ("cgba-h", "l2"), ("square", "linf"), ("average:cgba", "l2")]


@pytest.mark.parametrize(("name", "norm"), KINDS)
def test_budget_tube_and_padding(name: str, norm: str) -> None:
    target = MotionToy()
    examples = near_centres(target, 4)
    tube = Tube(norm=norm, radius=0.1)
    options = {"repeats": 3} if name.startswith("average") else {}
    found = attack(name, target, examples, BUDGET, domain=tube, pool=True, options=options)
    assert target.rows == sum(o.spent for o in found.values())
    assert max(target.counts().values()) == (3 if options else 1) or norm == "l2"
    assert all(o.spent <= BUDGET for o in found.values())
    broken = {i: o for i, o in found.items() if o.distance < torch.inf}
    assert len(broken) >= 3
    for i, outcome in broken.items():
        original, best = examples.inputs[i : i + 1], outcome.best[None]
        assert float(tube.distance(original, best)[0]) == outcome.distance
        assert float((best.double() - original.double()).abs().max()) <= 0.1
        assert not best[~present(original).expand_as(best)].any()
        assert int(target.answer(best).argmax()) == outcome.label != int(examples.labels[i])


@pytest.mark.parametrize(("name", "norm"), KINDS)
def test_alone_as_in_any_batch(name: str, norm: str) -> None:
    examples = near_centres(MotionToy(), 4)
    options = {"repeats": 3} if name.startswith("average") else {}

    def run(**how: object) -> dict:
        tube = Tube(norm=norm, radius=0.1)
        return attack(name, MotionToy(), examples, BUDGET, domain=tube, pool=True, options=options, **how)

    whole = {i: o.bits() for i, o in run().items()}
    for how in ({"max_batch": 1, "group": 2}, {"indices": [3, 1]}, {"indices": [2]}):
        for i, outcome in run(**how).items():
            assert outcome.bits() == whole[i]


def test_starts_that_fail_fall_back_to_noise() -> None:
    target = MotionToy(access="labels")
    examples = near_centres(target, 2)
    starts = examples.inputs.clone()
    starts[0] = target.centres[(int(examples.labels[0]) + 1) % 4]
    options = {"start_subspace": "false"}
    found = attack("cgba", target, examples, BUDGET, domain=Tube(radius=0.5), starts=starts, options=options)
    assert found[0].trace[0][0] == 1 and found[1].trace[0][0] > 1


class TestRun:
    """``bbox.attack`` with a ``MotionSet``."""

    def data(self, target: MotionToy, count: int = 3) -> MotionSet:
        examples = near_centres(target, count)
        like = motion_set(count, frames=20, bodies=2)
        return MotionSet(
            name="near", inputs=examples.inputs, labels=examples.labels, indices=like.indices, ids=like.ids,
            skeleton=like.skeleton,
        )  # fmt: skip

    @pytest.mark.parametrize(("name", "norm"), [("cgba", "l2"), ("square", "linf")])
    def test_verified_and_measured(self, tmp_path: Path, name: str, norm: str) -> None:
        target = MotionToy()
        data = self.data(target)
        result = bbox.attack(target, data, attack=name, norm=norm, budget=BUDGET, tube=0.08, out=tmp_path / "run")
        assert target.rows == sum(ledger.queries for ledger in result.ledgers.values())
        assert int(result.queries.sum()) == result.ledgers["attack"].queries
        assert bool(result.success.any())
        won = result.success
        distance = Tube(norm=norm, radius=0.08).distance(data.inputs, result.adversarial)
        assert torch.equal(distance[won], result.distance[won])
        assert bool((target.answer(result.adversarial).argmax(1) != data.labels)[won].all())
        assert [cell["epsilon"] for cell in result.summary["checkpoints"][0]["asr"]] == [0.01, 0.03, 0.05]

    def test_a_callable_that_knows_nothing_of_motion(self) -> None:
        toy = MotionToy()
        result = bbox.attack(wrap(toy.answer), self.data(toy), budget=20)
        assert int(result.queries.max()) == 20

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ({"attack": "foolbox:HopSkipJumpAttack"}, "attacks images"),
            ({"attack": "cgba", "norm": "linf"}, "minimises l2 on motions, not linf"),
            ({"attack": "square"}, "minimises linf on motions, not l2"),
            ({"quantize": "8bit"}, "quantize 8bit is for images"),
            ({"tube": 0.0}, "tube is 0"),
            ({"attack": "smi"}, "smi asks no target"),
            ({"attack": "alert"}, "alert attacks code"),
        ],
    )
    def test_refused_before_anything_is_asked(self, options: dict, said: str) -> None:
        target = MotionToy()
        with pytest.raises(UsageError, match=said):
            bbox.attack(target, self.data(target), budget=10, **options)
        assert target.rows == 0

    def test_images_have_no_tube(self) -> None:
        with pytest.raises(UsageError, match="tube is for motions"):
            bbox.attack("zoo:digits", torch.zeros(1, 1, 28, 28), tube=0.1)
        with pytest.raises(UsageError, match="takes images"):
            bbox.attack("zoo:digits", self.data(MotionToy()))
