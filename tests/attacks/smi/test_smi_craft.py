"""SMI on an encoder at hand: budget, batches, rigid bones, options."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from bbox.attacks import make_attack
from bbox.attacks.smi import SMI
from bbox.errors import InputError, UsageError
from bbox.motion.domain import Tube
from bbox.motion.objective import Objective
from bbox.motion.presence import present
from bbox.motion.validity import measure
from bbox.zo import root_keys
from tests.motion.bodies import SKELETON, move, ragged
from tests.motion_toys import Waves

KEYS = root_keys(0, torch.arange(6))


def craft(made: SMI, motions: Tensor, which: list[int] | None = None, norm: str = "linf") -> Tensor:
    index = torch.arange(len(motions)) if which is None else torch.tensor(which)
    goal = Objective(clusters=3, nearest=1).prepare(Waves(), motions, seed=0)
    return made.craft(motions[index], goal, SKELETON, KEYS[index], norm=norm, index=index, pool=motions)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("update", ["ifgsm", "mifgsm", "nifgsm", "pgd"])
@pytest.mark.parametrize("start", ["clean", "random", "drift"])
def test_within_the_budget_and_higher(start: str, update: str, norm: str) -> None:
    motions = ragged(6)
    made = SMI(epsilon=0.02, iterations=6, update=update, start=start)
    found = craft(made, motions, norm=norm)
    distance = Tube(norm=norm, radius=9.0).distance(motions, found)
    assert float(distance.min()) > 0.01 and float(distance.max()) <= 0.02
    assert not found[~present(motions).expand_as(motions)].any()
    goal = Objective(clusters=3, nearest=1).prepare(Waves(), motions, seed=0)
    index = torch.arange(6)
    assert float(goal.value(found, index).mean()) > float(goal.value(motions, index).mean()) + 0.05


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("options", [{}, {"update": "pgd", "gradient": "adjoint"}, {"rigid": True, "start": "clean"}])
def test_alone_as_in_any_batch(options: dict, norm: str) -> None:
    motions = ragged(6)
    made = SMI(iterations=3, **options)
    whole = craft(made, motions, norm=norm)
    for which in ([2], [5, 0, 2]):
        assert torch.equal(craft(made, motions, which, norm), whole[which])


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_rigid_keeps_bones_and_the_tube(norm: str) -> None:
    motions = move(4, 16)
    loose, rigid = (craft(SMI(iterations=5, rigid=r, start="clean"), motions, norm=norm) for r in (False, True))
    change = [measure(found, motions, SKELETON).bone_change for found in (loose, rigid)]
    assert float(change[0].min()) > 1 and float(change[1].max()) < 0.5, "per cent"
    assert float(Tube(norm=norm, radius=9.0).distance(motions, rigid).max()) <= SMI().epsilon


def test_the_first_step_is_the_filtered_gradient() -> None:
    motions = move(3, 12)
    goal = Objective(clusters=2, nearest=1).prepare(Waves(), motions, seed=0)
    rows = motions.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(goal.value(rows, torch.arange(3)).sum(), rows)
    for spec, expected in (("none", gradient), ("constant", gradient.mean(2, keepdim=True).expand_as(gradient))):
        made = SMI(epsilon=0.02, iterations=1, step=0.01, start="clean", gradient=spec, update="ifgsm")
        found = made.craft(motions, goal, SKELETON, KEYS[:3]) - motions
        sure = expected.abs() > 1e-9
        assert torch.equal(found.sign()[sure], expected.sign()[sure])
        assert float((found.abs() - 0.01)[sure].abs().max()) < 1e-6


def test_an_encoder_without_a_usable_gradient_is_refused() -> None:
    class Blind(nn.Module):
        def forward(self, motions: Tensor) -> Tensor:
            return motions.detach().flatten(1)

    class Endless(nn.Module):
        def forward(self, motions: Tensor) -> Tensor:
            return (motions * 0).sqrt().flatten(1) + motions.flatten(1)

    motions = move(4, 8)
    for encoder, said in ((Blind(), "passes no gradient"), (Endless(), "is not finite")):
        goal = Objective(clusters=2, nearest=1).prepare(encoder, motions, seed=0)
        with pytest.raises(InputError, match=said):
            SMI(iterations=1).craft(motions, goal, SKELETON, KEYS[:4])


def test_the_published_preset() -> None:
    made = make_attack("smi", {"preset": "paper"})
    assert isinstance(made, SMI)
    assert (made.epsilon, made.iterations, made.gradient, made.encoder) == (0.01, 400, "smi2", "graph")
    assert (made.clusters, made.nearest, made.temperature, made.decay) == (120, 10, 1.0, 1.0)
    assert (made.start, made.bandwidth, made.rigid) == ("clean", 0.0, False)
    changed = make_attack("smi", {"preset": "paper", "epsilon": "0.02"})
    assert isinstance(changed, SMI) and (changed.epsilon, changed.iterations) == (0.02, 400)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"epsilon": 0}, "epsilon is 0, expected metres"),
        ({"epsilon": float("nan")}, "epsilon is nan"),
        ({"iterations": 0}, "iterations is 0"),
        ({"step": -1}, "step is -1"),
        ({"decay": float("nan")}, "decay is nan"),
        ({"bandwidth": float("inf")}, "bandwidth is inf"),
        ({"update": "fgsm"}, "update is 'fgsm'"),
        ({"start": "noise"}, "start is 'noise'"),
        ({"gradient": "smi3"}, "filter is 'smi3'"),
        ({"encoder": "gru"}, "encoder is 'gru'"),
        ({"recipe": "big"}, "recipe is 'big'"),
        ({"epochs": -1}, "epochs is -1"),
        ({"clusters": 1}, "clusters 1"),
        ({"positive": False, "negatives": "none"}, "nothing is left"),
    ],
)
def test_bad_options_are_one_line(options: dict, said: str) -> None:
    with pytest.raises(UsageError) as refused:
        SMI(**options)
    assert said in str(refused.value) and "\n" not in str(refused.value)


def test_it_asks_no_target() -> None:
    with pytest.raises(UsageError, match="asks no target"):
        make_attack("average:smi")
