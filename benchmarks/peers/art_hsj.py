"""ART's HopSkipJump with its defaults, started from the given image."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from benchmarks.meter import Meter
from benchmarks.peers.art_common import art_classifier, art_facts

__all__ = ["prepare", "run"]

# The meter stops the attack, not this.
ENDLESS = 100_000


def prepare(_options: Any) -> dict[str, Any]:
    return {**art_facts(), "settings": "class defaults, norm 2, x_adv_init given"}


def run(meter: Meter, image: Tensor, label: int, start: Tensor, target: int | None, seed: int) -> None:
    from art.attacks.evasion import HopSkipJump

    attack = HopSkipJump(art_classifier(meter), norm=2, targeted=target is not None, max_iter=ENDLESS, verbose=False)
    goal = np.array([label if target is None else target])
    attack.generate(image[None].cpu().numpy(), y=goal, x_adv_init=start[None].cpu().numpy())
