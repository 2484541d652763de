"""A classifier whose smoothed version is known in closed form, and the sequential test without a model."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bbox.defenses.stopping import StoppingRule
from tests.toys import Toy


class HalfSpace(Toy):
    """Class 1 where the mean pixel exceeds 1/2. Under noise of sigma, an image at l2 distance d from that plane keeps
    its class with probability Phi(d / sigma), so its true certified radius is d."""

    def __init__(self, side: int = 2, access: str = "scores") -> None:
        super().__init__((1, side, side), 2, access)
        self.side = side

    def answer(self, rows: Tensor) -> Tensor:
        over = (rows.double() - 0.5).flatten(1).sum(1)
        return torch.stack([-over, over], 1).float()

    def at(self, distances: list[float]) -> Tensor:
        """Images of class 1 at these distances (negative: of class 0)."""
        return (0.5 + torch.tensor(distances) / self.side)[:, None, None, None].expand(-1, *self.input_shape).clone()


def phi(x: float) -> float:
    return 0.5 * math.erfc(-x / math.sqrt(2))


def simulate(rule: StoppingRule, p: NDArray[np.float64], seed: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Follow the rule for images of known p with binomial counts: (lower bounds, samples used)."""
    rng = np.random.default_rng(seed)
    hits, at = np.zeros(len(p), np.int64), np.zeros(len(p), np.int64)
    lower, open_ = np.zeros(len(p)), np.ones(len(p), bool)
    while open_.any():
        which = open_.nonzero()[0]
        now = int(at[which[0]])
        stop = rule.next_stop(now)
        hits[which] += rng.binomial(stop - now, p[which])
        at[which] = stop
        lower[which] = np.maximum(lower[which], rule.bound(hits[which], at[which]))
        open_[which] = rule.undecided(lower[which], hits[which], at[which])
    return lower, at
