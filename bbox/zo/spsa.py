"""Simultaneous perturbation stochastic approximation (SPSA): all parameters are perturbed at once.

Spall, "Multivariate stochastic approximation using a simultaneous perturbation gradient approximation", IEEE TAC 1992.
With k directions the cosine between the estimate and the gradient is about sqrt(k / (k + dim - 1)) for signs, and
sqrt(6/7) of that for BlackVIP's segmented directions. Directions are replayed from (seed, step, number), so workers
that share a seed need to exchange the k coefficients only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from bbox.zo.random import fold, gaussian, rademacher, root_keys, uniform

__all__ = ["SPSA", "Gains", "PerturbationLaw", "clip_estimate"]

PerturbationLaw = Literal["rademacher", "segmented", "sphere"]


@dataclass(frozen=True)
class Gains:
    """Spall's gain sequences: a_t = a / (t + offset)^alpha and c_t = c / t^gamma, with t from 1.

    Args:
        a: step size; c: perturbation size. Both in units of a parameter.
    """

    a: float
    c: float
    offset: float = 1.0
    alpha: float = 0.4
    gamma: float = 0.1

    def rate(self, step: int) -> float:
        """a_t, the step size."""
        return float(self.a / (step + self.offset) ** self.alpha)

    def width(self, step: int) -> float:
        """c_t, the perturbation's size."""
        return float(self.c / step**self.gamma)


@dataclass(frozen=True)
class SPSA:
    """An estimate of one point's gradient from ``k`` random directions.

    Laws of the directions u, and what a difference is multiplied with (Oh et al., "BlackVIP", CVPR 2023, section 3.3):
        rademacher: independent signs; 1/u = u.
        segmented: random signs times U[0.5, 1]; 1/u elementwise, as published.
        sphere: the unit sphere; dim u (random gradient-free, RGF, Nesterov & Spokoiny 2017).

    Queries: ``evaluations`` of the function a step, 2 k two-sided and k + 1 one-sided.
    """

    k: int
    sides: int = 2
    law: PerturbationLaw = "rademacher"

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError(f"{self.k} directions asked for, expected at least 1")
        if self.sides not in (1, 2):
            raise ValueError(f"sides is {self.sides}, expected 1 or 2")

    @property
    def evaluations(self) -> int:
        """Points at which the function is asked for one estimate."""
        return 2 * self.k if self.sides == 2 else self.k + 1

    def directions(
        self,
        seed: int,
        step: int,
        dim: int,
        *,
        numbers: Sequence[int] | None = None,
        device: torch.device | str = "cpu",
    ) -> Tensor:
        """The directions of a step, or those with these numbers: (k, dim) float32, the same on every device."""
        number = torch.arange(self.k) if numbers is None else torch.tensor(list(numbers), dtype=torch.int64)
        keys = fold(root_keys(seed, torch.tensor([step])), number).to(device)
        if self.law == "sphere":
            drawn = gaussian(keys, dim)
            return drawn / drawn.double().square().sum(1, keepdim=True).sqrt().float()
        signs = rademacher(keys, dim)
        if self.law == "rademacher":
            return signs
        return signs * (0.5 + 0.5 * uniform(fold(keys, 1), dim))

    def points(self, weights: Tensor, directions: Tensor, width: float) -> Tensor:
        """Where the function is asked: w + c u, then w - c u (two-sided), or w, then w + c u (one-sided).

        Shapes:
            weights: (dim,); directions: (k, dim); returns: (evaluations, dim).
        """
        ahead = weights + width * directions
        if self.sides == 2:
            return torch.cat([ahead, weights - width * directions])
        return torch.cat([weights[None], ahead])

    def coefficients(self, values: Tensor, width: float) -> Tensor:
        """Directional derivatives from the function's values: (k,) float64.

        Shapes:
            values: (evaluations,), in the order of ``points``.
        """
        values = values.double()
        if self.sides == 2:
            half = len(values) // 2
            return (values[:half] - values[half:]) / (2 * width)
        return (values[1:] - values[0]) / width

    def gradient(self, coefficients: Tensor, directions: Tensor) -> Tensor:
        """The mean over directions of coefficient times 1/u: (dim,) float32, summed in float64.

        Shapes:
            coefficients: (k,); directions: (k, dim).
        """
        u = directions.double()
        inverse = {"rademacher": lambda: u, "segmented": lambda: 1 / u, "sphere": lambda: u.shape[1] * u}[self.law]()
        return (coefficients.to(u) @ inverse / len(u)).float()


def clip_estimate(estimate: Tensor, scale: float = 1.0) -> Tensor:
    """Shorten an estimate to norm ``scale`` * sqrt(dim), that is to RMS ``scale`` a coordinate, where it is longer.

    An SPSA estimate is about sqrt(dim / k) times as long as the gradient, so that an unclipped step is mostly noise.
    The bound at sqrt(dim) is that of Park et al., "ZIP", ICLR 2025 (intrinsic-dimensional clipping).
    """
    limit = scale * math.sqrt(len(estimate))
    # In float64: the squares of a diverging estimate overflow float32, and the step would be zero.
    length = estimate.double().norm().clamp_min(1e-300)
    return estimate * torch.clamp(limit / length, max=1.0).to(estimate.dtype)
