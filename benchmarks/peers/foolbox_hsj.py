"""foolbox's HopSkipJump with its defaults, one image a call: its estimate depends on the batch otherwise."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from benchmarks.meter import Meter

__all__ = ["prepare", "run"]

# The meter stops the attack, not this.
ENDLESS = 100_000


def prepare(_options: Any) -> dict[str, Any]:
    import foolbox

    return {"foolbox": foolbox.__version__, "settings": "class defaults, l2, starting_points given"}


def run(meter: Meter, image: Tensor, label: int, start: Tensor, target: int | None, seed: int) -> None:
    import foolbox

    model = foolbox.PyTorchModel(meter, bounds=(0, 1), device=image.device)
    if target is None:
        criterion = foolbox.criteria.Misclassification(torch.tensor([label]))
    else:
        criterion = foolbox.criteria.TargetedMisclassification(torch.tensor([target]))
    attack = foolbox.attacks.HopSkipJumpAttack(steps=ENDLESS)
    attack(model, image[None], criterion, epsilons=None, starting_points=start[None])
